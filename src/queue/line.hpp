// The line of waiting requests: each is served whole, in the order in which they came.
//
// The line serves fairness only. The slots' words decide what a consumer takes, so a request that
// goes out of turn endangers no message, and a wrong guess about a process's life costs that
// process its turn and no more.
#pragma once

#include <cstdint>

#include "queue/control.hpp"
#include "segment/waiting/signal.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {

// One participant's access to the line. Belongs to the consuming thread; any number of
// participants.
//
// A request gets its ticket when it arrives, and joins the line when it has to wait. The first
// request that has joined and gives signs of life may take; all later ones sleep on `turn`; a
// request that leaves the line wakes them.
class WaitingLine {
public:
    WaitingLine() noexcept = default;
    WaitingLine(const QueueView& view, unsigned self, Signal turn) noexcept
        : view_(view), self_(self), turn_(turn) {}

    // A request arrives: it precedes all later ones. One at a time.
    void arrive(bool is_several) noexcept;
    // The request that arrived waits, for that many. Idempotent.
    void join(std::uint64_t wanted) noexcept;
    // The request was served, or has given up.
    void leave() noexcept;
    [[nodiscard]] bool has_joined() const noexcept { return joined_ != 0; }

    // Whether other requests may wait. A false may be outdated.
    [[nodiscard]] bool may_be_occupied() const noexcept {
        return (load_relaxed(view_.state().line) & 1U) != 0;
    }
    // Whether other requests wait and give signs of life. Not while has_joined().
    [[nodiscard]] bool is_occupied() noexcept { return may_be_occupied() && look_for_others(); }
    // Whether no living request precedes this one, which has joined.
    [[nodiscard]] bool is_first() const noexcept;

    // Called between sleeps by a waiting request: gives a sign of life, then watch().
    void tend() noexcept;
    // Passes the first other request if that precedes this one and has given no sign of life for
    // kSilencePatience. What was seen is kept from one request of this participant to the next, so
    // short requests can do it too.
    void watch() noexcept;
    // Voids that participant's request: it leaves, or is dead and its janitor calls.
    void clear(unsigned place) noexcept;

private:
    struct Other {
        unsigned place = 0;
        std::uint64_t request = 0;  // 0: there is none

        bool operator==(const Other&) const noexcept = default;
    };
    [[nodiscard]] Other first_of_others() const noexcept;
    [[nodiscard]] bool look_for_others() noexcept;
    void announce() noexcept;

    // The first other request, as last seen, and since when it has looked like that.
    struct Watched {
        Other other;
        std::uint64_t beats = 0;
        std::int64_t since = 0;
    };

    QueueView view_;
    unsigned self_ = 0;
    Signal turn_;
    std::uint64_t arrived_ = 0;  // encode_request() of the request that arrived last
    std::uint64_t joined_ = 0;   // the same while it is in the line, else 0
    Watched watched_;
    std::int64_t looked_at_ = 0;  // when this request last looked, or joined
};

}  // namespace penstock::detail

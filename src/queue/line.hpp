// The line of requests that wait: each is served whole, in the order in which they came.
//
// The line is fairness and nothing else. What a consumer takes is decided by the slots' words, so a
// request that goes before its turn takes nothing from a message's safety, and a wrong guess about
// another's life costs the other its turn and no more.
#pragma once

#include <cstdint>

#include "queue/control.hpp"
#include "segment/waiting/signal.hpp"

namespace penstock::detail {

// One participant's end of it. Belongs to the thread that consumes; any number of participants.
//
// A request has its ticket from when it came, and joins the line when it has to wait. The first of
// all that have joined and give signs of life may take; the others sleep on `turn`; a request
// that leaves the line wakes them.
class WaitingLine {
public:
    WaitingLine() noexcept = default;
    WaitingLine(const QueueView& view, unsigned self, Signal turn) noexcept
        : view_(view), self_(self), turn_(turn) {}

    // A request comes: from here on it is before all that come later. One at a time.
    void arrive(bool is_several) noexcept;
    // The request of arrive() waits, for so many. Nothing the second time.
    void join(std::uint64_t wanted) noexcept;
    // It has been served, or has given up.
    void leave() noexcept;
    [[nodiscard]] bool has_joined() const noexcept { return joined_ != 0; }

    // Whether other requests may wait. False is as of a moment ago.
    [[nodiscard]] bool may_be_occupied() const noexcept {
        return (view_.state().line.load(std::memory_order_relaxed) & 1U) != 0;
    }
    // Whether others wait, and give signs of life. Not while has_joined().
    [[nodiscard]] bool is_occupied() noexcept { return may_be_occupied() && look_for_others(); }
    // Of a request that has joined: no living one is before it.
    [[nodiscard]] bool is_first() const noexcept;

    // Of a request that waits, between sleeps: a sign of life to the others, then watch().
    void tend() noexcept;
    // If the first of the others keeps this participant from its turn, and has given no sign of
    // life for kSilencePatience, it is passed. However short each request is: what was seen stays
    // known from one to the next.
    void watch() noexcept;
    // What that participant waits for is void: it leaves, or is dead and its janitor calls.
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

    // The first of the others as it was last seen, and since when it has been like that.
    struct Watched {
        Other other;
        std::uint64_t beats = 0;
        std::int64_t since = 0;
    };

    QueueView view_;
    unsigned self_ = 0;
    Signal turn_;
    std::uint64_t arrived_ = 0;  // encode_request() of the request that came last
    std::uint64_t joined_ = 0;   // the same while it waits in the line, else 0
    Watched watched_;
};

}  // namespace penstock::detail

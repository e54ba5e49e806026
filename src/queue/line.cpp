#include "queue/line.hpp"

#include <chrono>
#include <utility>

#include "os/clock.hpp"
#include "os/crash_point.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {

void WaitingLine::arrive(bool is_several) noexcept {
    const std::uint64_t count = load_acquire(view_.state().line) >> 1U;
    arrived_ = layout::encode_request({false, is_several, count + 1});
}

// Stores the request before the announcement, whose count separates it from all later requests.
void WaitingLine::join(std::uint64_t wanted) noexcept {
    if (joined_ != 0) return;
    joined_ = arrived_;
    layout::QueueParticipant& own = view_.participant(self_);
    store_relaxed(own.requested, wanted);
    // pairs with: the acquire in first_of_others()
    store_release(own.request, joined_);
    PENSTOCK_CRASH_POINT("queue.line.requested");
    announce();
    looked_at_ = os::monotonic_ns();
}

void WaitingLine::leave() noexcept {
    if (joined_ == 0) return;
    joined_ = 0;
    store_release(view_.participant(self_).request, 0);
    PENSTOCK_CRASH_POINT("queue.line.left");
    turn_.notify();
}

// Bit 0 may be cleared after a look that found no request, unless the count has moved since.
void WaitingLine::announce() noexcept {
    std::atomic<std::uint64_t>& line = view_.state().line;
    std::uint64_t seen = load_relaxed(line);
    // pairs with: the acquire in look_for_others(), which sees the request if it sees this
    while (!cas_acq_rel(line, seen, (seen + 2) | 1U)) {
    }
    PENSTOCK_CRASH_POINT("queue.line.announced");
}

WaitingLine::Other WaitingLine::first_of_others() const noexcept {
    Other first;
    for (unsigned place = 0; place < view_.shape().participants; ++place) {
        if (place == self_) continue;
        // pairs with: the release in join() and in leave()
        const std::uint64_t request = load_acquire(view_.participant(place).request);
        if (request == 0 || (request & layout::kPassedRequest) != 0) continue;
        if (first.request == 0 || request < first.request) first = {place, request};
    }
    return first;
}

bool WaitingLine::look_for_others() noexcept {
    std::uint64_t seen = load_acquire(view_.state().line);
    if (first_of_others().request != 0) return true;
    cas_acq_rel(view_.state().line, seen, seen & ~std::uint64_t{1});
    return false;
}

bool WaitingLine::is_first() const noexcept {
    const Other other = first_of_others();
    if (other.request == 0 || joined_ < other.request) return true;
    return joined_ == other.request && self_ < other.place;
}

// Silence is no evidence of death: a stopped or starved process notices that it was passed, and is
// back in its old position. It loses nothing that it holds.
void WaitingLine::tend() noexcept {
    if (joined_ == 0) return;
    layout::QueueParticipant& own = view_.participant(self_);
    add_as_sole_writer(own.beats, 1);
    if ((load_relaxed(own.request) & layout::kPassedRequest) != 0) {
        store_release(own.request, joined_);
        PENSTOCK_CRASH_POINT("queue.line.returned");
        announce();
    }
    watch();
}

void WaitingLine::watch() noexcept {
    const Other first = first_of_others();
    if (first.request == 0 || (joined_ != 0 && is_first())) return;
    layout::QueueParticipant& other = view_.participant(first.place);
    const std::uint64_t beats = load_relaxed(other.beats);
    const std::int64_t now = os::monotonic_ns();
    // A waiting request that comes so late was itself absent, perhaps with the whole machine.
    constexpr std::int64_t kLate = 2 * std::chrono::nanoseconds(kSlice).count();
    const bool was_absent = joined_ != 0 && now - std::exchange(looked_at_, now) > kLate;
    if (was_absent || watched_.other != first || watched_.beats != beats) {
        watched_ = {first, beats, now};
        return;
    }
    if (now - watched_.since < kSilencePatience) return;
    std::uint64_t expected = first.request;
    if (cas_acq_rel(other.request, expected, expected | layout::kPassedRequest)) {
        PENSTOCK_CRASH_POINT("queue.line.passed");
        turn_.notify();
    }
}

void WaitingLine::clear(unsigned place) noexcept {
    if (load_relaxed(view_.participant(place).request) == 0) return;
    store_release(view_.participant(place).request, 0);
    PENSTOCK_CRASH_POINT("queue.line.cleared");
    turn_.notify();
}

}  // namespace penstock::detail

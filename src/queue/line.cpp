#include "queue/line.hpp"

#include "os/clock.hpp"
#include "os/crash_point.hpp"

namespace penstock::detail {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kAcqRel = std::memory_order_acq_rel;

}  // namespace

void WaitingLine::arrive(bool is_several) noexcept {
    const std::uint64_t count = view_.state().line.load(kAcquire) >> 1U;
    arrived_ = layout::encode_request({false, is_several, count + 1});
}

// Stores the request before the announcement, whose count separates it from all later requests.
void WaitingLine::join(std::uint64_t wanted) noexcept {
    if (joined_ != 0) return;
    joined_ = arrived_;
    layout::QueueParticipant& own = view_.participant(self_);
    own.requested.store(wanted, kRelaxed);
    // pairs with: the acquire in first_of_others()
    own.request.store(joined_, kRelease);
    PENSTOCK_CRASH_POINT("queue.line.requested");
    announce();
}

void WaitingLine::leave() noexcept {
    if (joined_ == 0) return;
    joined_ = 0;
    view_.participant(self_).request.store(0, kRelease);
    PENSTOCK_CRASH_POINT("queue.line.left");
    turn_.notify();
}

// Bit 0 may be cleared after a look that found no request, unless the count has moved since.
void WaitingLine::announce() noexcept {
    std::atomic<std::uint64_t>& line = view_.state().line;
    std::uint64_t seen = line.load(kRelaxed);
    // pairs with: the acquire in look_for_others(), which sees the request if it sees this
    while (!line.compare_exchange_weak(seen, (seen + 2) | 1U, kAcqRel, kRelaxed)) {
    }
    PENSTOCK_CRASH_POINT("queue.line.announced");
}

WaitingLine::Other WaitingLine::first_of_others() const noexcept {
    Other first;
    for (unsigned place = 0; place < view_.shape().participants; ++place) {
        if (place == self_) continue;
        // pairs with: the release in join() and in leave()
        const std::uint64_t request = view_.participant(place).request.load(kAcquire);
        if (request == 0 || (request & layout::kPassedRequest) != 0) continue;
        if (first.request == 0 || request < first.request) first = {place, request};
    }
    return first;
}

bool WaitingLine::look_for_others() noexcept {
    std::uint64_t seen = view_.state().line.load(kAcquire);
    if (first_of_others().request != 0) return true;
    view_.state().line.compare_exchange_strong(seen, seen & ~std::uint64_t{1}, kAcqRel, kRelaxed);
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
    own.beats.store(own.beats.load(kRelaxed) + 1, kRelaxed);
    if ((own.request.load(kRelaxed) & layout::kPassedRequest) != 0) {
        own.request.store(joined_, kRelease);
        PENSTOCK_CRASH_POINT("queue.line.returned");
        announce();
    }
    watch();
}

void WaitingLine::watch() noexcept {
    const Other first = first_of_others();
    if (first.request == 0 || (joined_ != 0 && is_first())) return;
    layout::QueueParticipant& other = view_.participant(first.place);
    const std::uint64_t beats = other.beats.load(kRelaxed);
    const std::int64_t now = os::monotonic_ns();
    if (watched_.other != first || watched_.beats != beats) {
        watched_ = {first, beats, now};
        return;
    }
    if (now - watched_.since < kSilencePatience) return;
    std::uint64_t expected = first.request;
    if (other.request.compare_exchange_strong(expected, expected | layout::kPassedRequest, kAcqRel,
                                              kRelaxed)) {
        PENSTOCK_CRASH_POINT("queue.line.passed");
        turn_.notify();
    }
}

void WaitingLine::clear(unsigned place) noexcept {
    if (view_.participant(place).request.load(kRelaxed) == 0) return;
    view_.participant(place).request.store(0, kRelease);
    PENSTOCK_CRASH_POINT("queue.line.cleared");
    turn_.notify();
}

}  // namespace penstock::detail

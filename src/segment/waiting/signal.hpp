// Waiting for a word in shared memory to change: spin for microseconds, then sleep in the kernel.
// An event count after D. Vyukov's, with an asymmetric fence so that a waker pays one load.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "os/clock.hpp"
#include "os/crash_point.hpp"
#include "os/fence.hpp"
#include "os/futex.hpp"
#include "penstock/wait.hpp"
#include "segment/layout.hpp"
#include "segment/waiting/timing.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {

enum class WaitEnd : std::uint8_t { Ready, Timeout, Cancelled, PeerGone };

// Spin budget, learnt from recent waits. One per handle; not thread-safe.
class SpinBudget {
public:
    SpinBudget() noexcept;

    [[nodiscard]] std::int64_t nanoseconds() const noexcept { return budget_; }
    void won() noexcept {
        budget_ = std::min(budget_ * 2, most_);
        doubt_ = 0;
    }
    void lost() noexcept {
        if (budget_ == most_) {
            doubt_ = std::min(doubt_ + 1, kMaxDoubt);
            refusals_ = 1U << doubt_;
        }
        budget_ = std::max(budget_ / 2, least_);
    }
    // The wait ended after a sleep, but so soon that the longest spin would have met it: sets the
    // budget to its maximum. Without this, two sides that both slept once would stay too slow for
    // each other's short spins. If both share one processor, the peer runs only while this side
    // sleeps, and the longest spin loses too: each such loss doubles the number of calls that are
    // ignored.
    void would_have_won(std::int64_t waited) noexcept {
        if (waited >= 2 * most_) return;
        if (refusals_ > 0) {
            --refusals_;
        } else {
            budget_ = most_;
        }
    }

private:
    static constexpr std::int64_t kMax =
        30'000;  // the cost of a wake-up: spinning longer never pays
    static constexpr std::int64_t kMin = 1'000;  // enough to notice that spinning pays again
    static constexpr unsigned kMaxDoubt = 10;
    std::int64_t most_;
    std::int64_t least_;
    std::int64_t budget_;
    unsigned doubt_ = 0;     // longest spins lost in a row
    unsigned refusals_ = 0;  // calls of would_have_won() still to be ignored
};

// One SignalWord and the fence its segment agreed on. A value; any thread.
class Signal {
public:
    Signal() noexcept = default;
    Signal(layout::SignalWord& word, bool asymmetric) noexcept
        : word_(&word.word), asymmetric_(asymmetric) {}

    // To be called after the store that waiters look for. Makes no system call unless a waiter has
    // announced itself. Orders that store before the look at the waiters.
    void notify() noexcept {
        if (has_waiters()) wake();
    }

    // The first half of notify(), for wakers with a condition of their own.
    [[nodiscard]] bool has_waiters() noexcept {
        // pairs with: the heavy fence in announce()
        if (asymmetric_) {
            os::asymmetric_fence_light();
        } else {
            os::full_fence();
        }
        if ((load_relaxed(*word_) & 1U) == 0) return false;
        // Makes visible what the waiter stored before it announced itself.
        // pairs with: the fetch_or in announce()
        std::atomic_thread_fence(std::memory_order_acquire);
        return true;
    }

    void wake() noexcept {
        std::uint32_t seen = load_relaxed(*word_);
        while ((seen & 1U) != 0 && !cas_acq_rel(*word_, seen, seen + 1)) {
        }
        PENSTOCK_CRASH_POINT("signal.wake.cleared");
        os::futex_wake_all(*word_);
        PENSTOCK_CRASH_POINT("signal.wake.woken");
    }

    // Announces a waiter that is about to sleep; the caller must check its condition again
    // afterwards. Returns the word to sleep on. A waiter that dies here costs one needless wake-up.
    std::uint32_t announce() noexcept {
        const std::uint32_t seen = fetch_or_acq_rel(*word_, 1U) | 1U;
        PENSTOCK_CRASH_POINT("signal.announce.set");
        // pairs with: the light fence in has_waiters()
        if (asymmetric_) {
            os::asymmetric_fence_heavy();
        } else {
            os::full_fence();
        }
        return seen;
    }

    // True if no wake-up came since announce() returned `seen`.
    [[nodiscard]] bool is_standing(std::uint32_t seen) const noexcept {
        return load_acquire(*word_) == seen;
    }

    os::Woken sleep(std::uint32_t seen, std::chrono::nanoseconds span) noexcept {
        return os::futex_wait(*word_, seen, span);
    }

private:
    std::atomic<std::uint32_t>* word_ = nullptr;
    bool asymmetric_ = false;
};

// Spins until ready() or until the budget is used up; true if ready.
template <typename Ready>
bool spin_until(SpinBudget& budget, Ready&& ready) {
    const std::int64_t allowed = budget.nanoseconds();
    if (allowed == 0) return false;
    constexpr int kLooksPerClock = 16;
    const std::int64_t end = os::monotonic_ns() + allowed;
    do {
        for (int look = 0; look < kLooksPerClock; ++look) {
            if (ready()) {
                budget.won();
                return true;
            }
            os::spin_pause();
        }
    } while (os::monotonic_ns() < end);
    budget.lost();
    return false;
}

// Whether a loop may look again (Ready) that has not slept, because its condition seemed to hold
// and did not. Once, this is a lost race; in damaged memory it may go on for ever.
inline WaitEnd end_of_wait(const Wait& wait) {
    if (wait.cancel != nullptr && wait.cancel->is_cancelled()) return WaitEnd::Cancelled;
    if (wait.deadline.has_passed(Clock::now())) return WaitEnd::Timeout;
    if (wait.interrupted != nullptr && wait.interrupted(wait.context)) return WaitEnd::Cancelled;
    return WaitEnd::Ready;
}

// Waits until ready(); calls peer_gone() before the first sleep and at least every kSlice. After
// PeerGone the caller decides on a last look: the peer may have made it ready just before it died.
// `sleeps` counts sleeps in the kernel.
template <typename Ready, typename PeerGone>
WaitEnd wait_until(Signal signal, SpinBudget& budget, const Wait& wait, std::uint64_t& sleeps,
                   Ready&& ready, PeerGone&& peer_gone) {
    if (ready()) return WaitEnd::Ready;
    if (wait.deadline.is_try()) {
        if (peer_gone()) return WaitEnd::PeerGone;
        return ready() ? WaitEnd::Ready : WaitEnd::Timeout;
    }
    if (spin_until(budget, ready)) return WaitEnd::Ready;
    const std::int64_t asleep_since = os::monotonic_ns();
    constexpr unsigned kRoundsToAsk = 3;
    unsigned rounds = 0;
    std::uint32_t seen = signal.announce();
    if (ready()) return WaitEnd::Ready;
    for (;;) {
        if (peer_gone()) return WaitEnd::PeerGone;
        if (wait.cancel != nullptr && wait.cancel->is_cancelled()) return WaitEnd::Cancelled;
        const auto now = Clock::now();
        if (wait.deadline.has_passed(now)) return WaitEnd::Timeout;
        ++sleeps;
        const os::Woken woken = signal.sleep(seen, wait.deadline.left(now, kSlice));
        if (ready()) {
            budget.would_have_won(os::monotonic_ns() - asleep_since);
            return WaitEnd::Ready;
        }
        // Rarely without a signal, because for Python the call takes the GIL; those calls are for
        // signals that another thread has received.
        const bool asks = woken == os::Woken::BySignal || ++rounds % kRoundsToAsk == 0;
        if (asks && wait.interrupted != nullptr && wait.interrupted(wait.context)) {
            return WaitEnd::Cancelled;
        }
        // An announcement that no waker has cleared still holds: no second fence.
        if (signal.is_standing(seen)) continue;
        seen = signal.announce();
        if (ready()) return WaitEnd::Ready;
    }
}

}  // namespace penstock::detail

// Waiting for a condition in shared memory: spin for microseconds, then sleep in the kernel. An
// event count after D. Vyukov's, with an asymmetric fence so that a waker pays one load.
#pragma once

#include <chrono>
#include <cstdint>
#include <utility>

#include "os/clock.hpp"
#include "os/crash_point.hpp"
#include "os/fence.hpp"
#include "os/fork.hpp"
#include "os/futex.hpp"
#include "os/processor.hpp"
#include "penstock/wait.hpp"
#include "segment/layout.hpp"
#include "segment/waiting/spin_budget.hpp"
#include "segment/waiting/timing.hpp"
#include "segment/waiting/watcher.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {

enum class WaitEnd : std::uint8_t { Ready, Timeout, Cancelled, PeerGone };

// One SignalWord and the fence its segment agreed on. A value; any thread.
class Signal {
public:
    Signal() noexcept = default;
    Signal(layout::SignalWord& word, bool asymmetric) noexcept
        : signal_(&word), asymmetric_(asymmetric) {}

    // Wakes all waiters that have announced themselves; makes no system call without one. To be
    // called after the store that they wait for, which it orders before its load of the word.
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
        if ((load_relaxed(word()) & 1U) == 0) return false;
        // pairs with: the fetch_or in announce(): what the waiter stored before it is visible
        std::atomic_thread_fence(std::memory_order_acquire);
        return true;
    }

    void wake() noexcept {
        store_relaxed(signal_->waker_processor, os::current_processor());
        store_relaxed(signal_->woken_at, os::monotonic_ns());
        clear();
        PENSTOCK_CRASH_POINT("signal.wake.cleared");
        os::futex_wake_all(word());
        PENSTOCK_CRASH_POINT("signal.wake.woken");
    }

    // Wakes the waiters of this process only, for its watcher. The announcement stays: it may be of
    // other processes' waiters, too, which would sleep on without it if this process died before
    // its system call. Notes no time: spin budgets learn the cost of a wake-up from wakers alone.
    void rouse() noexcept {
        std::uint32_t seen = load_relaxed(word());
        while ((seen & 1U) != 0 && !cas_acq_rel(word(), seen, seen + 2)) {
        }
        PENSTOCK_CRASH_POINT("signal.rouse.changed");
        os::futex_wake_own(word());
    }

    // Announces a waiter that is about to sleep; the caller must check its condition again
    // afterwards. Returns the word to sleep on. A waiter that dies here costs one needless wake-up.
    std::uint32_t announce() noexcept {
        const std::uint32_t seen = fetch_or_acq_rel(word(), 1U) | 1U;
        PENSTOCK_CRASH_POINT("signal.announce.set");
        // pairs with: the light fence in has_waiters()
        if (asymmetric_) {
            os::asymmetric_fence_heavy();
        } else {
            os::full_fence();
        }
        return seen;
    }

    // True if neither wake() nor rouse() has changed the word since announce() returned `seen`.
    [[nodiscard]] bool is_standing(std::uint32_t seen) const noexcept {
        return load_acquire(word()) == seen;
    }

    os::Woken sleep(std::uint32_t seen, std::chrono::nanoseconds span) noexcept {
        return os::futex_wait(word(), seen, span);
    }

    // The last wake-up, for a waiter that has just woken. Its two words may come from two wakers:
    // good enough for a budget, which checks them.
    [[nodiscard]] WakeUp last_wake_up() const noexcept {
        return {
            .notified_at = load_relaxed(signal_->woken_at),
            .awake_at = os::monotonic_ns(),
            .is_same_processor = load_relaxed(signal_->waker_processor) == os::current_processor()};
    }

private:
    [[nodiscard]] std::atomic<std::uint32_t>& word() const noexcept { return signal_->word; }

    // Announced -> Quiet, and counts the wake-up. No effect on a word that is quiet.
    void clear() noexcept {
        std::uint32_t seen = load_relaxed(word());
        while ((seen & 1U) != 0 && !cas_acq_rel(word(), seen, seen + 1)) {
        }
    }

    layout::SignalWord* signal_ = nullptr;
    bool asymmetric_ = false;
};

// The longest spin before that deadline. A balanced one may pass it, as a wake-up may, and does not
// pay for a second reading of the clock.
inline std::int64_t spin_limit(const SpinBudget& budget, const Deadline& deadline) noexcept {
    const std::int64_t allowed = budget.nanoseconds();
    if (allowed <= SpinBudget::kMaxBalanced || deadline.is_never()) return allowed;
    return deadline.left(Clock::now(), std::chrono::nanoseconds(allowed)).count();
}

// Spins until ready() or until the budget is used up, or the deadline has come; true if ready.
template <typename Ready>
bool spin_until(SpinBudget& budget, const Deadline& deadline, Ready&& ready) {
    const std::int64_t start = os::monotonic_ns();
    budget.began(start);
    const std::int64_t allowed = spin_limit(budget, deadline);
    if (allowed == 0) return false;
    constexpr int kLooksPerClock = 16;
    constexpr std::int64_t kGap = 100'000;  // between two reads of the clock: another thread ran
    std::int64_t now = start;
    do {
        for (int look = 0; look < kLooksPerClock; ++look) {
            if (ready()) {
                budget.spent(now - start, look + 1);
                budget.won();
                return true;
            }
            os::spin_pause();
        }
        const std::int64_t before = std::exchange(now, os::monotonic_ns());
        if (now - before > kGap) {
            budget.spent(before - start, kLooksPerClock);
            budget.preempted();
            return false;
        }
        budget.looked(now - before, kLooksPerClock);
    } while (now - start < allowed);
    budget.spent(now - start);
    budget.lost();
    return false;
}

// Updates the budget after the sleep that ended a wait, and moves this thread to another processor
// where both sides are stuck on one.
inline void learn_from_sleep(const Signal& signal, SpinBudget& budget) noexcept {
    const WakeUp wake_up = signal.last_wake_up();
    budget.slept(wake_up);
    if (budget.wants_to_part(wake_up.awake_at)) budget.parted(wake_up.awake_at, os::step_aside());
}

// Asks Wait::interrupted. True also in a child that `interrupted` has forked off.
inline bool is_interrupted(const Wait& wait) {
    const std::uint64_t before = os::fork_generation();
    return wait.interrupted != nullptr &&
           (wait.interrupted(wait.context) || os::fork_generation() != before);
}

// For a loop whose condition seemed to hold and did not, so that it has not slept: Ready lets it
// look again. Once, this is a lost race; in damaged memory it may repeat for ever.
inline WaitEnd end_of_wait(const Wait& wait) {
    if (wait.cancel != nullptr && wait.cancel->is_cancelled()) return WaitEnd::Cancelled;
    if (wait.deadline.has_passed(Clock::now())) return WaitEnd::Timeout;
    if (is_interrupted(wait)) return WaitEnd::Cancelled;
    return WaitEnd::Ready;
}

// Waits until ready(); calls peer_gone() before the first sleep and at least every kSlice, or,
// where the watcher watches all peers, as rarely as peers.slices says. After PeerGone the caller
// decides on a last look: the peer may have made it ready just before it died. `sleeps` counts
// sleeps in the kernel. Cancelled also in a child that a signal handler has forked off meanwhile,
// where the segment is not mapped: callers look at is_foreign() first.
template <typename Ready, typename PeerGone>
WaitEnd wait_until(Signal signal, SpinBudget& budget, const Wait& wait, std::uint64_t& sleeps,
                   Ready&& ready, PeerGone&& peer_gone, const Peers& peers = {}) {
    if (ready()) return WaitEnd::Ready;
    if (wait.deadline.is_try()) {
        if (peer_gone()) return WaitEnd::PeerGone;
        return ready() ? WaitEnd::Ready : WaitEnd::Timeout;
    }
    if (spin_until(budget, wait.deadline, ready)) return WaitEnd::Ready;
    LongWait long_wait(signal, wait, peers);
    const std::uint64_t sleeps_before = sleeps;
    std::uint32_t seen = signal.announce();
    if (ready()) return WaitEnd::Ready;
    for (;;) {
        const std::chrono::nanoseconds slice = long_wait.next_slice();
        // A peer that another process has reaped since the last look is not watched any more.
        if (slice > kSlice && ready()) return WaitEnd::Ready;
        if (peer_gone()) return WaitEnd::PeerGone;
        if (wait.cancel != nullptr && wait.cancel->is_cancelled()) return WaitEnd::Cancelled;
        const auto now = Clock::now();
        if (wait.deadline.has_passed(now)) return WaitEnd::Timeout;
        if (sleeps++ == sleeps_before) budget.parked();
        const os::Woken woken = signal.sleep(seen, wait.deadline.left(now, slice));
        if (long_wait.is_in_child()) return WaitEnd::Cancelled;  // a signal handler has forked
        if (ready()) {
            learn_from_sleep(signal, budget);
            return WaitEnd::Ready;
        }
        if (long_wait.is_to_ask(woken) && is_interrupted(wait)) return WaitEnd::Cancelled;
        // An announcement that no waker has cleared still holds: no second fence.
        if (signal.is_standing(seen)) continue;
        seen = signal.announce();
        if (ready()) return WaitEnd::Ready;
    }
}

}  // namespace penstock::detail

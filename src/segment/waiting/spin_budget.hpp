// How long a waiter spins before it sleeps in the kernel, learnt from its recent waits.
// Spinning for as long as blocking costs is at most twice the best choice (Karlin et al., SODA
// 1990, "Competitive randomized algorithms for non-uniform problems"); what blocking costs here is
// measured by each wake-up. The segment's policy may forbid spinning, or buy latency with more of
// it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>

#include "penstock/wait.hpp"
#include "segment/waiting/wait_meter.hpp"

namespace penstock::detail {

// What a waiter knows of the wake-up that ended its wait. Times in nanoseconds of the machine's
// monotonic clock.
struct WakeUp {
    std::int64_t notified_at = 0;    // when the waker called the kernel; read from shared memory
    std::int64_t awake_at = 0;       // when the waiter ran again
    bool is_same_processor = false;  // the waker ran on the processor that the waiter runs on now
};

// One per handle and kind of wait; not thread-safe. Takes times as arguments: tests simulate it.
class SpinBudget {
    static constexpr std::int64_t kMaxWakeCost = 100'000;  // more is queueing for a processor
    // Spins last 5/2 wake-ups at most: where both sides sleep, a reply takes the peer's wake-up and
    // its work, and a spin that covers both lets both sides spin again.
    static constexpr std::int64_t kSpinToWake = 5;

public:
    // No balanced spin is longer.
    static constexpr std::int64_t kMaxBalanced = kSpinToWake * kMaxWakeCost / 2;
    // Of the latency policy: to a message that comes after more than this, a wake-up adds less than
    // 2 % of the time that was waited for it.
    static constexpr std::int64_t kMaxForLatency = 50 * kMaxWakeCost;

    explicit SpinBudget(WaitPolicy policy = WaitPolicy::Balanced,
                        const WaitMeter& meter = {}) noexcept;
    explicit SpinBudget(unsigned processors, WaitPolicy policy = WaitPolicy::Balanced,
                        const WaitMeter& meter = {}) noexcept
        : meter_(meter), policy_(policy), may_spin_(processors > 1 && policy != WaitPolicy::Frugal),
          budget_(is_for_latency() ? longest() : longest() / 2) {}

    // The longest next spin. 0 while waiter and waker share one processor: the waker runs only when
    // the waiter sleeps.
    [[nodiscard]] std::int64_t nanoseconds() const noexcept { return is_shared() ? 0 : budget_; }

    void began(std::int64_t now) noexcept { began_ = now; }
    void won() noexcept;
    void lost() noexcept;
    // The spinning thread was descheduled: other threads need its processor.
    void preempted() noexcept;
    // The wait is about to sleep for the first time.
    void parked() noexcept { meter_.add_sleep(); }
    // The wait ended with a sleep.
    void slept(const WakeUp& wake_up) noexcept;

    // Counts the time of a spin: `span` up to the last reading of the clock, and the looks since
    // then. No spin that wins pays for another reading.
    void spent(std::int64_t span, int looks = 0) noexcept {
        meter_.add_spun(span + looks * look_cost_);
    }
    // So many looks took `span`.
    void looked(std::int64_t span, int looks) noexcept { look_cost_ = span / looks; }

    // Whether both sides have shared one processor for some waits in a row, and it is time to try
    // to part: the scheduler keeps them there, since it wakes a thread where its waker runs. The
    // caller tries os::step_aside() and passes the result to parted().
    [[nodiscard]] bool wants_to_part(std::int64_t now) const noexcept {
        return is_shared() && now >= next_parting_ && may_spin_;
    }
    void parted(std::int64_t now, bool has_moved) noexcept;

    [[nodiscard]] std::int64_t longest() const noexcept {
        if (!may_spin_) return 0;
        if (is_for_latency()) return kMaxForLatency;
        return std::min(std::max(kSpinToWake * wake_cost_ / 2, kMin), bound_);
    }
    // There are more participants than processors: a long spin takes one from a peer that has a
    // message to receive.
    void bound_for_crowd() noexcept {
        bound_ = kMaxInCrowd;
        budget_ = std::min(budget_, longest());
    }

private:
    static constexpr std::int64_t kFirstWakeCost = 12'000;
    static constexpr std::int64_t kFirstLookCost = 40;
    static constexpr std::int64_t kMaxInCrowd = 10'000;
    static constexpr std::int64_t kMin = 1'000;  // enough to notice that spinning pays again
    static constexpr unsigned kMaxDoubt = 7;
    static constexpr unsigned kShared = 4;           // waits in a row
    static constexpr unsigned kProofOfParting = 20;  // spins won
    static constexpr std::int64_t kMinPatience = 2'000'000;
    static constexpr std::int64_t kMaxPatience = 2'000'000'000;

    [[nodiscard]] std::int64_t shortest() const noexcept { return may_spin_ ? kMin : 0; }
    [[nodiscard]] bool is_shared() const noexcept { return shared_ >= kShared; }
    [[nodiscard]] bool is_for_latency() const noexcept { return policy_ == WaitPolicy::Latency; }
    void learn_wake_cost(std::int64_t cost) noexcept;
    void doubt(unsigned steps) noexcept;
    void refuse_sleeps() noexcept { refusals_ = 1U << doubt_; }

    WaitMeter meter_;
    WaitPolicy policy_;
    bool may_spin_;  // false: one processor, or the policy forbids it
    std::int64_t wake_cost_ = kFirstWakeCost;
    std::int64_t look_cost_ = kFirstLookCost;
    std::int64_t bound_ = kMaxBalanced;
    std::int64_t budget_;
    std::int64_t began_ = 0;
    unsigned doubt_ = 0;     // longest spins lost since the last win; a preemption counts as two
    unsigned refusals_ = 0;  // short sleeps that slept() still ignores
    unsigned shared_ = 0;    // short waits in a row whose waker ran on the waiter's processor
    std::int64_t next_parting_ = 0;
    std::int64_t patience_ = kMinPatience;
    unsigned wins_since_parting_ = kProofOfParting;
};

// The budget of waits that several threads of a process make at once: each wait uses a copy, and
// what it has learnt replaces the common one. Any thread.
class CommonSpinBudget {
public:
    [[nodiscard]] SpinBudget copy() noexcept {
        const std::lock_guard lock(mutex_);
        return budget_;
    }
    void learn(const SpinBudget& budget) noexcept {
        const std::lock_guard lock(mutex_);
        budget_ = budget;
    }

private:
    std::mutex mutex_;
    SpinBudget budget_;
};

}  // namespace penstock::detail

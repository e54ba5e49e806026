// How each wait changes a spin budget.
#include "segment/waiting/spin_budget.hpp"

#include "os/processor.hpp"

namespace penstock::detail {

SpinBudget::SpinBudget(WaitPolicy policy, const WaitMeter& meter) noexcept
    : SpinBudget(os::online_processors(), policy, meter) {}

void SpinBudget::won() noexcept {
    meter_.add_win();
    budget_ = is_for_latency() ? longest() : std::min(budget_ * 2, longest());
    doubt_ = 0;
    shared_ = 0;
    if (wins_since_parting_ == kProofOfParting) return;
    ++wins_since_parting_;
    if (wins_since_parting_ == kProofOfParting) patience_ = kMinPatience;
}

// For latency a spin in vain changes nothing until many were: messages come in bursts.
void SpinBudget::lost() noexcept {
    if (budget_ >= longest()) {
        doubt(1);
        if (!is_for_latency()) refuse_sleeps();
    }
    if (is_for_latency() && doubt_ < kMaxDoubt) return;
    budget_ = std::max(budget_ / 2, shortest());
}

void SpinBudget::preempted() noexcept {
    doubt(2);
    refuse_sleeps();
    budget_ = shortest();
}

void SpinBudget::doubt(unsigned steps) noexcept {
    doubt_ = std::min(doubt_ + steps, kMaxDoubt);
}

void SpinBudget::learn_wake_cost(std::int64_t cost) noexcept {
    wake_cost_ += (std::min(cost, kMaxWakeCost) - wake_cost_) / 4;
}

// A sleep that a longer spin would have saved lengthens the budget. Otherwise two sides that have
// both slept once would stay too slow for each other's short spins. Each longest spin that is lost
// doubles the number of such sleeps that are ignored first (refusals_); for latency none is, unless
// the spinner was descheduled.
void SpinBudget::slept(const WakeUp& wake_up) noexcept {
    // Else: another wake-up's stamp, or damage, whose differences might overflow.
    if (wake_up.notified_at < began_ || wake_up.awake_at < wake_up.notified_at) return;
    const std::int64_t waited = wake_up.notified_at - began_;
    const std::int64_t cost = wake_up.awake_at - wake_up.notified_at;
    const bool was_short = waited < longest() + kMaxWakeCost;
    shared_ = wake_up.is_same_processor && was_short ? std::min(shared_ + 1, kShared) : 0;
    if (wake_up.is_same_processor) return;  // the waker could not have run during a spin
    learn_wake_cost(cost);
    if (waited >= longest()) return;
    if (refusals_ > 0) {
        --refusals_;
    } else if (is_for_latency()) {
        budget_ = longest();
    } else {
        budget_ = std::clamp(2 * waited, std::min(budget_, longest()), longest());
    }
}

void SpinBudget::parted(std::int64_t now, bool has_moved) noexcept {
    const bool is_proven = wins_since_parting_ >= kProofOfParting;
    if (!has_moved) {
        patience_ = kMaxPatience;
    } else if (!is_proven) {
        patience_ = std::min(2 * patience_, kMaxPatience);
    }
    next_parting_ = now + patience_;
    if (!has_moved) return;
    wins_since_parting_ = 0;
    shared_ = 0;
    doubt_ = 0;
    refusals_ = 0;
    // The next spin must outlast a wake-up on an idle processor, which may never have been
    // measured: if both sides sleep again, the scheduler brings them together again.
    wake_cost_ = kMaxWakeCost;
    budget_ = longest();
}

}  // namespace penstock::detail

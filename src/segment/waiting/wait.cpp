// Deadlines and spin budgets: the parts of waiting that are not in a hot path.
#include "penstock/wait.hpp"

#include "os/process.hpp"
#include "segment/waiting/signal.hpp"

namespace penstock {

Deadline Deadline::after(std::chrono::nanoseconds span) noexcept {
    if (span <= std::chrono::nanoseconds::zero()) return now();
    const auto start = Clock::now();
    if (span >= Clock::time_point::max() - start) return never();
    return Deadline(start + span);
}

std::chrono::nanoseconds Deadline::left(Clock::time_point now,
                                        std::chrono::nanoseconds most) const noexcept {
    if (is_never()) return most;
    if (has_passed(now)) return std::chrono::nanoseconds::zero();
    return std::min<std::chrono::nanoseconds>(at_ - now, most);
}

namespace detail {

SpinBudget::SpinBudget() noexcept
    // With one processor the peer can't run during a spin, so spinning never pays.
    : most_(os::usable_processors() > 1 ? kMax : 0), least_(most_ == 0 ? 0 : kMin),
      budget_(most_ / 2) {}

}  // namespace detail
}  // namespace penstock

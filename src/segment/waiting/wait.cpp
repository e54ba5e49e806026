// Deadline: arithmetic off the hot path.
#include "penstock/wait.hpp"

#include <algorithm>

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

}  // namespace penstock

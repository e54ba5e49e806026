// Deadline: arithmetic off the hot path. Cancel: waking the waits. Names of the wait policies.
#include "penstock/wait.hpp"

#include <algorithm>

#include "penstock/error.hpp"
#include "segment/waiting/watcher.hpp"

namespace penstock {

std::string_view to_string(WaitPolicy policy) noexcept {
    switch (policy) {
        case WaitPolicy::Balanced:
            return "balanced";
        case WaitPolicy::Latency:
            return "latency";
        case WaitPolicy::Frugal:
            return "frugal";
    }
    return "unknown";
}

WaitPolicy parse_wait_policy(const std::string& name) {
    for (const auto policy : {WaitPolicy::Balanced, WaitPolicy::Latency, WaitPolicy::Frugal}) {
        if (name == to_string(policy)) return policy;
    }
    throw Error(ErrorCode::InvalidArgument,
                "waiting is '" + name + "': give 'latency', 'balanced' or 'frugal'");
}

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

// A wait that is not listed by the watcher yet looks at the flag after kSlice at the latest.
void Cancel::cancel() noexcept {
    cancelled_.store(true, std::memory_order_release);
    detail::Watcher::look_at_cancels();
}

void ask_all_waits() noexcept {
    detail::Watcher::ask_all();
}

}  // namespace penstock

// Circuit breaker: exponential pauses with jitter.
#include "remote/circuit.hpp"

#include <algorithm>

namespace penstock::detail {

Circuit::Circuit(std::chrono::nanoseconds first, std::chrono::nanoseconds most)
    : first_(first), most_(std::max(first, most)), random_(std::random_device{}()) {}

bool Circuit::is_closed() const noexcept {
    const std::lock_guard lock(mutex_);
    return !is_open_;
}

void Circuit::trip(Clock::time_point now) noexcept {
    const std::lock_guard lock(mutex_);
    if (!is_open_) pause(now);
}

void Circuit::stay_open(Clock::time_point now) noexcept {
    const std::lock_guard lock(mutex_);
    pause(now);
}

void Circuit::pause(Clock::time_point now) noexcept {
    std::chrono::nanoseconds span = first_;
    for (unsigned i = 0; i < failures_ && span < most_; ++i) span *= 2;
    // Jitter, 50 to 100 %: processes that lost a server together retry at different times.
    std::uniform_real_distribution<double> part(0.5, 1.0);
    span = std::chrono::nanoseconds(static_cast<std::int64_t>(
        static_cast<double>(std::min(span, most_).count()) * part(random_)));
    is_open_ = true;
    ++failures_;
    attempt_at_ = now + span;
}

void Circuit::close() noexcept {
    const std::lock_guard lock(mutex_);
    is_open_ = false;
}

void Circuit::succeed() noexcept {
    const std::lock_guard lock(mutex_);
    if (!is_open_) failures_ = 0;
}

Clock::time_point Circuit::attempt_at() const noexcept {
    const std::lock_guard lock(mutex_);
    return is_open_ ? attempt_at_ : Clock::time_point::max();
}

}  // namespace penstock::detail

// Circuit breaker of one server. A failed request opens it; then requests fail at once, until the
// repair thread, which retries after growing pauses, has had an answer.
//
// Callers never retry an open circuit, so the retries of a hanging server cost them no timeouts.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <random>

#include "penstock/wait.hpp"

namespace penstock::detail {

// Any thread.
class Circuit {
public:
    Circuit(std::chrono::nanoseconds first, std::chrono::nanoseconds most);

    [[nodiscard]] bool is_closed() const noexcept;
    // After a failed request. No effect on an open circuit: concurrent failures count once.
    void trip(Clock::time_point now) noexcept;
    // After a failed attempt of the creator or the repair thread.
    void stay_open(Clock::time_point now) noexcept;
    // After an answered attempt: requests may be made again. Only succeed() resets the length of
    // the pauses, because a server may answer PING and fail every other request.
    void close() noexcept;
    void succeed() noexcept;  // after an answered request
    // Time of the next attempt; max(): the circuit is closed.
    [[nodiscard]] Clock::time_point attempt_at() const noexcept;

private:
    void pause(Clock::time_point now) noexcept;

    const std::chrono::nanoseconds first_;
    const std::chrono::nanoseconds most_;
    mutable std::mutex mutex_;
    bool is_open_ = false;
    unsigned failures_ = 0;  // in a row, those of attempts included
    Clock::time_point attempt_at_;
    std::minstd_rand random_;
};

}  // namespace penstock::detail

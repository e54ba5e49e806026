// Whether a server is asked. One failure opens the circuit: from then on nobody asks, until a
// thread of ours that tries now and then, ever more seldom, has had an answer.
//
// Only that thread tries: so a server that hangs costs a caller its timeout once, and not again at
// each attempt.
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
    // A request failed. When several fail together, only the first counts.
    void trip(Clock::time_point now) noexcept;
    // An attempt failed.
    void stay_open(Clock::time_point now) noexcept;
    // An attempt had its answer: requests may be made again. How long the next pause will be is
    // forgotten only when one of them succeeds, because there are servers that answer to nothing
    // else.
    void close() noexcept;
    void succeed() noexcept;
    // When to try again; never: it is closed.
    [[nodiscard]] Clock::time_point attempt_at() const noexcept;

private:
    void pause(Clock::time_point now) noexcept;

    const std::chrono::nanoseconds first_;
    const std::chrono::nanoseconds most_;
    mutable std::mutex mutex_;
    bool is_open_ = false;
    unsigned failures_ = 0;  // in a row
    Clock::time_point attempt_at_;
    std::minstd_rand random_;
};

}  // namespace penstock::detail

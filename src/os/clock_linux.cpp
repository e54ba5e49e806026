// Clocks on Linux: clock_gettime through the vDSO, no system call.
#include "os/clock.hpp"

#include <ctime>

namespace penstock::os {
namespace {

std::int64_t read_clock(clockid_t clock) noexcept {
    timespec now{};
    ::clock_gettime(clock, &now);
    return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

std::int64_t monotonic_ns() noexcept {
    return read_clock(CLOCK_MONOTONIC);
}

std::int64_t coarse_ns() noexcept {
    return read_clock(CLOCK_MONOTONIC_COARSE);
}

std::int64_t wall_ns() noexcept {
    return read_clock(CLOCK_REALTIME);
}

void pause_between_tries() noexcept {
    const timespec span{0, 200'000};
    ::nanosleep(&span, nullptr);
}

}  // namespace penstock::os

// Clocks: monotonic nanoseconds for waiting, wall-clock nanoseconds for people.
#pragma once

#include <cstdint>

namespace penstock::os {

std::int64_t monotonic_ns() noexcept;  // the same for every process of one boot
// The same clock in steps of a few milliseconds, several times cheaper: for people.
std::int64_t coarse_ns() noexcept;
std::int64_t wall_ns() noexcept;  // since the epoch

// A fraction of a millisecond between two tries for a file lock, which has no timed wait.
void pause_between_tries() noexcept;

}  // namespace penstock::os

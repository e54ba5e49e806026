// Clocks: monotonic nanoseconds for waiting, wall-clock nanoseconds for people.
#pragma once

#include <cstdint>

namespace penstock::os {

// The same clock for every process of one boot, in any time namespace (containers, CRIU): the
// offset of the namespace is subtracted, as far as it is known (ClockOffsets). So values may lie in
// shared memory.
std::int64_t monotonic_ns() noexcept;
// The same clock in steps of a few milliseconds, several times cheaper: for display.
std::int64_t coarse_ns() noexcept;
std::int64_t wall_ns() noexcept;  // since the epoch

// Offsets of this process's time namespace from the machine's monotonic clock, and from the time
// since boot. 0 in the initial namespace, and where /proc does not show them.
struct ClockOffsets {
    std::int64_t monotonic = 0;  // ns
    std::int64_t boot = 0;       // ns
    // False where /proc does not show them: monotonic_ns() may differ from other processes' clocks,
    // so their deadlines must not count as over.
    bool is_known = true;
};
ClockOffsets clock_offsets() noexcept;

// A fraction of a millisecond between two tries for a file lock, which has no timed wait.
void pause_between_tries() noexcept;

}  // namespace penstock::os

// Clocks: monotonic nanoseconds for waiting, wall-clock nanoseconds for people.
#pragma once

#include <cstdint>

namespace penstock::os {

// The same for every process of one boot, whatever time namespace it is in (containers, CRIU): what
// such a namespace adds is taken away again, as far as that is known (ClockOffsets). So it may lie
// in shared memory.
std::int64_t monotonic_ns() noexcept;
// The same clock in steps of a few milliseconds, several times cheaper: for people.
std::int64_t coarse_ns() noexcept;
std::int64_t wall_ns() noexcept;  // since the epoch

// What this process's time namespace adds to the machine's monotonic clock, and to the time since
// boot. 0 in the initial one, and where /proc does not tell.
struct ClockOffsets {
    std::int64_t monotonic = 0;  // ns
    std::int64_t boot = 0;       // ns
    // False where /proc does not tell: monotonic_ns() may be another clock than that of others, and
    // what they have noted is not over because of it.
    bool is_known = true;
};
ClockOffsets clock_offsets() noexcept;

// A fraction of a millisecond between two tries for a file lock, which has no timed wait.
void pause_between_tries() noexcept;

}  // namespace penstock::os

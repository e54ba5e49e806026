// Clocks: monotonic nanoseconds for waiting, wall-clock nanoseconds for people.
#pragma once

#include <cstdint>

namespace penstock::os {

std::int64_t monotonic_ns() noexcept;  // the same for every process of one boot
std::int64_t wall_ns() noexcept;       // since the epoch

}  // namespace penstock::os

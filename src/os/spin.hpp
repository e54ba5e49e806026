// Spinning for a given time. The duration of a pause instruction differs by a factor of ten between
// processors (x86 `pause`: 10 to 140 cycles; ARM `isb`: some 10 ns), so patience is counted in
// nanoseconds.
#pragma once

#include <cstdint>

#include "os/fence.hpp"

namespace penstock::os {

// Calls of spin_pause() that take this long here, at least 1; measured once in each process.
std::uint64_t pauses_in(std::int64_t nanoseconds) noexcept;

// The same for a given duration of a pause, in 1/1024 ns.
constexpr std::uint64_t pauses_in(std::int64_t nanoseconds, std::uint64_t pause) noexcept {
    if (nanoseconds <= 0 || pause == 0) return 1;
    const std::uint64_t pauses = (static_cast<std::uint64_t>(nanoseconds) << 10U) / pause;
    return pauses == 0 ? 1 : pauses;
}

// Spins for this long without reading the clock; returns at once for 0.
inline void spin_for(std::int64_t nanoseconds) noexcept {
    if (nanoseconds <= 0) return;
    for (std::uint64_t left = pauses_in(nanoseconds); left > 0; --left) spin_pause();
}

}  // namespace penstock::os

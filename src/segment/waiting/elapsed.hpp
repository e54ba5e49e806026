// Time since a moment noted in shared memory, for display. A damaged note must not become
// undefined arithmetic.
#pragma once

#include <algorithm>
#include <cstdint>

#include "os/clock.hpp"

namespace penstock::detail {

// Seconds since `then`, of the monotonic clock; within what that can have said.
inline double seconds_since(std::int64_t then) noexcept {
    const std::int64_t now = os::monotonic_ns();
    return static_cast<double>(now - std::clamp<std::int64_t>(then, 0, now)) * 1e-9;
}

}  // namespace penstock::detail

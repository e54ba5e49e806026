// Time since a moment stored in shared memory, for display. A damaged value must not cause an
// overflow.
#pragma once

#include <algorithm>
#include <cstdint>

#include "os/clock.hpp"

namespace penstock::detail {

// Seconds since `then` on the monotonic clock, clamped to possible values.
inline double seconds_since(std::int64_t then) noexcept {
    const std::int64_t now = os::monotonic_ns();
    return static_cast<double>(now - std::clamp<std::int64_t>(then, 0, now)) * 1e-9;
}

}  // namespace penstock::detail

// Measures the duration of a pause instruction on this processor.
#include "os/spin.hpp"

#include <algorithm>

#include "os/clock.hpp"
#include "os/found_once.hpp"

namespace penstock::os {
namespace {

constinit FoundOnce pause_time;

// In 1/1024 ns. The minimum of several rounds: the others were interrupted.
std::uint64_t measure_pause() noexcept {
    constexpr unsigned kRounds = 8;
    constexpr unsigned kPauses = 16;
    constexpr std::int64_t kLongest = 1'000'000;  // ns per round; well below any overflow
    std::int64_t least = kLongest;
    for (unsigned round = 0; round < kRounds; ++round) {
        const std::int64_t start = monotonic_ns();
        for (unsigned pause = 0; pause < kPauses; ++pause) spin_pause();
        least = std::min(least, monotonic_ns() - start);
    }
    return std::max<std::uint64_t>(
        1, (static_cast<std::uint64_t>(std::max<std::int64_t>(least, 1)) << 10U) / kPauses);
}

}  // namespace

std::uint64_t pauses_in(std::int64_t nanoseconds) noexcept {
    return pauses_in(nanoseconds, pause_time.get(measure_pause));
}

}  // namespace penstock::os

// What a pause takes on this processor, by the clock.
#include "os/spin.hpp"

#include <algorithm>

#include "os/clock.hpp"

namespace penstock::os {
namespace {

// In 1/1024 ns. The least of several rounds: in the others something else ran.
std::uint64_t measure_pause() noexcept {
    constexpr unsigned kRounds = 8;
    constexpr unsigned kPauses = 16;
    constexpr std::int64_t kLongest = 1'000'000;  // ns, of a round: more would overflow nothing yet
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
    static const std::uint64_t kPause = measure_pause();
    return pauses_in(nanoseconds, kPause);
}

}  // namespace penstock::os

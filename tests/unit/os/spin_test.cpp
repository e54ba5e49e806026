// Spinning is a length of time, however long a pause takes on this processor.
#include "os/spin.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "os/clock.hpp"

namespace penstock::os {
namespace {

constexpr std::uint64_t kUnit = 1024;  // of pauses_in(): a pause in 1/1024 ns

TEST(SpinTest, CountsThePausesOfATime) {
    static_assert(pauses_in(10'000, 40 * kUnit) == 250);
    static_assert(pauses_in(10'000, 10 * kUnit) == 1000, "four times as many of isb");
    static_assert(pauses_in(10'000, kUnit / 2) == 20'000);
    static_assert(pauses_in(10, 40 * kUnit) == 1, "one at least");
    static_assert(pauses_in(0, 40 * kUnit) == 1 && pauses_in(-1, 40 * kUnit) == 1);
    static_assert(pauses_in(10, 0) == 1);
}

// The least of many tries: in the others, other programs ran. The bounds allow for any clock
// resolution and for processors that change their frequency.
TEST(SpinTest, SpinningTakesAsLongAsItSays) {
    for (const std::int64_t span : {std::int64_t{5'000}, std::int64_t{50'000}}) {
        std::int64_t least = 1'000'000'000;
        for (int round = 0; round < 200; ++round) {
            const std::int64_t start = monotonic_ns();
            spin_for(span);
            least = std::min(least, monotonic_ns() - start);
        }
        EXPECT_GE(least, span / 4);
        EXPECT_LE(least, span * 4);
    }
}

TEST(SpinTest, ZeroTimeIsZeroPauses) {
    std::int64_t least = 1'000'000'000;
    for (int round = 0; round < 200; ++round) {
        const std::int64_t start = monotonic_ns();
        spin_for(0);
        least = std::min(least, monotonic_ns() - start);
    }
    EXPECT_LT(least, 1'000);
}

}  // namespace
}  // namespace penstock::os

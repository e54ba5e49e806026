// Clocks: one time for all processes of a machine, and wall time for people.
#include "os/clock.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>

#include "tests/unit/support/child.hpp"
#include "tests/unit/support/time_namespace.hpp"

namespace penstock::os {
namespace {

using test::Child;
using test::Shared;

TEST(ClockTest, MonotonicTimeAdvancesInNanoseconds) {
    const auto start = std::chrono::steady_clock::now();
    const std::int64_t before = monotonic_ns();
    std::int64_t after = before;
    while (after == before) after = monotonic_ns();
    const auto span = std::chrono::steady_clock::now() - start;
    EXPECT_GT(after, before);
    EXPECT_LE(after - before, std::chrono::nanoseconds(span).count());
}

TEST(ClockTest, MonotonicTimeIsTheSameInEveryProcess) {
    const Shared<std::int64_t> seen_by_child;
    const std::int64_t before = monotonic_ns();
    Child child([&] { *seen_by_child = monotonic_ns(); });
    ASSERT_EQ(child.wait(), 0);
    EXPECT_GT(*seen_by_child, before);
    EXPECT_LT(*seen_by_child, monotonic_ns());
}

TEST(ClockTest, MonotonicTimeIsTheSameInEveryTimeNamespace) {
    for (const std::int64_t ahead : {std::int64_t{100'000}, -monotonic_ns() / 2'000'000'000}) {
        const Shared<std::int64_t> seen;
        const Shared<std::int64_t> coarse;
        const std::int64_t before = monotonic_ns();
        const int outcome = test::run_ahead(ahead, [&] {
            *seen = monotonic_ns();
            *coarse = coarse_ns();
        });
        if (outcome == test::kNoTimeNamespaces) GTEST_SKIP() << "no time namespaces here";
        ASSERT_EQ(outcome, 0);
        EXPECT_GE(*seen, before) << ahead;
        EXPECT_LE(*seen, monotonic_ns()) << ahead;
        EXPECT_LT(*coarse - before, monotonic_ns() - before + 100'000'000) << ahead;
        EXPECT_GT(*coarse - before, -100'000'000) << ahead;
    }
}

TEST(ClockTest, WallTimeCountsFromTheEpoch) {
    const auto now = [] {
        return std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch())
            .count();
    };
    const std::int64_t before = now();
    const std::int64_t seen = wall_ns();
    EXPECT_GE(seen, before);
    EXPECT_LE(seen, now());
}

}  // namespace
}  // namespace penstock::os

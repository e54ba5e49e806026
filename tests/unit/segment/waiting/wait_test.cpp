// Deadlines and cancellation.
#include "penstock/wait.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

namespace penstock {
namespace {

using namespace std::chrono_literals;

TEST(DeadlineTest, NeverPasses) {
    const Deadline never = Deadline::never();
    EXPECT_TRUE(never.is_never());
    EXPECT_FALSE(never.is_try());
    EXPECT_FALSE(never.has_passed(Clock::now()));
    EXPECT_FALSE(never.has_passed(Clock::now() + std::chrono::hours(1'000'000)));
    EXPECT_EQ(never.left(Clock::now(), 70ms), 70ms);
}

TEST(DeadlineTest, NowIsATry) {
    for (const Deadline now : {Deadline::now(), Deadline::after(0s), Deadline::after(-1s),
                               Deadline::after(std::chrono::nanoseconds::min())}) {
        EXPECT_TRUE(now.is_try());
        EXPECT_FALSE(now.is_never());
        EXPECT_TRUE(now.has_passed(Clock::now()));
        EXPECT_EQ(now.left(Clock::now(), 70ms), 0ns);
    }
}

TEST(DeadlineTest, PassesWhenItsTimeHasCome) {
    const auto before = Clock::now();
    const Deadline deadline = Deadline::after(1s);
    const auto after = Clock::now();
    EXPECT_FALSE(deadline.is_try());
    EXPECT_FALSE(deadline.is_never());
    EXPECT_FALSE(deadline.has_passed(before + 1s - 1ns));
    EXPECT_TRUE(deadline.has_passed(after + 1s));
    EXPECT_EQ(deadline.left(before, 70ms), 70ms) << "no more than asked for";
    EXPECT_LE(deadline.left(after + 990ms, 70ms), 10ms);
    EXPECT_GT(deadline.left(before + 990ms, 70ms), 0ms);
    EXPECT_EQ(deadline.left(after + 2s, 70ms), 0ns);
}

TEST(DeadlineTest, BeyondTheEndOfTimeIsNever) {
    EXPECT_TRUE(Deadline::after(std::chrono::nanoseconds::max()).is_never());
    EXPECT_TRUE(Deadline::after(std::chrono::hours::max()).is_never());
    EXPECT_TRUE(Deadline::after(std::chrono::duration<double>(HUGE_VAL)).is_never());
    EXPECT_TRUE(Wait(std::chrono::seconds::max()).deadline.is_never());
}

TEST(DeadlineTest, NoTimeAndNegativeTimeAreATry) {
    EXPECT_TRUE(Deadline::after(0s).is_try());
    EXPECT_TRUE(Deadline::after(std::chrono::hours::min()).is_try());
    EXPECT_TRUE(Deadline::after(std::chrono::duration<double>(-0.5)).is_try());
}

TEST(WaitTest, ConvertsFromUsualTypes) {
    EXPECT_TRUE(Wait().deadline.is_never());
    EXPECT_TRUE(Wait(Deadline::now()).deadline.is_try());
    const Wait in_seconds = 2s;
    EXPECT_FALSE(in_seconds.deadline.has_passed(Clock::now() + 1s));
    EXPECT_TRUE(in_seconds.deadline.has_passed(Clock::now() + 2s));
    const Wait in_fractions = std::chrono::duration<double>(0.5);
    EXPECT_FALSE(in_fractions.deadline.is_try());
    EXPECT_TRUE(in_fractions.deadline.has_passed(Clock::now() + 500ms));
}

TEST(CancelTest, IsForGood) {
    Cancel cancel;
    EXPECT_FALSE(cancel.is_cancelled());
    cancel.cancel();
    cancel.cancel();
    EXPECT_TRUE(cancel.is_cancelled());
}

}  // namespace
}  // namespace penstock

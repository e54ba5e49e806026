// Deadlines, cancellation, and the length of spinning.
#include "penstock/wait.hpp"

#include <gtest/gtest.h>
#include <sched.h>

#include <chrono>

#include "segment/waiting/signal.hpp"
#include "tests/unit/support/child.hpp"

namespace penstock {
namespace {

using namespace std::chrono_literals;
using test::Child;
using test::require;

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

TEST(SpinBudgetTest, GrowsWithSuccessAndShrinksWithFailureWithinBounds) {
    detail::SpinBudget budget;
    if (budget.nanoseconds() == 0) GTEST_SKIP() << "this machine has one processor";
    constexpr std::int64_t kTensOfMicroseconds = 50'000;
    std::int64_t before = 0;
    while (budget.nanoseconds() != before) {
        before = budget.nanoseconds();
        budget.won();
        ASSERT_GE(budget.nanoseconds(), before);
        ASSERT_LE(budget.nanoseconds(), kTensOfMicroseconds) << "no longer than the design allows";
    }
    const std::int64_t most = before;
    do {
        before = budget.nanoseconds();
        budget.lost();
        ASSERT_LE(budget.nanoseconds(), before);
        ASSERT_GT(budget.nanoseconds(), 0) << "it must notice when spinning pays again";
    } while (budget.nanoseconds() != before);
    EXPECT_LT(before, most);
}

// A budget at its minimum.
detail::SpinBudget make_poor() {
    detail::SpinBudget budget;
    for (int i = 0; i < 100; ++i) budget.lost();
    return budget;
}

TEST(SpinBudgetTest, RecoversWhenALongerSpinWouldHaveWon) {
    detail::SpinBudget budget = make_poor();
    if (budget.nanoseconds() == 0) GTEST_SKIP() << "this machine has one processor";
    const std::int64_t least = budget.nanoseconds();
    budget.would_have_won(1'000'000'000);
    EXPECT_EQ(budget.nanoseconds(), least) << "no spin is that long";
    budget.would_have_won(10'000);
    const std::int64_t most = budget.nanoseconds();
    EXPECT_GT(most, least);
    budget.won();
    EXPECT_EQ(budget.nanoseconds(), most) << "as long as can be";
}

TEST(SpinBudgetTest, RecoversLessOftenWhereTheLongestSpinLosesToo) {
    detail::SpinBudget budget = make_poor();
    if (budget.nanoseconds() == 0) GTEST_SKIP() << "this machine has one processor";
    const auto count_until_believed = [&] {
        const std::int64_t before = budget.nanoseconds();
        int times = 0;
        while (budget.nanoseconds() == before && times < 10'000) {
            budget.would_have_won(10'000);
            ++times;
        }
        return times;
    };
    EXPECT_EQ(count_until_believed(), 1);
    int before = 1;
    for (int loss = 0; loss < 5; ++loss) {
        budget.lost();
        const int times = count_until_believed();
        EXPECT_GT(times, before);
        before = times;
    }
    budget.won();
    budget.lost();
    EXPECT_LT(count_until_believed(), before) << "a win wipes the doubt out";
}

TEST(SpinBudgetTest, IsNothingOnASingleProcessor) {
    Child child([] {
        cpu_set_t allowed;
        require(::sched_getaffinity(0, sizeof allowed, &allowed) == 0);
        int first = 0;
        while (!CPU_ISSET(first, &allowed)) ++first;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(first, &one);
        require(::sched_setaffinity(0, sizeof one, &one) == 0);
        detail::SpinBudget budget;
        require(budget.nanoseconds() == 0);
        budget.won();
        require(budget.nanoseconds() == 0);
        budget.lost();
        require(budget.nanoseconds() == 0);
        int looks = 0;
        require(!detail::spin_until(budget, [&] { return ++looks > 0; }));
        require(looks == 0);
    });
    EXPECT_EQ(child.wait(), 0);
}

}  // namespace
}  // namespace penstock

// Spin budgets: their bounds, and a simulation of two sides that reply to each other, each with its
// own budget, from states in which both sleep.
#include "segment/waiting/spin_budget.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <tuple>

#include "segment/waiting/signal.hpp"

namespace penstock::detail {
namespace {

constexpr std::int64_t kMicrosecond = 1'000;
constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kShortest = 1'000;
constexpr std::int64_t kForLatency = 5 * kMillisecond;

void lose_often(SpinBudget& budget) {
    for (int i = 0; i < 100; ++i) budget.lost();
}

// A wait that a waker on another processor ended after `waited`; the wake-up took `cost`.
void sleep_through(SpinBudget& budget, std::int64_t waited, std::int64_t cost) {
    budget.began(0);
    budget.slept({.notified_at = waited, .awake_at = waited + cost, .is_same_processor = false});
}

void sleep_beside_waker(SpinBudget& budget, std::int64_t now) {
    budget.began(now);
    budget.slept({.notified_at = now + 2 * kMicrosecond,
                  .awake_at = now + 4 * kMicrosecond,
                  .is_same_processor = true});
}

TEST(SpinBudgetTest, GrowsWithSuccessAndShrinksWithFailureWithinBounds) {
    SpinBudget budget(2);
    for (int i = 0; i < 100; ++i) budget.won();
    EXPECT_EQ(budget.nanoseconds(), budget.longest());
    lose_often(budget);
    EXPECT_EQ(budget.nanoseconds(), kShortest) << "it must notice when spinning pays again";
}

void expect_no_spins(SpinBudget budget) {
    EXPECT_EQ(budget.nanoseconds(), 0);
    budget.won();
    budget.lost();
    budget.preempted();
    sleep_through(budget, kMicrosecond, 50 * kMicrosecond);
    EXPECT_EQ(budget.nanoseconds(), 0);
    for (int i = 0; i < 10; ++i) sleep_beside_waker(budget, i * kMillisecond);
    EXPECT_FALSE(budget.wants_to_part(kMillisecond * 1'000'000)) << "only spins need it";
    int looks = 0;
    EXPECT_FALSE(spin_until(budget, Deadline::never(), [&] { return ++looks > 0; }));
    EXPECT_EQ(looks, 0);
}

TEST(SpinBudgetTest, IsNothingOnASingleProcessor) {
    expect_no_spins(SpinBudget(1));
    expect_no_spins(SpinBudget(1, WaitPolicy::Latency));
}

TEST(SpinBudgetTest, IsNothingForTheFrugal) {
    expect_no_spins(SpinBudget(2, WaitPolicy::Frugal));
}

TEST(SpinBudgetTest, ForLatencyOneShortWaitIsEnough) {
    SpinBudget budget(2, WaitPolicy::Latency);
    EXPECT_EQ(budget.nanoseconds(), kForLatency);
    lose_often(budget);
    EXPECT_EQ(budget.nanoseconds(), kShortest);
    sleep_through(budget, 4 * kMillisecond, 12 * kMicrosecond);
    EXPECT_EQ(budget.nanoseconds(), kForLatency) << "that spin would have won";
    lose_often(budget);
    budget.won();
    EXPECT_EQ(budget.nanoseconds(), kForLatency);
}

TEST(SpinBudgetTest, ForLatencySpinsAreLongUntilManyWereInVain) {
    SpinBudget budget(2, WaitPolicy::Latency);
    for (int loss = 0; loss < 6; ++loss) {
        budget.lost();
        EXPECT_EQ(budget.nanoseconds(), kForLatency) << loss;
    }
    for (int loss = 0; loss < 20; ++loss) {
        budget.lost();
        sleep_through(budget, 6 * kMillisecond, 12 * kMicrosecond);
    }
    EXPECT_EQ(budget.nanoseconds(), kShortest) << "no spin is as long as these waits";
}

TEST(SpinBudgetTest, ForLatencyADescheduledSpinnerYieldsForSomeWaits) {
    SpinBudget budget(2, WaitPolicy::Latency);
    const auto count_until_longest = [&] {
        budget.preempted();
        int times = 0;
        while (budget.nanoseconds() < kForLatency && times < 10'000) {
            EXPECT_EQ(budget.nanoseconds(), kShortest);
            sleep_through(budget, 2 * kMillisecond, 12 * kMicrosecond);
            ++times;
        }
        return times;
    };
    const int first = count_until_longest();
    EXPECT_GT(first, 2);
    EXPECT_GT(count_until_longest(), first);
}

TEST(SpinBudgetTest, ForLatencyOnTheWakersProcessorItAsksToPart) {
    SpinBudget budget(2, WaitPolicy::Latency);
    std::int64_t now = 0;
    for (int i = 0; i < 10; ++i) sleep_beside_waker(budget, now += kMillisecond);
    EXPECT_EQ(budget.nanoseconds(), 0);
    ASSERT_TRUE(budget.wants_to_part(now));
    budget.parted(now, true);
    EXPECT_EQ(budget.nanoseconds(), kForLatency);
}

TEST(SpinBudgetTest, TheLongestSpinFollowsTheCostOfAWakeUp) {
    SpinBudget budget(2);
    for (int i = 0; i < 50; ++i) sleep_through(budget, kMillisecond, 40 * kMicrosecond);
    EXPECT_NEAR(static_cast<double>(budget.longest()), 100e3, 5e3);
    for (int i = 0; i < 50; ++i) sleep_through(budget, kMillisecond, 4 * kMicrosecond);
    EXPECT_NEAR(static_cast<double>(budget.longest()), 10e3, 1e3);
    for (int i = 0; i < 50; ++i) sleep_through(budget, kMillisecond, 80 * kMillisecond);
    EXPECT_LE(budget.longest(), 250 * kMicrosecond) << "that was a queue for the processor";
}

TEST(SpinBudgetTest, AmongMoreParticipantsThanProcessorsSpinsStayShort) {
    SpinBudget budget(2);
    budget.bound_for_crowd();
    for (int i = 0; i < 50; ++i) sleep_through(budget, kMillisecond, 40 * kMicrosecond);
    for (int i = 0; i < 100; ++i) budget.won();
    EXPECT_EQ(budget.nanoseconds(), 10 * kMicrosecond);
    SpinBudget single(1);
    single.bound_for_crowd();
    EXPECT_EQ(single.nanoseconds(), 0);
    SpinBudget latency(2, WaitPolicy::Latency);
    latency.bound_for_crowd();
    EXPECT_EQ(latency.nanoseconds(), SpinBudget::kMaxForLatency) << "asked for at creation";
}

TEST(SpinBudgetTest, RecoversWhenALongerSpinWouldHaveWon) {
    SpinBudget budget(2);
    lose_often(budget);
    sleep_through(budget, kMillisecond, 12 * kMicrosecond);
    EXPECT_EQ(budget.nanoseconds(), kShortest) << "no spin is that long";
    for (int i = 0; i < 300; ++i) sleep_through(budget, 10 * kMicrosecond, 12 * kMicrosecond);
    EXPECT_GE(budget.nanoseconds(), 20 * kMicrosecond);
}

TEST(SpinBudgetTest, EachLongestSpinThatIsLostDelaysTheNext) {
    SpinBudget budget(2);
    lose_often(budget);
    budget.won();
    const auto count_until_longest = [&] {
        int times = 0;
        while (budget.nanoseconds() < budget.longest() && times < 10'000) {
            sleep_through(budget, budget.longest() - 1, 12 * kMicrosecond);
            ++times;
        }
        return times;
    };
    EXPECT_EQ(count_until_longest(), 1);
    int before = 1;
    for (int loss = 0; loss < 5; ++loss) {
        budget.lost();
        const int times = count_until_longest();
        EXPECT_GT(times, before);
        before = times;
    }
    budget.won();
    budget.lost();
    EXPECT_LT(count_until_longest(), before) << "a win wipes the doubt out";
}

TEST(SpinBudgetTest, ADescheduledSpinnerSpinsNoLongerThanItMust) {
    SpinBudget budget(2);
    for (int i = 0; i < 10; ++i) budget.won();
    budget.preempted();
    EXPECT_EQ(budget.nanoseconds(), kShortest);
    sleep_through(budget, 10 * kMicrosecond, 12 * kMicrosecond);
    EXPECT_EQ(budget.nanoseconds(), kShortest) << "believed at once";
}

TEST(SpinBudgetTest, DamagedStampsChangeNothing) {
    SpinBudget budget(2);
    const std::int64_t budget_before = budget.nanoseconds();
    const std::int64_t longest_before = budget.longest();
    budget.began(1'000'000);
    budget.slept({.notified_at = 0, .awake_at = 2'000'000, .is_same_processor = false});
    budget.slept({.notified_at = INT64_MAX, .awake_at = 2'000'000, .is_same_processor = true});
    budget.slept({.notified_at = INT64_MIN, .awake_at = 2'000'000, .is_same_processor = true});
    EXPECT_EQ(budget.nanoseconds(), budget_before);
    EXPECT_EQ(budget.longest(), longest_before);
}

TEST(SpinBudgetTest, OnTheWakersProcessorItDoesNotSpinAndAsksToPart) {
    SpinBudget budget(2);
    std::int64_t now = 0;
    EXPECT_FALSE(budget.wants_to_part(now));
    for (int i = 0; i < 10; ++i) sleep_beside_waker(budget, now += 10 * kMicrosecond);
    EXPECT_EQ(budget.nanoseconds(), 0);
    EXPECT_TRUE(budget.wants_to_part(now));
    budget.parted(now, true);
    EXPECT_EQ(budget.nanoseconds(), budget.longest());
    EXPECT_FALSE(budget.wants_to_part(now));
}

TEST(SpinBudgetTest, PartingThatDoesNotHelpIsTriedEverMoreSeldom) {
    SpinBudget budget(2);
    std::int64_t now = 0;
    int partings = 0;
    for (; now < 10'000 * kMillisecond; now += 10 * kMicrosecond) {
        sleep_beside_waker(budget, now);
        if (!budget.wants_to_part(now)) continue;
        budget.parted(now, true);
        ++partings;
    }
    EXPECT_LE(partings, 16) << "in ten seconds";
    EXPECT_GE(partings, 8) << "it must notice when parting pays again";
}

// Two sides that send to each other in turn. While they share a processor, one runs only while the
// other sleeps; parting gives each its own.
struct Machine {
    std::int64_t wake_cost;
    std::int64_t work;  // between a message and its reply
    bool is_shared = false;
    bool can_part = true;
    WaitPolicy policy = WaitPolicy::Balanced;
};

class Duel {
public:
    explicit Duel(const Machine& machine)
        : machine_(machine), sides_{Side(machine.policy), Side(machine.policy)} {
        for (Side& side : sides_) lose_often(side.budget);
    }

    // Returns the time that the round took.
    std::int64_t play_round() {
        const std::int64_t start = now_;
        send(sides_[0], sides_[1]);
        send(sides_[1], sides_[0]);
        return now_ - start;
    }

    [[nodiscard]] std::int64_t time_spun() const { return spun_; }

private:
    static constexpr std::int64_t kHandOver = 100;  // of a cache line
    struct Side {
        explicit Side(WaitPolicy policy) : budget(2, policy) {}
        SpinBudget budget;
        std::int64_t waits_since = 0;
    };

    // `from` runs before, `to` after.
    void send(Side& from, Side& to) {
        now_ += machine_.work;
        if (machine_.is_shared) {
            run_after_sleep(from, to);
        } else {
            meet_or_wake(from, to);
        }
    }

    // The receiver sleeps while the sender runs, and runs again when the sender has spun in vain.
    void run_after_sleep(Side& from, Side& to) {
        const std::int64_t sent_at = now_;
        begin_wait(from);
        now_ += lose_spin(from);
        now_ += machine_.wake_cost / 4;  // a switch of threads only
        finish_sleep(to, sent_at);
    }

    void meet_or_wake(Side& from, Side& to) {
        const std::int64_t sent_at = now_;
        const std::int64_t waited = sent_at - to.waits_since;
        if (waited <= to.budget.nanoseconds()) {
            spun_ += waited;
            to.budget.won();
            begin_wait(from);
            now_ += kHandOver;
            return;
        }
        lose_spin(to);
        now_ += machine_.wake_cost / 4;  // the call into the kernel
        begin_wait(from);
        now_ = sent_at + machine_.wake_cost;
        finish_sleep(to, sent_at);
    }

    void begin_wait(Side& side) {
        side.waits_since = now_;
        side.budget.began(now_);
    }

    std::int64_t lose_spin(Side& side) {
        const std::int64_t spin = side.budget.nanoseconds();
        if (spin > 0) side.budget.lost();
        spun_ += spin;
        return spin;
    }

    void finish_sleep(Side& side, std::int64_t sent_at) {
        side.budget.slept({.notified_at = std::max(sent_at, side.waits_since),
                           .awake_at = now_,
                           .is_same_processor = machine_.is_shared});
        if (!side.budget.wants_to_part(now_)) return;
        side.budget.parted(now_, machine_.can_part);
        if (machine_.can_part) machine_.is_shared = false;
    }

    Machine machine_;
    std::array<Side, 2> sides_;
    std::int64_t now_ = 1'000'000;
    std::int64_t spun_ = 0;
};

// Cost of a wake-up and duration of the work, in microseconds; whether they share a processor.
class DuelTest : public ::testing::TestWithParam<std::tuple<int, int, bool>> {
protected:
    [[nodiscard]] static Machine machine() {
        const auto [wake, work, is_shared] = GetParam();
        return {
            .wake_cost = wake * kMicrosecond, .work = work * kMicrosecond, .is_shared = is_shared};
    }
};

INSTANTIATE_TEST_SUITE_P(Machines, DuelTest,
                         ::testing::Combine(::testing::Values(3, 8, 20, 44, 90),
                                            ::testing::Values(0, 1, 2), ::testing::Bool()));

TEST_P(DuelTest, LeavesTheSlowEquilibriumWithinSomeHundredRounds) {
    Duel duel(machine());
    for (int round = 0; round < 400; ++round) duel.play_round();
    for (int round = 0; round < 1'000; ++round) {
        ASSERT_LE(duel.play_round(), 2 * machine().work + kMicrosecond) << "round " << round;
    }
}

TEST(DuelOfTwoTest, SidesThatCanNotPartDoNotSpin) {
    Duel duel({.wake_cost = 8 * kMicrosecond,
               .work = kMicrosecond,
               .is_shared = true,
               .can_part = false});
    for (int round = 0; round < 100; ++round) duel.play_round();
    const std::int64_t before = duel.time_spun();
    for (int round = 0; round < 10'000; ++round) duel.play_round();
    EXPECT_EQ(duel.time_spun(), before);
}

TEST(DuelOfTwoTest, AParkedSideSpinsForAMicrosecondAWait) {
    Duel duel({.wake_cost = 44 * kMicrosecond, .work = 5 * kMillisecond});
    for (int round = 0; round < 100; ++round) duel.play_round();
    const std::int64_t before = duel.time_spun();
    for (int round = 0; round < 1'000; ++round) duel.play_round();
    EXPECT_LE(duel.time_spun() - before, 2 * 1'000 * kShortest);
}

// From the same slow states, with whatever work takes less than the longest spin.
TEST_P(DuelTest, ForLatencyItIsLeftAtOnce) {
    for (const std::int64_t more : {std::int64_t{0}, 500 * kMicrosecond, 4'900 * kMicrosecond}) {
        Machine slow = machine();
        slow.policy = WaitPolicy::Latency;
        slow.work += more;
        Duel duel(slow);
        for (int round = 0; round < 10; ++round) duel.play_round();
        for (int round = 0; round < 1'000; ++round) {
            ASSERT_LE(duel.play_round(), 2 * slow.work + kMicrosecond)
                << "round " << round << ", work of " << slow.work;
        }
    }
}

TEST_P(DuelTest, TheFrugalNeverSpin) {
    Machine frugal = machine();
    frugal.policy = WaitPolicy::Frugal;
    Duel duel(frugal);
    for (int round = 0; round < 1'000; ++round) duel.play_round();
    EXPECT_EQ(duel.time_spun(), 0);
}

TEST(DuelOfTwoTest, ForLatencyAParkedSideSpinsLongForAFewWaitsOnly) {
    Duel duel(
        {.wake_cost = 44 * kMicrosecond, .work = 8 * kMillisecond, .policy = WaitPolicy::Latency});
    for (int round = 0; round < 100; ++round) duel.play_round();
    const std::int64_t before = duel.time_spun();
    EXPECT_LE(before, 2 * 10 * kForLatency);
    for (int round = 0; round < 1'000; ++round) duel.play_round();
    EXPECT_LE(duel.time_spun() - before, 2 * 1'000 * kShortest);
}

TEST(CommonSpinBudgetTest, AWaitBeginsWithWhatTheLastOneLearnt) {
    CommonSpinBudget common;
    SpinBudget first = common.copy();
    if (first.longest() == 0) GTEST_SKIP() << "one processor";
    lose_often(first);
    EXPECT_GT(common.copy().nanoseconds(), kShortest) << "a copy";
    common.learn(first);
    EXPECT_EQ(common.copy().nanoseconds(), kShortest);
}

// Replies come at random, some before and some after the end of the longest spin.
TEST(SpinBudgetTest, SpinningInVainIsBoundedByWhatSleepingCosts) {
    constexpr std::int64_t kWakeCost = 40 * kMicrosecond;
    constexpr int kWaits = 100'000;
    std::mt19937_64 random(7);
    std::uniform_int_distribution<std::int64_t> reply(0, 400 * kMicrosecond);
    SpinBudget budget(2);
    std::int64_t spun_in_vain = 0;
    for (int wait = 0; wait < kWaits; ++wait) {
        const std::int64_t waited = reply(random);
        const std::int64_t allowed = budget.nanoseconds();
        budget.began(0);
        if (waited <= allowed) {
            budget.won();
            continue;
        }
        spun_in_vain += allowed;
        budget.lost();
        budget.slept({.notified_at = waited, .awake_at = waited + kWakeCost});
    }
    EXPECT_LE(spun_in_vain, kWaits * kWakeCost);
}

}  // namespace
}  // namespace penstock::detail

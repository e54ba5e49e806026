// Signals: no sleep through a change, no needless system call, and every wait ends in time. Each
// test runs with and without the asymmetric fence.
#include "segment/waiting/signal.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>

#include "os/crash_point.hpp"
#include "os/fence.hpp"
#include "segment/words/atomics.hpp"
#include "tests/unit/support/child.hpp"

namespace penstock::detail {
namespace {

using namespace std::chrono_literals;
using test::Child;
using test::require;
using test::Shared;

constexpr auto kLong = 20s;  // a bound that no wait may reach

// Both fences; the asymmetric one only where the kernel has it.
class SignalTest : public ::testing::TestWithParam<bool> {
protected:
    void SetUp() override {
        if (GetParam() && !os::register_asymmetric_fence()) {
            GTEST_SKIP() << "no membarrier(2) here";
        }
    }
    [[nodiscard]] Signal signal() const { return {*word_, GetParam()}; }
    [[nodiscard]] std::uint32_t word() const { return word_->word.load(); }

    WaitEnd wait_for(const std::atomic<bool>& flag, const Wait& wait) {
        return wait_until(
            signal(), budget_, wait, sleeps_, [&] { return flag.load(); }, [] { return false; });
    }

    const Shared<layout::SignalWord> word_;
    SpinBudget budget_;
    std::uint64_t sleeps_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Fences, SignalTest, ::testing::Bool(), [](const auto& chosen) {
    return std::string(chosen.param ? "Asymmetric" : "Full");
});

TEST_P(SignalTest, NotifyingWithoutWaitersChangesNothing) {
    EXPECT_FALSE(signal().has_waiters());
    signal().notify();
    EXPECT_EQ(word(), 0U);
}

TEST_P(SignalTest, AnAnnouncementStandsUntilTheNextWakeUp) {
    const std::uint32_t seen = signal().announce();
    EXPECT_EQ(word(), seen);
    EXPECT_TRUE(signal().has_waiters());
    EXPECT_TRUE(signal().is_standing(seen));
    EXPECT_EQ(signal().announce(), seen) << "a second waiter joins the first";
    signal().notify();
    EXPECT_FALSE(signal().has_waiters());
    EXPECT_FALSE(signal().is_standing(seen));
    EXPECT_NE(signal().announce(), seen) << "a sleep through a wake-up must see it";
}

TEST_P(SignalTest, SleepingAfterAWakeUpReturnsAtOnce) {
    const std::uint32_t seen = signal().announce();
    signal().notify();
    EXPECT_EQ(signal().sleep(seen, kLong), os::Woken::ByWaker);
}

TEST_P(SignalTest, WakeReachesSleepersWhoseAnnouncementWasTakenDown) {
    Child child([&] {
        const std::uint32_t seen = signal().announce();
        require(signal().sleep(seen, kLong) == os::Woken::ByWaker);
    });
    child.await_sleep();
    signal().wake();
    EXPECT_EQ(child.wait(), 0);
}

TEST_P(SignalTest, RouseEndsSleepsAndLeavesTheAnnouncement) {
    const std::uint32_t seen = signal().announce();
    std::jthread waiter([&] { require(signal().sleep(seen, kLong) == os::Woken::ByWaker); });
    signal().rouse();  // before or during its sleep
    waiter.join();
    EXPECT_FALSE(signal().is_standing(seen));
    EXPECT_TRUE(signal().has_waiters());
}

#ifdef PENSTOCK_CRASH_POINTS
// Its watcher rouses the waiters of its own process. Those of others are not that process's to
// silence: the next change wakes them.
TEST_P(SignalTest, AProcessThatStopsWhileItRousesTakesNoOtherWaitersAnnouncement) {
    const Shared<std::atomic<bool>> flag;
    Child waiter([&] {
        while (!flag->load()) {
            const std::uint32_t seen = signal().announce();
            if (flag->load()) return;
            require(signal().sleep(seen, kLong) != os::Woken::ByTimeout);
        }
    });
    test::await([&] { return signal().has_waiters(); });
    waiter.await_sleep();
    Child rouser([&] {
        os::arm_crash_point("signal.rouse.changed:1:stop");
        signal().rouse();
    });
    rouser.await_stop();
    EXPECT_TRUE(signal().has_waiters());
    *flag = true;
    signal().notify();
    EXPECT_EQ(waiter.wait(), 0);
    rouser.resume();
    EXPECT_EQ(rouser.wait(), 0);
}
#endif

TEST_P(SignalTest, TheCountOfWakeUpsWrapsWithoutHarm) {
    word_->word = ~std::uint32_t{0} - 1;  // the greatest count, no waiter
    const std::uint32_t seen = signal().announce();
    EXPECT_EQ(seen, ~std::uint32_t{0});
    signal().notify();
    EXPECT_EQ(word(), 0U);
    EXPECT_FALSE(signal().has_waiters());
    EXPECT_FALSE(signal().is_standing(seen));
}

TEST_P(SignalTest, AReadyConditionIsNotWaitedFor) {
    const std::atomic<bool> flag{true};
    EXPECT_EQ(wait_for(flag, Wait()), WaitEnd::Ready);
    EXPECT_EQ(wait_for(flag, Deadline::now()), WaitEnd::Ready);
    EXPECT_EQ(sleeps_, 0U);
    EXPECT_EQ(word(), 0U) << "no waiter announced itself";
}

TEST_P(SignalTest, ATryNeitherSleepsNorAnnounces) {
    const std::atomic<bool> flag{false};
    EXPECT_EQ(wait_for(flag, Deadline::now()), WaitEnd::Timeout);
    EXPECT_EQ(sleeps_, 0U);
    EXPECT_EQ(word(), 0U);
}

TEST_P(SignalTest, ATryLooksAgainAfterThePeer) {
    bool ready = false;
    const auto wait = [&](bool is_gone) {
        return wait_until(
            signal(), budget_, Deadline::now(), sleeps_, [&] { return ready; },
            [&] {
                ready = true;
                return is_gone;
            });
    };
    EXPECT_EQ(wait(false), WaitEnd::Ready) << "burying the dead may make room";
    ready = false;
    EXPECT_EQ(wait(true), WaitEnd::PeerGone);
}

TEST_P(SignalTest, TimesOutInTime) {
    const std::atomic<bool> flag{false};
    for (const auto span : {1ms, 30ms, 200ms}) {
        const auto start = Clock::now();
        EXPECT_EQ(wait_for(flag, span), WaitEnd::Timeout);
        EXPECT_GE(Clock::now() - start, span);
    }
}

TEST_P(SignalTest, AsksForThePeerBeforeItSleepsAndAfterEverySlice) {
    int questions = 0;
    const auto start = Clock::now();
    const WaitEnd end = wait_until(
        signal(), budget_, kLong, sleeps_, [] { return false; },
        [&] {
            require(++questions > 1 || sleeps_ == 0);
            return questions == 4;
        });
    const auto span = Clock::now() - start;
    EXPECT_EQ(end, WaitEnd::PeerGone);
    EXPECT_EQ(sleeps_, 3U);
    EXPECT_GE(span, 3 * kSlice);
    EXPECT_LE(std::chrono::nanoseconds(kSlice), 100ms) << "a death is noticed within 100 ms";
}

// The look at the peer may reap it and so satisfy the condition: this must not cost another slice
// of sleep.
TEST_P(SignalTest, IsWokenByItsOwnPeerQuestion) {
    bool ready = false;
    const WaitEnd end = wait_until(
        signal(), budget_, kLong, sleeps_, [&] { return ready; },
        [&] {
            ready = true;
            signal().notify();
            return false;
        });
    EXPECT_EQ(end, WaitEnd::Ready);
    EXPECT_LE(sleeps_, 1U);
}

// Waits of a participant that counts them, on a machine with two processors.
class MeteredTest : public ::testing::Test {
protected:
    SpinBudget budget(WaitPolicy policy) {
        return SpinBudget(2, policy, {counts_, WaitMeter::Waiters::One});
    }
    template <typename Ready>
    WaitEnd wait(SpinBudget spins, const Wait& limits, Ready&& ready, int slices = 1'000) {
        int looks_at_peer = 0;
        return wait_until({*word_, false}, spins, limits, sleeps_, ready,
                          [&] { return looks_at_peer++ == slices; });
    }
    [[nodiscard]] WaitCosts costs() const { return read_costs(counts_); }

    static constexpr auto kNever = [] { return false; };
    static constexpr std::uint64_t kMicrosecond = 1'000;
    static constexpr std::uint64_t kMillisecond = 1'000'000;
    const Shared<layout::SignalWord> word_;
    layout::WaitCounts counts_{};
    std::uint64_t sleeps_ = 0;
};

TEST_F(MeteredTest, WaitsThatNeedNotWaitCostNothing) {
    EXPECT_EQ(wait(budget(WaitPolicy::Latency), kLong, [] { return true; }), WaitEnd::Ready);
    EXPECT_EQ(wait(budget(WaitPolicy::Latency), Deadline::now(), kNever), WaitEnd::Timeout);
    EXPECT_EQ(costs().spun + costs().spins_won + costs().slept, 0U);
}

TEST_F(MeteredTest, ASpinIsWonOrEndsAsleep) {
    int looks = 0;
    // Fewer looks than between two readings of the clock: their time is estimated.
    const auto at_last = [&] { return ++looks % 8 == 0; };
    for (const WaitPolicy policy : {WaitPolicy::Balanced, WaitPolicy::Latency}) {
        EXPECT_EQ(wait(budget(policy), kLong, at_last), WaitEnd::Ready);
    }
    EXPECT_EQ(costs().spins_won, 2U);
    EXPECT_EQ(costs().slept, 0U);
    EXPECT_GT(costs().spun, 0U);
    EXPECT_LT(costs().spun, 100 * kMicrosecond);
    EXPECT_EQ(wait(budget(WaitPolicy::Balanced), kLong, kNever, 1), WaitEnd::PeerGone);
    EXPECT_EQ(costs().spins_won, 2U);
    EXPECT_EQ(costs().slept, 1U);
}

TEST_F(MeteredTest, AWaitOfSeveralSleepsCountsOnce) {
    EXPECT_EQ(wait(budget(WaitPolicy::Balanced), kLong, kNever, 2), WaitEnd::PeerGone);
    EXPECT_EQ(sleeps_, 2U);
    EXPECT_EQ(costs().slept, 1U);
}

TEST_F(MeteredTest, TheFrugalSleepAtOnce) {
    EXPECT_EQ(wait(budget(WaitPolicy::Frugal), kLong, kNever, 1), WaitEnd::PeerGone);
    EXPECT_EQ(costs().spun, 0U);
    EXPECT_EQ(costs().slept, 1U);
}

// A spin ends at the first reading of the clock after its end, or of a descheduled thread.
TEST_F(MeteredTest, SpinsForLatencyAreBounded) {
    constexpr std::uint64_t kReading = 200 * kMicrosecond;
    EXPECT_EQ(wait(budget(WaitPolicy::Latency), kLong, kNever, 0), WaitEnd::PeerGone);
    EXPECT_LE(costs().spun, 5 * kMillisecond + kReading);
    const std::uint64_t before = costs().spun;
    EXPECT_EQ(wait(budget(WaitPolicy::Latency), 1ms, kNever), WaitEnd::Timeout);
    EXPECT_LE(costs().spun - before, kMillisecond + kReading) << "and by the deadline";
}

TEST(WaitMeterTest, SeveralThreadsLoseNothing) {
    constexpr std::uint64_t kTimes = 20'000;
    layout::WaitCounts counts{};
    const WaitMeter meter(counts, WaitMeter::Waiters::Several);
    const auto count = [&] {
        for (std::uint64_t i = 0; i < kTimes; ++i) {
            meter.add_spun(3);
            meter.add_win();
            meter.add_sleep();
        }
    };
    std::jthread other(count);
    count();
    other.join();
    const WaitCosts costs = read_costs(counts);
    EXPECT_EQ(costs.spun, 6 * kTimes);
    EXPECT_EQ(costs.spins_won, 2 * kTimes);
    EXPECT_EQ(costs.slept, 2 * kTimes);
}

TEST_P(SignalTest, IsCancelledFromAnotherThread) {
    const std::atomic<bool> flag{false};
    Cancel cancel;
    Wait wait = kLong;
    wait.cancel = &cancel;
    std::jthread canceller([&] {
        test::await([&] { return (word() & 1U) != 0; });  // until there is a waiter
        cancel.cancel();
    });
    const auto start = Clock::now();
    EXPECT_EQ(wait_for(flag, wait), WaitEnd::Cancelled);
    EXPECT_LT(Clock::now() - start, kLong);
    canceller.join();
}

TEST_P(SignalTest, AsksEveryThirdSliceWhetherItWasInterrupted) {
    const std::atomic<bool> flag{false};
    int questions = 0;
    Wait wait = kLong;
    wait.context = &questions;
    wait.interrupted = [](void* context) { return ++*static_cast<int*>(context) == 3; };
    EXPECT_EQ(wait_for(flag, wait), WaitEnd::Cancelled);
    EXPECT_EQ(questions, 3);
    EXPECT_EQ(sleeps_, 9U);
}

TEST_P(SignalTest, AsksWhetherItWasInterruptedAfterEverySignal) {
    struct sigaction handler{};
    struct sigaction before{};
    handler.sa_handler = [](int) {};
    ASSERT_EQ(::sigaction(SIGUSR2, &handler, &before), 0);
    const std::atomic<bool> flag{false};
    const pthread_t waiter = ::pthread_self();
    std::jthread sender([&](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            ::pthread_kill(waiter, SIGUSR2);
            std::this_thread::yield();
        }
    });
    int questions = 0;
    Wait wait = kLong;
    wait.context = &questions;
    wait.interrupted = [](void* context) { return ++*static_cast<int*>(context) == 20; };
    const auto start = Clock::now();
    EXPECT_EQ(wait_for(flag, wait), WaitEnd::Cancelled);
    EXPECT_LT(Clock::now() - start, 20 * kSlice) << "sooner than slices alone would ask";
    sender.request_stop();
    sender.join();
    ::sigaction(SIGUSR2, &before, nullptr);
}

TEST_P(SignalTest, WakesAWaiterInAnotherProcess) {
    const Shared<std::atomic<bool>> flag;
    Child child([&] { require(wait_for(*flag, kLong) == WaitEnd::Ready); });
    child.await_sleep();
    *flag = true;
    signal().notify();
    EXPECT_EQ(child.wait(), 0);
}

// Two sides that wake each other in turn, as fast as they can. Sleeps are so long that a lost
// wake-up can't be mistaken for a timeout.
struct Court {
    layout::SignalWord ping_word{};
    layout::SignalWord pong_word{};
    alignas(128) std::atomic<std::uint32_t> ping{0};
    alignas(128) std::atomic<std::uint32_t> pong{0};
};
constexpr std::uint32_t kStrokes = 10'000;

void await_stroke(Signal signal, const std::atomic<std::uint32_t>& ball, std::uint32_t stroke) {
    while (load_acquire(ball) < stroke) {
        const std::uint32_t seen = signal.announce();
        if (load_relaxed(ball) >= stroke) return;
        require(signal.sleep(seen, kLong) != os::Woken::ByTimeout);
    }
}

void strike(Signal signal, std::atomic<std::uint32_t>& ball, std::uint32_t stroke) {
    store_release(ball, stroke);
    signal.notify();
}

void serve(Court& court, bool asymmetric) {
    for (std::uint32_t stroke = 1; stroke <= kStrokes; ++stroke) {
        strike({court.ping_word, asymmetric}, court.ping, stroke);
        await_stroke({court.pong_word, asymmetric}, court.pong, stroke);
    }
}

void reply(Court& court, bool asymmetric) {
    for (std::uint32_t stroke = 1; stroke <= kStrokes; ++stroke) {
        await_stroke({court.ping_word, asymmetric}, court.ping, stroke);
        strike({court.pong_word, asymmetric}, court.pong, stroke);
    }
}

TEST_P(SignalTest, NoWakeUpIsLostBetweenTwoProcesses) {
    const Shared<Court> court;
    Child child([&] { reply(*court, GetParam()); });
    serve(*court, GetParam());
    EXPECT_EQ(child.wait(), 0);
}

TEST_P(SignalTest, NoWakeUpIsLostBetweenTwoThreads) {
    const Shared<Court> court;
    std::jthread replier([&] { reply(*court, GetParam()); });
    serve(*court, GetParam());
    replier.join();
}

// One thread changes a word at its own pace, several wait for each change.
TEST_P(SignalTest, NoWakeUpIsLostAmongSeveralWaiters) {
    constexpr std::uint32_t kChanges = 3'000;
    const Shared<Court> court;
    const Shared<std::atomic<std::uint32_t>> slowest[2];
    const auto follow = [&](std::atomic<std::uint32_t>& reached) {
        for (std::uint32_t change = 1; change <= kChanges; ++change) {
            await_stroke({court->ping_word, GetParam()}, court->ping, change);
            reached = change;
        }
    };
    Child first([&] { follow(*slowest[0]); });
    Child second([&] { follow(*slowest[1]); });
    for (std::uint32_t change = 1; change <= kChanges; ++change) {
        strike({court->ping_word, GetParam()}, court->ping, change);
        // One waiter is always awaited, so that the other is asleep at some changes and awake at
        // others.
        test::await([&] { return slowest[change % 2]->load() >= change; });
    }
    EXPECT_EQ(first.wait(), 0);
    EXPECT_EQ(second.wait(), 0);
}

}  // namespace
}  // namespace penstock::detail

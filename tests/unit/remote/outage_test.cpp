// Outages: a second tier that is absent, hangs, refuses or comes back. The first tier is
// unaffected, and the statistics count what the second tier lacks.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/unit/remote/tier_fixture.hpp"

namespace penstock {
namespace {

using namespace test;
using namespace std::chrono_literals;

class OutageTest : public TierTest {
protected:
    static void await_circuit(const Store& store, CircuitState state) {
        await([&] { return tier_stats(store).circuit == state; });
    }
    // The timeout after which a hanging server is given up.
    static constexpr std::chrono::milliseconds kShort{300};
    [[nodiscard]] SecondTierOptions impatient(TierPolicy policy) const {
        SecondTierOptions wanted = options(policy);
        wanted.connect_timeout = kShort;
        wanted.request_timeout = kShort;
        return wanted;
    }
};

TEST_F(OutageTest, AServerThatStartsLaterIsFound) {
    server_->kill();
    Store store = make_machine(options(TierPolicy::WriteBack));
    EXPECT_EQ(tier_stats(store).circuit, CircuitState::Open);
    EXPECT_TRUE(succeeds(put(store, 1)));
    EXPECT_TRUE(lacks(store, 2));
    EXPECT_EQ(tier_stats(store).skipped, 1U);
    EXPECT_FALSE(tier_stats(store).last_error.empty());
    server_->start();
    EXPECT_TRUE(store.flush(kLong).is_nothing());
    EXPECT_EQ(tier_stats(store).circuit, CircuitState::Closed);
    Store there = make_machine();
    EXPECT_TRUE(has(there, 1));
}

TEST_F(OutageTest, ADeadServerIsAMissAndItsSuccessorGetsLaterPuts) {
    Store store = make_machine(options(TierPolicy::WriteBack));
    ASSERT_TRUE(succeeds(put(store, 1)));
    ASSERT_TRUE(store.flush(kLong).is_nothing());
    server_->kill();
    EXPECT_TRUE(lacks(store, 100));
    for (std::uint64_t i = 2; i < 20; ++i) {
        EXPECT_TRUE(succeeds(put(store, i)));
        EXPECT_TRUE(has(store, i));
    }
    EXPECT_GT(tier_stats(store).errors, 0U);
    server_->start();
    EXPECT_TRUE(store.flush(kLong).is_nothing());
    EXPECT_EQ(server_->keys().size(), 18U) << "it has forgotten the first";
    Store there = make_machine();
    for (std::uint64_t i = 2; i < 20; ++i) EXPECT_TRUE(has(there, i));
}

TEST_F(OutageTest, AServerThatHangsCostsItsTimeoutOnceAndThenNothing) {
    Store here = make_machine();
    ASSERT_TRUE(succeeds(put(here, 1)));
    Store store = make_machine(impatient(TierPolicy::ReadOnly));
    server_->stop();
    const auto first = time_of([&] { EXPECT_TRUE(lacks(store, 1)); });
    EXPECT_GE(first, kShort);
    EXPECT_LT(first, kLong);
    EXPECT_EQ(tier_stats(store).timeouts, 1U);
    EXPECT_EQ(tier_stats(store).circuit, CircuitState::Open);
    // The library's own thread retries meanwhile, each time in vain.
    constexpr unsigned kLooks = 1000;
    const auto later = time_of([&] {
        for (unsigned i = 0; i < kLooks; ++i) EXPECT_TRUE(lacks(store, 1));
    });
    EXPECT_LT(later, kShort * kLooks / 100) << "not even one look in a hundred was asked";
    EXPECT_EQ(tier_stats(store).skipped, kLooks);
    server_->resume();
    await_circuit(store, CircuitState::Closed);
    EXPECT_TRUE(has(store, 1));
}

// Cancellation of a wait for a hanging server is not an outage.
TEST_F(OutageTest, ACallerCanCancelItsWaitForAServer) {
    Store store = make_machine();
    ASSERT_TRUE(succeeds(put(store, 1)));
    server_->stop();
    Cancel cancel;
    Wait cancelled;
    cancelled.cancel = &cancel;
    cancel.cancel();
    Wait interrupted;
    interrupted.interrupted = [](void*) noexcept { return true; };
    for (const Wait& wait : {cancelled, interrupted}) {
        EXPECT_TRUE(fails(store.get(key_of(2), wait), ErrorCode::Cancelled));
        EXPECT_TRUE(fails(put(store, 3, wait), ErrorCode::Cancelled));
        EXPECT_TRUE(has(store, 3)) << "the first has it";
        EXPECT_TRUE(fails(store.remove(key_of(3), wait), ErrorCode::Cancelled));
        EXPECT_FALSE(store.contains(key_of(3), wait));
    }
    EXPECT_TRUE(fails(store.get(key_of(2), 10ms), ErrorCode::Timeout));
    EXPECT_TRUE(fails(store.get(key_of(2), Deadline::now()), ErrorCode::Timeout));
    EXPECT_TRUE(has(store, 1)) << "which asks no server";
    EXPECT_EQ(tier_stats(store).circuit, CircuitState::Closed);
    EXPECT_EQ(tier_stats(store).timeouts, 0U);
    EXPECT_EQ(tier_stats(store).misses, 0U);
    server_->resume();
    EXPECT_TRUE(succeeds(put(store, 2)));
}

// Waiters for another thread's fetch fetch themselves when that thread is cancelled.
TEST_F(OutageTest, ACancelledFetchDoesNotCancelItsWaiters) {
    Store here = make_machine();
    ASSERT_TRUE(succeeds(put(here, 1)));
    Store store = make_machine();
    server_->stop();
    Cancel cancel;
    Wait wait;
    wait.cancel = &cancel;
    std::thread leader(
        [&] { EXPECT_TRUE(fails(store.get(key_of(1), wait), ErrorCode::Cancelled)); });
    await([&] { return store.stats().misses == 1; });
    std::thread follower([&] { EXPECT_TRUE(has(store, 1)); });
    await([&] { return tier_stats(store).shared == 1; });
    cancel.cancel();
    leader.join();
    server_->resume();
    follower.join();
}

TEST_F(OutageTest, TheFirstTierDoesNotWaitForTheSecond) {
    Store store = make_machine(options(TierPolicy::WriteBack));
    server_->stop();
    constexpr std::uint64_t kObjects = 200;
    const auto span = time_of([&] {
        for (std::uint64_t i = 0; i < kObjects; ++i) {
            EXPECT_TRUE(succeeds(put(store, i)));
            EXPECT_TRUE(has(store, i));
        }
    });
    EXPECT_LT(span, kLong) << "the shortest wait for this server";
    EXPECT_EQ(tier_stats(store).written, 0U);
    EXPECT_EQ(tier_stats(store).inflight, kObjects);
    server_->resume();
    EXPECT_TRUE(store.flush(kLong).is_nothing());
    EXPECT_EQ(tier_stats(store).written, kObjects);
    EXPECT_EQ(tier_stats(store).inflight_bytes, 0U);
}

TEST_F(OutageTest, ABrokenConnectionIsReplacedSilently) {
    Store here = make_machine();
    Store there = make_machine();
    ASSERT_TRUE(succeeds(put(here, 1)));
    ASSERT_TRUE(succeeds(put(here, 2)));
    EXPECT_TRUE(has(there, 1));
    server_->say({"CLIENT", "KILL", "TYPE", "normal"});
    EXPECT_TRUE(has(there, 2));
    EXPECT_TRUE(succeeds(put(here, 3)));
    EXPECT_EQ(tier_stats(there).errors + tier_stats(here).errors, 0U);
}

TEST_F(OutageTest, WriteThroughReportsWhatTheSecondTierLacks) {
    Store store = make_machine();
    server_->kill();
    EXPECT_TRUE(fails(put(store, 1), ErrorCode::PeerDied, {server_->endpoint().path}));
    EXPECT_TRUE(has(store, 1)) << "the first has it";
    EXPECT_EQ(tier_stats(store).dropped, 1U);
    EXPECT_EQ(tier_stats(store).dropped_bytes, 1000U);
    EXPECT_TRUE(fails(store.remove(key_of(1)), ErrorCode::PeerDied));
    EXPECT_FALSE(first_of(store).contains(key_of(1)));
}

TEST_F(OutageTest, AServersRefusalIsReportedAndNoOutage) {
    server_->say({"CONFIG", "SET", "maxmemory", "1"});
    Store through = make_machine();
    EXPECT_TRUE(fails(put(through, 1), ErrorCode::System, {"OOM"}));
    EXPECT_EQ(tier_stats(through).circuit, CircuitState::Closed);
    Store back = make_machine(options(TierPolicy::WriteBack));
    EXPECT_TRUE(succeeds(put(back, 2)));
    const Unwritten unwritten = back.flush(kLong);
    EXPECT_EQ(unwritten.waiting, 0U);
    EXPECT_EQ(unwritten.dropped, 1U);
    EXPECT_EQ(unwritten.dropped_bytes, 1000U);
    EXPECT_TRUE(back.flush(kLong).is_nothing()) << "reported once";
    EXPECT_EQ(tier_stats(back).dropped, 1U);
}

TEST_F(OutageTest, TheBacklogIsBoundedAndTheRestCounted) {
    SecondTierOptions wanted = options(TierPolicy::WriteBack);
    wanted.max_inflight_bytes = 10'500;
    Store store = make_machine(wanted);
    server_->stop();
    for (std::uint64_t i = 0; i < 15; ++i) EXPECT_TRUE(succeeds(put(store, i)));
    EXPECT_EQ(tier_stats(store).inflight_bytes, 10'000U);
    EXPECT_EQ(tier_stats(store).dropped, 5U);
    EXPECT_EQ(tier_stats(store).dropped_bytes, 5'000U);
    EXPECT_EQ(store.stats().in_use, 10U);
    server_->resume();
    const Unwritten unwritten = store.flush(kLong);
    EXPECT_EQ(unwritten.waiting, 0U);
    EXPECT_EQ(unwritten.dropped, 5U);
    EXPECT_EQ(store.stats().in_use, 0U);
    Store there = make_machine();
    for (std::uint64_t i = 0; i < 10; ++i) EXPECT_TRUE(has(there, i));
    for (std::uint64_t i = 10; i < 15; ++i) EXPECT_TRUE(lacks(there, i));
}

TEST_F(OutageTest, TheBacklogTakesAtMostHalfOfTheFirstTier) {
    Store store = make_machine(options(TierPolicy::WriteBack), 1 << 20U);
    server_->stop();
    for (std::uint64_t i = 0; i < 40; ++i) EXPECT_TRUE(succeeds(put(store, i, 60'000)));
    EXPECT_LE(tier_stats(store).inflight_bytes, 1U << 19U);
    EXPECT_GT(tier_stats(store).dropped, 0U);
    server_->resume();
}

TEST_F(OutageTest, AFullBacklogWaitsForRoomOnRequest) {
    SecondTierOptions wanted = options(TierPolicy::WriteBack);
    wanted.max_inflight_bytes = 2'000;
    wanted.when_full = WhenFull::Wait;
    wanted.full_timeout = kLong;
    Store store = make_machine(wanted);
    server_->stop();
    EXPECT_TRUE(succeeds(put(store, 1)));
    EXPECT_TRUE(succeeds(put(store, 2)));
    std::atomic<bool> has_room{false};
    std::thread writer([&] {
        EXPECT_TRUE(succeeds(put(store, 3)));
        has_room = true;
    });
    await([&] { return first_of(store).contains(key_of(3)); });
    EXPECT_FALSE(has_room);
    server_->resume();
    writer.join();
    EXPECT_TRUE(store.flush(kLong).is_nothing());
    EXPECT_EQ(tier_stats(store).written, 3U);
}

TEST_F(OutageTest, TheWaitForBacklogRoomTimesOut) {
    SecondTierOptions wanted = options(TierPolicy::WriteBack);
    wanted.max_inflight_bytes = 1'000;
    wanted.when_full = WhenFull::Wait;
    wanted.full_timeout = 30ms;
    Store store = make_machine(wanted);
    server_->stop();
    EXPECT_TRUE(succeeds(put(store, 1)));
    EXPECT_GE(time_of([&] { EXPECT_TRUE(succeeds(put(store, 2))); }), 30ms);
    EXPECT_EQ(tier_stats(store).dropped, 1U);
    server_->resume();
}

TEST_F(OutageTest, AnOutageEndsTheWaitForBacklogRoom) {
    SecondTierOptions wanted = options(TierPolicy::WriteBack);
    wanted.max_inflight_bytes = 1'000;
    wanted.when_full = WhenFull::Wait;
    wanted.full_timeout = kLong;
    Store store = make_machine(wanted);
    server_->kill();
    EXPECT_TRUE(lacks(store, 100));
    const auto span = time_of([&] {
        for (std::uint64_t i = 0; i < 10; ++i) EXPECT_TRUE(succeeds(put(store, i)));
    });
    EXPECT_LT(span, kLong);
    EXPECT_EQ(tier_stats(store).dropped, 9U);
}

TEST_F(OutageTest, FlushAndCloseReportUnwrittenObjects) {
    Store store = make_machine(options(TierPolicy::WriteBack));
    server_->stop();
    for (std::uint64_t i = 0; i < 5; ++i) EXPECT_TRUE(succeeds(put(store, i)));
    Unwritten unwritten = store.flush(10ms);
    EXPECT_EQ(unwritten.waiting, 5U);
    EXPECT_EQ(unwritten.waiting_bytes, 5'000U);
    EXPECT_EQ(unwritten.dropped, 0U);
    server_->resume();
    EXPECT_TRUE(store.flush(kLong).is_nothing());
    server_->stop();
    for (std::uint64_t i = 5; i < 8; ++i) EXPECT_TRUE(succeeds(put(store, i)));
    unwritten = store.close(10ms);
    EXPECT_EQ(unwritten.waiting, 0U);
    EXPECT_EQ(unwritten.dropped, 3U);
    EXPECT_EQ(unwritten.dropped_bytes, 3'000U);
    server_->resume();
    // The object under way may have arrived: its answer was not awaited.
    EXPECT_LE(server_->keys().size(), 6U);
}

TEST_F(OutageTest, CloseWritesTheBacklog) {
    SecondTierOptions wanted = options(TierPolicy::WriteBack);
    wanted.writers = 3;
    Store store = make_machine(wanted);
    for (std::uint64_t i = 0; i < 100; ++i) EXPECT_TRUE(succeeds(put(store, i)));
    EXPECT_TRUE(store.close(kLong).is_nothing());
    EXPECT_EQ(server_->keys().size(), 100U);
}

TEST_F(OutageTest, ARemovedObjectIsNotWrittenLater) {
    Store store = make_machine(options(TierPolicy::WriteBack));
    server_->stop();
    // One is being written, the other waits.
    EXPECT_TRUE(succeeds(put(store, 1)));
    EXPECT_TRUE(succeeds(put(store, 2)));
    std::thread first([&] { EXPECT_TRUE(succeeds(store.remove(key_of(1)))); });
    std::thread second([&] {
        const Status status = store.remove(key_of(2));
        EXPECT_TRUE(succeeds(status));
    });
    await([&] { return first_of(store).keys().empty(); });
    server_->resume();
    first.join();
    second.join();
    EXPECT_TRUE(store.flush(kLong).is_nothing());
    EXPECT_TRUE(server_->keys().empty());
    EXPECT_TRUE(lacks(store, 1));
    EXPECT_TRUE(lacks(store, 2));
}

TEST_F(OutageTest, AnObjectRemovedDuringAnOutageIsNotWrittenLater) {
    Store store = make_machine(options(TierPolicy::WriteBack));
    server_->kill();
    EXPECT_TRUE(succeeds(put(store, 1)));
    EXPECT_TRUE(succeeds(put(store, 2)));
    EXPECT_TRUE(fails(store.remove(key_of(1)), ErrorCode::PeerDied));
    server_->start();
    EXPECT_TRUE(store.flush(kLong).is_nothing());
    EXPECT_EQ(server_->keys(), Words{head_of(2)});
}

// Load on a server that is stopped, resumed and killed: reads return what was put, nothing leaks.
TEST_F(OutageTest, UnderLoadAServerMayComeAndGo) {
    SecondTierOptions wanted = impatient(TierPolicy::WriteBack);
    wanted.writers = 2;
    wanted.max_inflight_bytes = 200'000;
    Store store = make_machine(wanted, 1 << 20U);
    std::atomic<bool> is_over{false};
    std::atomic<unsigned> wrong{0};
    const auto work = [&](std::uint64_t seed) {
        trust::Dice dice(seed);
        while (!is_over) {
            const std::uint64_t number = dice.between(0, 60);
            const std::size_t size = number * 2'000;
            switch (dice.between(0, 3)) {
                case 0: {
                    const ErrorCode code = put(store, number, size).code();
                    wrong += code != ErrorCode::Ok && code != ErrorCode::AlreadyExists &&
                                     code != ErrorCode::Busy && code != ErrorCode::NoSpace
                                 ? 1U
                                 : 0U;
                    break;
                }
                case 1:
                    static_cast<void>(store.remove(key_of(number)));
                    break;
                default: {
                    const Result<StoreObject> object = store.get(key_of(number));
                    if (object && !is_value(object->bytes(), number, size)) ++wrong;
                }
            }
        }
    };
    std::vector<std::thread> threads;
    for (std::uint64_t i = 0; i < 3; ++i) threads.emplace_back(work, i);
    const auto has_worked = [&] {
        const std::uint64_t before = tier_stats(store).written;
        await([&] { return tier_stats(store).written >= before + 20; });
    };
    for (int round = 0; round < 3; ++round) {
        has_worked();
        server_->kill();
        await_circuit(store, CircuitState::Open);
        server_->start();
        has_worked();
        server_->stop();
        await_circuit(store, CircuitState::Open);
        server_->resume();
    }
    has_worked();
    is_over = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0U);
    EXPECT_EQ(store.flush(kLong).waiting, 0U);
    const TierStats stats = tier_stats(store);
    EXPECT_EQ(stats.corrupt, 0U);
    EXPECT_EQ(stats.inflight + stats.inflight_bytes, 0U);
    EXPECT_EQ(store.stats().in_use, 0U);
    EXPECT_EQ(store.stats().staged, 0U);
}

TEST_F(OutageTest, RequestCloseEndsWaitsForAServer) {
    Store store = make_machine();
    server_->stop();
    std::atomic<bool> is_under_way{false};
    const auto span = time_of([&] {
        std::thread reader([&] {
            is_under_way = true;
            // Closed if the call came after request_close().
            const ErrorCode code = store.get(key_of(1)).code();
            EXPECT_TRUE(code == ErrorCode::Cancelled || code == ErrorCode::Closed)
                << to_string(code);
        });
        await([&] { return is_under_way.load(); });
        store.request_close();
        reader.join();
    });
    EXPECT_LT(span, kLong);
    server_->resume();
}

}  // namespace
}  // namespace penstock

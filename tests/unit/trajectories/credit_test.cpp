// Waits for credit and for a batch, beside other participants that stop, die or are idle.
#include <ctime>

#include <atomic>
#include <memory>
#include <thread>

#include "os/crash_point.hpp"
#include "tests/unit/trajectories/trajectory_fixture.hpp"

namespace penstock::test {
namespace {

using namespace std::chrono_literals;

std::chrono::nanoseconds processor_time() {
    timespec now{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

std::vector<Rollout> begin_all(TrajectoryWriter& writer) {
    std::vector<Rollout> rollouts;
    for (;;) {
        auto rollout = writer.begin(Deadline::now());
        if (!rollout) return rollouts;
        rollouts.push_back(*std::move(rollout));
    }
}

// One rollout and its group; false once the stream has ended, even if it ends in between.
bool roll_out(TrajectoryWriter& writer, std::int32_t number, std::size_t sequences) {
    auto rollout = writer.begin(kLong);
    if (rollout.code() == ErrorCode::Closed) return false;
    require(rollout.is_ok());
    const Status written = put(writer, number, sequences, &*rollout);
    if (written.code() == ErrorCode::Closed) return false;
    require(written.is_ok());
    return true;
}

TEST_F(TrajectoryTest, WaitingForCreditCostsNothingBesideAStoppedAsker) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(0), 4);
    auto writer = TrajectoryWriter::attach(name_, environment("a", 4));
    Child asker([&] {
        auto other = TrajectoryWriter::attach(name_, environment("a", 4));
        os::arm_crash_point("trajectories.begin.asking:1:stop");
        (void)other.begin(Deadline::now());
    });
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(asker.pid()), &info, WSTOPPED);
    const auto before = processor_time();
    EXPECT_TRUE(fails(writer.begin(Deadline::after(500ms)), ErrorCode::Timeout));
    EXPECT_LT(processor_time() - before, 50ms);
    asker.resume();
    EXPECT_EQ(asker.wait(), 0);
}

TEST_F(TrajectoryTest, WaitersForCreditDoNotWakeEachOther) {
    constexpr int kWaiters = 6;
    auto reader = TrajectoryReader::create(name_, small_trajectories(0), 4);
    auto holder = TrajectoryWriter::attach(name_, environment("a", 4));
    const std::vector<Rollout> all = begin_all(holder);
    std::vector<std::unique_ptr<Child>> waiters;
    for (int i = 0; i < kWaiters; ++i) {
        waiters.push_back(std::make_unique<Child>([&] {
            auto writer = TrajectoryWriter::attach(name_, environment("a", 4));
            const auto before = processor_time();
            require(writer.begin(Deadline::after(1s)).code() == ErrorCode::Timeout);
            require(processor_time() - before < 50ms);
        }));
    }
    for (auto& waiter : waiters) EXPECT_EQ(waiter->wait(), 0);
}

// An environment without which no batch can be formed gets credit; more credit for all would only
// add groups of the others.
TEST_F(TrajectoryTest, AMinimumShareIsGrantedInAFullWindow) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(0), 8);
    auto one = TrajectoryWriter::attach(name_, environment("a", 4));
    auto other = TrajectoryWriter::attach(name_, environment("b", 4));
    auto options = environment("c", 2);
    options.min_share = 0.25;
    auto small = TrajectoryWriter::attach(name_, options);
    for (TrajectoryWriter* writer : {&one, &other}) {
        auto rollout = writer->begin(Deadline::now());
        ASSERT_TRUE(succeeds(rollout));
        ASSERT_TRUE(succeeds(put(*writer, 1, 4, &*rollout)));
    }
    EXPECT_EQ(small.credit(), 0U);
    ASSERT_TRUE(fails(reader.next_batch({}, Deadline::now()), ErrorCode::Timeout));
    EXPECT_EQ(small.credit(), 1U);
    EXPECT_EQ(one.credit(), 0U);
    EXPECT_EQ(other.credit(), 0U);
    reader.discard();
}

// The pause between a put and the next begin is no sign that all environments are stuck.
TEST_F(TrajectoryTest, APauseGrantsNothingBeyondTheWindow) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(0), 4);
    auto writer = TrajectoryWriter::attach(name_, environment("a", 2));
    auto first = writer.begin(Deadline::now());
    ASSERT_TRUE(succeeds(first));
    ASSERT_TRUE(succeeds(put(writer, 1, 2, &*first)));
    ASSERT_TRUE(fails(reader.next_batch({}, Deadline::now()), ErrorCode::Timeout));
    EXPECT_EQ(writer.credit(), 1U);
    EXPECT_EQ(begin_all(writer).size(), 1U);
    reader.discard();
}

// Fills batches alone, beside a live environment that begins no group.
void fill_alone(TrajectoryReader& reader, TrajectoryWriter& writer, std::size_t group_size) {
    std::int32_t number = 0;
    for (int attempt = 0; attempt < 20; ++attempt) {
        for (Rollout& rollout : begin_all(writer)) {
            ASSERT_TRUE(succeeds(put(writer, number++, group_size, &rollout)));
        }
        auto batch = reader.next_batch({}, Deadline::now());
        if (batch) {
            batch->ack(1);
            return;
        }
        ASSERT_TRUE(fails(batch, ErrorCode::Timeout));
    }
    FAIL() << "all wait for each other";
}

TEST_F(TrajectoryTest, AnIdleEnvironmentBlocksNoBatch) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(0), 8);
    auto silent = TrajectoryWriter::attach(name_, environment("silent"));
    auto writer = TrajectoryWriter::attach(name_, environment("busy"));
    fill_alone(reader, writer, 2);
    reader.discard();
}

TEST_F(TrajectoryTest, AnIdleEnvironmentReservesFewSlots) {
    TrajectoryOptions options = small_trajectories();
    options.slots = 8;
    auto reader = TrajectoryReader::create(name_, options, 8);
    auto silent = TrajectoryWriter::attach(name_, environment("silent", 1));
    auto writer = TrajectoryWriter::attach(name_, environment("busy", 1));
    fill_alone(reader, writer, 1);
    reader.discard();
}

TEST_F(TrajectoryTest, AWeightLeavesRoomForTheMinimumSharesOfOthers) {
    TrajectoryOptions options = small_trajectories();
    options.slots = 8;
    auto reader = TrajectoryReader::create(name_, options, 4);
    auto heavy = TrajectoryWriter::attach(name_, environment("heavy", 1, 99));
    auto light = TrajectoryWriter::attach(name_, environment("light", 1, 1, 0.5));
    std::int32_t number = 0;
    const auto work = [&](TrajectoryWriter& writer) {
        for (Rollout& rollout : begin_all(writer)) {
            ASSERT_TRUE(succeeds(put(writer, number++, 1, &rollout)));
        }
    };
    for (std::uint64_t round = 1; round <= 3; ++round) {
        work(heavy);
        work(light);
        auto batch = reader.next_batch({}, Deadline::now());
        ASSERT_TRUE(succeeds(batch));
        batch->ack(round);
    }
    reader.discard();
}

TEST_F(TrajectoryTest, AMinimumShareEndsForAWaitingTrainerWithItsEnvironment) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 4);
    auto many = TrajectoryWriter::attach(name_, environment("many"));
    Gate attached;
    Child few([&] {
        auto writer = TrajectoryWriter::attach(name_, environment("few", 2, 1, 0.5));
        attached.open();
        for (;;) ::pause();
    });
    attached.pass();
    ASSERT_TRUE(succeeds(put(many, 1)));
    ASSERT_TRUE(succeeds(put(many, 2)));
    std::thread killer([&] {
        std::this_thread::sleep_for(200ms);
        few.kill_unreaped();
    });
    auto batch = reader.next_batch({}, Deadline::after(3s));
    killer.join();
    ASSERT_TRUE(succeeds(batch));
    batch->ack(1);
}

// As a task of an event loop: it tries, and lets a thread wait.
TEST_F(TrajectoryTest, AMinimumShareEndsForAPollingTrainerWithItsEnvironment) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 4);
    auto many = TrajectoryWriter::attach(name_, environment("many"));
    Gate attached;
    Child few([&] {
        auto writer = TrajectoryWriter::attach(name_, environment("few", 2, 1, 0.5));
        attached.open();
        for (;;) ::pause();
    });
    attached.pass();
    ASSERT_TRUE(succeeds(put(many, 1)));
    ASSERT_TRUE(succeeds(put(many, 2)));
    ASSERT_TRUE(fails(reader.next_batch({}, Deadline::now()), ErrorCode::Timeout));
    EXPECT_TRUE(fails(reader.wait_ready(Deadline::after(200ms)), ErrorCode::Timeout));
    few.kill_unreaped();
    ASSERT_TRUE(succeeds(reader.wait_ready(Deadline::after(3s))));
    auto batch = reader.next_batch({}, Deadline::now());
    ASSERT_TRUE(succeeds(batch));
    batch->ack(1);
}

// An environment has credit and does not use it: the others wait for it, but not for ever.
TEST_F(TrajectoryTest, UnusedCreditDelaysOthersBriefly) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(0), 8);
    auto silent = TrajectoryWriter::attach(name_, environment("silent", 1));
    Child busy([&] {
        auto writer = TrajectoryWriter::attach(name_, environment("busy"));
        // 3 + 3 leave 2; 5 + 3 make the batch.
        for (std::int32_t number = 0; roll_out(writer, number, number == 2 ? 5 : 3); ++number) {
        }
    });
    auto batch = reader.next_batch({}, Deadline::after(10s));
    ASSERT_TRUE(succeeds(batch));
    batch->ack(1);
    reader.end();
    EXPECT_EQ(busy.wait(), 0);
    reader.discard();
}

// The other trainer may be stopped: its batch fills the window, and nothing waits in the queue.
TEST_F(TrajectoryTest, ABatchThatStaysUnacknowledgedDelaysOthersOnce) {
    auto slow = TrajectoryReader::create(name_, small_trajectories(0), 4);
    auto reader = TrajectoryReader::attach(name_, 4);
    auto writer = TrajectoryWriter::attach(name_, environment("a", 2));
    std::thread source([&] {
        for (std::int32_t number = 0; roll_out(writer, number, 2); ++number) {
        }
    });
    auto kept = slow.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(kept));
    EXPECT_TRUE(fails(reader.next_batch({}, Deadline::after(100ms)), ErrorCode::Timeout));
    const auto next = [&] {
        auto batch = reader.next_batch({}, kLong);
        ASSERT_TRUE(succeeds(batch));
        batch->ack(reader.version() + 1);
    };
    next();
    const auto since = Clock::now();
    for (int number = 0; number < 20; ++number) next();
    EXPECT_LT(Clock::now() - since, 10s);  // not a second for each
    EXPECT_EQ(reader.stats().queue.in_flight, 2U);
    kept->ack(reader.version());
    reader.end();
    source.join();
    reader.discard();
}

TEST_F(TrajectoryTest, EveryThreadThatBeginsKeepsItsDeadline) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(0), 4);
    auto writer = TrajectoryWriter::attach(name_, environment("a", 4));
    const std::vector<Rollout> all = begin_all(writer);
    std::thread patient(
        [&] { EXPECT_TRUE(fails(writer.begin(Deadline::after(2s)), ErrorCode::Timeout)); });
    std::this_thread::sleep_for(200ms);
    const auto before = std::chrono::steady_clock::now();
    EXPECT_TRUE(fails(writer.begin(Deadline::now()), ErrorCode::Timeout));
    EXPECT_LT(std::chrono::steady_clock::now() - before, 500ms);
    patient.join();
}

TEST_F(TrajectoryTest, AReaderThatHoldsABatchIsReady) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 4);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    for (std::int32_t number = 0; number < 4; ++number) ASSERT_TRUE(succeeds(put(writer, number)));
    auto batch = reader.next_batch({}, Deadline::now());
    ASSERT_TRUE(succeeds(batch));
    EXPECT_TRUE(reader.is_ready());
    EXPECT_TRUE(succeeds(reader.wait_ready(Deadline::now())));
    auto second = reader.next_batch({}, Deadline::now());
    ASSERT_TRUE(succeeds(second));
    EXPECT_FALSE(reader.is_ready());
    batch->ack(1);
    second->ack(2);
}

TEST_F(TrajectoryTest, AStoppedAskerHoldsOnlyItsClaim) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(0), 8);
    auto keeper = TrajectoryWriter::attach(name_, environment("busy"));
    Child asker([&] {
        auto other = TrajectoryWriter::attach(name_, environment("busy"));
        os::arm_crash_point("trajectories.begin.asking:1:stop");
        (void)other.begin(Deadline::now());
    });
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(asker.pid()), &info, WSTOPPED);
    Child busy([&] {
        auto writer = TrajectoryWriter::attach(name_, environment("busy"));
        for (std::int32_t number = 0; roll_out(writer, number, 2); ++number) {
        }
    });
    auto batch = reader.next_batch({}, Deadline::after(10s));
    ASSERT_TRUE(succeeds(batch));
    batch->ack(1);
    asker.resume();
    EXPECT_EQ(asker.wait(), 0);
    reader.end();
    EXPECT_EQ(busy.wait(), 0);
    reader.discard();
}

}  // namespace
}  // namespace penstock::test

// Participants in PID namespaces of their own, each process 1 there: life is judged by the kernel's
// locks, not by PIDs, which mean other processes elsewhere.
#include <array>

#include "tests/support/broadcast_actor.hpp"
#include "tests/support/isolation.hpp"
#include "tests/support/store_actor.hpp"
#include "tests/support/trajectory_actor.hpp"

namespace penstock::trust {
namespace {

class PidNamespaces : public IsolatedTest {
protected:
    Actor start(const std::string& name) { return IsolatedTest::start(name, kBroadcastRole); }

    void start_all() {
        writer_ = start("the writer");
        writer_.must("create " + segment_ + " 2 16384 1048576 raise");
        for (unsigned rank = 0; rank < 2; ++rank) {
            readers_[rank] = start("reader " + std::to_string(rank));
            readers_[rank].must("attach " + segment_ + " " + std::to_string(rank) + " 5000");
        }
        writer_.must("send 3 1000 5000");
        for (Actor& reader : readers_) EXPECT_EQ(reader.must("recv 3 5000").number("next"), 3);
    }

    Actor writer_;
    std::array<Actor, 2> readers_;
};

TEST_F(PidNamespaces, ProcessesOneOfOtherNamespacesAreAlive) {
    start_all();
    expect_process_one(inspect_broadcast(segment_).segment.participants);
    // A full ring and a slow reader: the writer is blocked, and no death is reported.
    readers_[0].tell("drain 1000");
    const Answer blocked = writer_.ask("send 40 1000 400");
    EXPECT_EQ(blocked.outcome, "Timeout") << blocked.line();
    EXPECT_EQ(blocked.number("deaths"), 0);
    EXPECT_EQ(readers_[1].ask("recv 1 400").outcome, "ok");
}

TEST_F(PidNamespaces, TheDeathOfTheWriterIsNoticedByItsReaders) {
    start_all();
    for (Actor& reader : readers_) reader.tell("drain -1");
    writer_.process().kill();
    for (Actor& reader : readers_) {
        const Answer end = reader.answer();
        EXPECT_EQ(end.outcome, "PeerDied") << end.line();
        EXPECT_EQ(end.number("next"), 3);
        reader.must("close-reader");
    }
    EXPECT_TRUE(premises_.left().empty());
}

TEST_F(PidNamespaces, TheDeathOfAReaderIsNoticedByTheWriter) {
    start_all();
    readers_[1].process().kill();
    readers_[0].tell("recv 40 5000");
    const Answer sent = writer_.ask("send 40 1000 5000");
    EXPECT_TRUE(sent.is_ok()) << sent.line();
    EXPECT_EQ(sent.number("deaths"), 1) << sent.line();
    EXPECT_EQ(sent.number("last_dead"), 1) << sent.line();
    EXPECT_TRUE(readers_[0].answer().is_ok());
    readers_[1] = start("the replacement");
    readers_[1].must("attach " + segment_ + " 1 5000");
    writer_.must("send 1 1000 5000");
    EXPECT_EQ(readers_[1].must("recv 1 5000").number("next"), 44);
}

TEST_F(PidNamespaces, AStoppedReaderOfAnotherNamespaceIsAlive) {
    start_all();
    readers_[1].process().stop();
    readers_[0].tell("drain -1");
    const Answer sent = writer_.ask("send 40 1000 300");
    EXPECT_EQ(sent.outcome, "Timeout") << sent.line();
    const Answer blocked = writer_.ask("watched-send 1000 1000");
    EXPECT_EQ(blocked.text("blocked_by"), "1/1/active/alive");
    readers_[1].process().resume();
    EXPECT_EQ(readers_[1].ask("drain 300").number("next"), blocked.number("sent"));
}

// A death is noticed in the other namespaces, which get its keys, its memory and its pins.
class StoreNamespaces : public IsolatedTest {
protected:
    static constexpr const char* kMax = " 400000";  // two fit, three do not

    void SetUp() override {
        IsolatedTest::SetUp();
        if (IsSkipped()) return;
        writer_ = start("the writer", kStoreRole);
        other_ = start("the other", kStoreRole);
        writer_.must("create " + segment_ + " 1048576 64 8 sieve");
        other_.must("attach " + segment_ + " 5000");
        // The worker pins one object, and stages another.
        worker_ = start("the worker", kStoreRole);
        worker_.must("attach " + segment_ + " 5000");
        writer_.must(std::string("put 1") + kMax);
        worker_.must("get 1");
        worker_.must(std::string("reserve 2") + kMax);
    }
    [[nodiscard]] StoreStats look() const { return inspect_store(segment_).stats; }
    void close() {
        writer_.must("clear");
        EXPECT_EQ(look().used_bytes, 0U);
        EXPECT_EQ(look().largest_free, look().capacity);
        other_.must("close");
        writer_.must("close");
        EXPECT_TRUE(premises_.left().empty());
    }

    Actor writer_;
    Actor other_;
    Actor worker_;
};

TEST_F(StoreNamespaces, AStoppedWriterKeepsItsReservation) {
    expect_process_one(inspect_store(segment_).segment.participants);
    worker_.process().stop();
    const Answer refused = other_.ask("put 2 10");
    EXPECT_EQ(refused.outcome, "Busy") << refused.line();
    EXPECT_EQ(refused.number("peer"), 2);
    EXPECT_EQ(other_.ask(std::string("put 3") + kMax).outcome, "NoSpace");
    writer_.must("put 4 1000");
    other_.must("read 4");
    worker_.process().resume();
    worker_.must("recheck 1");
    worker_.must("commit 2");
    other_.must("read 2");
    worker_.must("close");
    close();
}

TEST_F(StoreNamespaces, TheKeyOfADeadWriterIsFree) {
    ASSERT_NO_FATAL_FAILURE(kill(worker_));
    expect_prompt(other_.ask("put 2 1000"));
    expect_prompt(writer_.ask("read 2"));
    EXPECT_EQ(look().in_use, 0U);
    EXPECT_EQ(look().staged, 0U);
    EXPECT_EQ(look().deaths, 1U);
    close();
}

TEST_F(StoreNamespaces, TheMemoryAndPinsOfADeadWriterAreFreed) {
    ASSERT_NO_FATAL_FAILURE(kill(worker_));
    expect_prompt(other_.ask("room " + std::to_string((1 << 20) - 64)));
    EXPECT_EQ(look().objects, 0U);
    close();
}

TEST_F(StoreNamespaces, ADoomedObjectGoesWithItsDeadReader) {
    other_.must("remove 1");
    EXPECT_EQ(look().doomed, 1U);
    ASSERT_NO_FATAL_FAILURE(kill(worker_));
    other_.must("clear-dead");
    EXPECT_EQ(look().used_bytes, 0U);
    close();
}

// The other namespaces continue with the credit and the groups of the dead.
class TrajectoryNamespaces : public IsolatedTest {
protected:
    Actor start(const std::string& name) {
        return IsolatedTest::start(name, kTrajectoryRole, {std::to_string(++started_)});
    }
    Actor start_trainer(const std::string& name) {
        Actor trainer = start(name);
        trainer.must("train " + segment_ + " 5000");
        return trainer;
    }

    // The first writer begins the whole window, and the second sleeps for want of credit.
    void SetUp() override {
        IsolatedTest::SetUp();
        if (IsSkipped()) return;
        first_ = start("the first writer");
        second_ = start("the second writer");
        first_.must("create " + segment_ + " maths");
        second_.must("write " + segment_ + " maths 5000");
        trainer_ = start_trainer("the trainer");
        first_.must("begin " + std::to_string(kWindowGroups) + " 5000");
        second_.park("begin 1 20000");
    }
    [[nodiscard]] EnvironmentStats only_environment() const {
        const auto all = inspect_trajectories(segment_).trajectories.environments;
        EXPECT_EQ(all.size(), 1U);
        return all.empty() ? EnvironmentStats() : all[0];
    }

    std::uint64_t started_ = 0;
    Actor first_;
    Actor second_;
    Actor trainer_;
};

TEST_F(TrajectoryNamespaces, AStoppedWriterKeepsItsCredit) {
    EXPECT_EQ(only_environment().writers, 2U);
    expect_process_one(inspect_trajectories(segment_).queue.segment.participants);
    first_.process().stop();
    Actor third = start("the third writer");
    third.must("write " + segment_ + " maths 5000");
    EXPECT_EQ(third.ask("begin 1 300").outcome, "Timeout");
    EXPECT_EQ(only_environment().running_groups, kWindowGroups);
    first_.process().resume();
    first_.must("release");
    EXPECT_TRUE(second_.answer().is_ok());
}

TEST_F(TrajectoryNamespaces, ADeadWritersCreditIsFreeAndItsGroupsStay) {
    first_.must("put 3 8 5000");
    ASSERT_NO_FATAL_FAILURE(kill(first_));
    expect_prompt(second_.answer());
    // Three are queued and one was granted just now: the rest of the window is free, and no more.
    EXPECT_EQ(second_.ask("begin 100 0").number("begun"),
              static_cast<std::int64_t>(kWindowGroups - 3));
    second_.must("put 1 8 5000");
    EXPECT_EQ(trainer_.must("recv 1 5000").text("got"),
              "1000000/1/0,1000001/1/1,1000002/1/2,2000000/1/3");
    EXPECT_EQ(only_environment().waiting_groups, 0U);
}

TEST_F(TrajectoryNamespaces, ADeadTrainersGroupsAreRedelivered) {
    first_.must("put " + std::to_string(kWindowGroups) + " 8 5000");
    EXPECT_EQ(trainer_.must("batch 5000").text("got"),
              "1000000/1/0,1000001/1/1,1000002/1/2,1000003/1/3");
    Actor next = start_trainer("the next trainer");
    next.park("recv 2 20000");
    ASSERT_NO_FATAL_FAILURE(kill(trainer_));
    const Answer got = next.answer();
    ASSERT_TRUE(got.is_ok()) << got.line();
    for (const char* again : {"1000000/2/0", "1000001/2/1", "1000002/2/2", "1000003/2/3"}) {
        EXPECT_NE(got.text("got").find(again), std::string::npos) << again << ": " << got.line();
    }
    EXPECT_TRUE(second_.answer().is_ok()) << "the credit of what was acknowledged";
    const EnvironmentStats after = only_environment();
    EXPECT_EQ(after.waiting_groups, 0U);
    EXPECT_EQ(after.running_groups, 1U);
    EXPECT_EQ(inspect_trajectories(segment_).queue.stats.held_bytes, 0U);
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    return run_tests(argc, argv,
                     {{kBroadcastRole, play_broadcast_actor},
                      {kStoreRole, play_store_actor},
                      {kTrajectoryRole, play_trajectory_actor}});
}

// Environments and trainers in PID namespaces of their own, each of them process 1 there: a death
// in one is noticed in the others, which go on with what the dead one held, and with its groups.
#include <gtest/gtest.h>

#include "tests/support/isolation.hpp"
#include "tests/support/premises.hpp"
#include "tests/support/trajectory_actor.hpp"

namespace penstock::trust {
namespace {

class TrajectoryNamespaces : public testing::Test {
protected:
    static constexpr std::int64_t kPromptly = 1'000'000'000;  // ns; 100 ms is the crash walk's

    void SetUp() override {
        flags_ = isolation_flags();
        if (!flags_) GTEST_SKIP() << "PID namespaces are not permitted here";
        segment_ = premises_.name();
    }
    Actor start(const std::string& name) {
        const std::string number = std::to_string(++started_);
        return start_isolated(name, kTrajectoryRole, *flags_, {number});
    }
    Actor start_trainer(const std::string& name) {
        Actor trainer = start(name);
        trainer.must("train " + segment_ + " 5000");
        return trainer;
    }

    // The whole window is begun by the first writer, and the second one sleeps for want of credit.
    void start_everybody() {
        first_ = start("the first writer");
        second_ = start("the second writer");
        first_.must("create " + segment_ + " maths");
        second_.must("write " + segment_ + " maths 5000");
        trainer_ = start_trainer("the trainer");
        first_.must("begin " + std::to_string(kWindowGroups) + " 5000");
        second_.park("begin 1 20000");
    }
    static void kill(Actor& actor) {
        actor.process().kill();
        ASSERT_TRUE(actor.process().wait(kPatience).has_value());
    }
    [[nodiscard]] EnvironmentStats only_environment() const {
        const auto all = inspect_trajectories(segment_).trajectories.environments;
        EXPECT_EQ(all.size(), 1U);
        return all.empty() ? EnvironmentStats() : all[0];
    }

    Premises premises_{"trajns"};
    std::optional<int> flags_;
    std::string segment_;
    std::uint64_t started_ = 0;
    Actor first_;
    Actor second_;
    Actor trainer_;
};

TEST_F(TrajectoryNamespaces, NobodyIsTakenForDeadAndAStoppedOneKeepsItsCredit) {
    ASSERT_NO_FATAL_FAILURE(start_everybody());
    EXPECT_EQ(only_environment().writers, 2U);
    for (const Participant& who : inspect_trajectories(segment_).queue.segment.participants) {
        EXPECT_EQ(who.pid, 1U) << who.role;
        EXPECT_TRUE(who.alive) << who.role;
    }
    first_.process().stop();
    Actor third = start("the third writer");
    third.must("write " + segment_ + " maths 5000");
    EXPECT_EQ(third.ask("begin 1 300").outcome, "Timeout");
    EXPECT_EQ(only_environment().running_groups, kWindowGroups);
    first_.process().resume();
    first_.must("release");
    EXPECT_TRUE(second_.answer().is_ok());
}

TEST_F(TrajectoryNamespaces, TheCreditOfADeadWriterIsFreeAndItsGroupsStay) {
    ASSERT_NO_FATAL_FAILURE(start_everybody());
    first_.must("put 3 8 5000");
    ASSERT_NO_FATAL_FAILURE(kill(first_));
    const std::int64_t death = os::monotonic_ns();
    const Answer granted = second_.answer();
    EXPECT_TRUE(granted.is_ok()) << granted.line();
    EXPECT_LT(granted.number("t") - death, kPromptly);
    // Three wait and one was granted just now: the rest of the window is free, and no more.
    EXPECT_EQ(second_.ask("begin 100 0").number("begun"),
              static_cast<std::int64_t>(kWindowGroups - 3));
    second_.must("put 1 8 5000");
    EXPECT_EQ(trainer_.must("recv 1 5000").text("got"),
              "1000000/1/0,1000001/1/1,1000002/1/2,2000000/1/3");
    EXPECT_EQ(only_environment().waiting_groups, 0U);
}

TEST_F(TrajectoryNamespaces, WhatADeadTrainerHeldComesToTheNextAndSaysSo) {
    ASSERT_NO_FATAL_FAILURE(start_everybody());
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
    constexpr Role kRoles[] = {{kTrajectoryRole, play_trajectory_actor},
                               {"isolation-probe", play_isolation_probe}};
    if (const auto code = play_role(argc, argv, kRoles)) return *code;
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}

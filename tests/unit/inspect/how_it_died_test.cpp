// How participants died, as an inspection tells it: of the dead that are not reaped yet, and of
// those that were reaped, until another joins in their place. The same for every concept.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>

#include "penstock/segment.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/concepts.hpp"
#include "tests/unit/support/endings.hpp"
#include "tests/unit/support/names.hpp"

namespace penstock {
namespace {

using test::Child;
using test::Concept;
using test::Gate;

class HowItDiedTest : public test::CleanTest,
                      public ::testing::WithParamInterface<std::tuple<Concept, bool>> {
protected:
    HowItDiedTest() : creator_(is_.create(name_)) {}
    void TearDown() override {
        creator_.reset();
        CleanTest::TearDown();
    }

    // Attaches, and ends when it is let go: by SIGSEGV, or with exit code 3.
    [[nodiscard]] auto attaching() const {
        return [this] {
            const std::shared_ptr<void> handle = is_.attach(name_);
            attached_.open();
            may_end_.pass();
            if (is_killed_) test::die_by(SIGSEGV);
            ::_exit(3);
        };
    }
    void expect_named(const Participant& dead, pid_t pid) const {
        EXPECT_EQ(dead.slot, 1U);
        EXPECT_EQ(dead.role, "participant 1");
        EXPECT_EQ(dead.pid, static_cast<std::uint32_t>(pid));
        EXPECT_EQ(dead.process, "penstock_unit_tests");
        EXPECT_FALSE(dead.alive);
        EXPECT_EQ(dead.signal, is_killed_ ? std::optional(SIGSEGV) : std::nullopt);
        EXPECT_EQ(dead.exit_code, is_killed_ ? std::nullopt : std::optional(3));
        EXPECT_EQ(dead.how_it_died, is_killed_ ? "killed by signal 11 (SIGSEGV)"
                                               : "ended with exit code 3 without closing");
    }

    const Concept is_ = std::get<0>(GetParam());
    const bool is_killed_ = std::get<1>(GetParam());
    const std::string name_ = new_name();
    std::shared_ptr<void> creator_;
    const Gate attached_;
    const Gate may_end_;
};

TEST_P(HowItDiedTest, IsToldBeforeAndAfterTheDeadIsReaped) {
    Child child(attaching());
    attached_.pass();
    EXPECT_EQ(inspect_segment(name_).participants.at(1).how_it_died, "");
    const pid_t pid = child.pid();
    may_end_.open();
    child.await_end();
    SegmentSummary seen = inspect_segment(name_);
    ASSERT_EQ(seen.participants.size(), 2U);
    expect_named(seen.participants[1], pid);
    EXPECT_TRUE(seen.reaped.empty());
    is_.look(creator_.get());
    child.wait();
    seen = inspect_segment(name_);
    EXPECT_EQ(seen.participants.size(), 1U);
    ASSERT_EQ(seen.reaped.size(), 1U);
    expect_named(seen.reaped[0], pid);
    const std::shared_ptr<void> successor = is_.attach(name_);
    EXPECT_TRUE(inspect_segment(name_).reaped.empty());
}

TEST_P(HowItDiedTest, IsUnknownIfItsParentWasFaster) {
    Child child(attaching());
    attached_.pass();
    const auto pid = static_cast<std::uint32_t>(child.pid());
    may_end_.open();
    child.wait();
    is_.look(creator_.get());
    const SegmentSummary seen = inspect_segment(name_);
    ASSERT_EQ(seen.reaped.size(), 1U);
    EXPECT_EQ(seen.reaped[0].pid, pid);
    EXPECT_FALSE(seen.reaped[0].signal || seen.reaped[0].exit_code);
    EXPECT_EQ(seen.reaped[0].how_it_died,
              "how it ended is not known here: its exit status had been collected before a "
              "participant looked");
}

TEST_P(HowItDiedTest, ALeaveInGoodOrderIsNoDeath) {
    Child child([&] { is_.attach(name_); });
    EXPECT_EQ(child.wait(), 0);
    is_.look(creator_.get());
    EXPECT_TRUE(inspect_segment(name_).reaped.empty());
}

INSTANTIATE_TEST_SUITE_P(Concepts, HowItDiedTest,
                         ::testing::Combine(::testing::ValuesIn(test::concepts()),
                                            ::testing::Bool()),
                         [](const auto& given) {
                             return std::get<0>(given.param).name +
                                    (std::get<1>(given.param) ? "Killed" : "Exited");
                         });

}  // namespace
}  // namespace penstock

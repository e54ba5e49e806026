// Crash points: a process dies or stops at the n-th passing of the armed point, and at no other.
// Test builds only.
#include "os/crash_point.hpp"

#ifdef PENSTOCK_CRASH_POINTS

#include <gtest/gtest.h>
#include <signal.h>

#include <string>
#include <vector>

#include "tests/unit/support/child.hpp"

namespace penstock::os {
namespace {

using test::Child;
using test::killed_by;
using test::require;
using test::Shared;

TEST(CrashPointTest, KillsAtTheNthPassing) {
    const Shared<int> passed;
    Child child([&] {
        arm_crash_point("test.here:3:kill");
        for (int i = 0; i < 10; ++i) {
            pass_crash_point("test.elsewhere");
            pass_crash_point("test.here");
            ++*passed;
        }
    });
    EXPECT_EQ(child.wait(), killed_by(SIGKILL));
    EXPECT_EQ(*passed, 2);
}

TEST(CrashPointTest, StopsOnceAndGoesOn) {
    const Shared<int> passed;
    Child child([&] {
        arm_crash_point("test.here:1:stop");
        for (int i = 0; i < 10; ++i) {
            pass_crash_point("test.here");
            ++*passed;
        }
    });
    siginfo_t info{};
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child.pid()), &info, WSTOPPED), 0);
    EXPECT_EQ(*passed, 0);
    child.resume();
    EXPECT_EQ(child.wait(), 0);
    EXPECT_EQ(*passed, 10);
}

TEST(CrashPointTest, IsDisarmedByNull) {
    Child child([] {
        arm_crash_point("test.here:1:kill");
        arm_crash_point(nullptr);
        pass_crash_point("test.here");
        arm_crash_point("nonsense");
        pass_crash_point("nonsense");
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST(CrashPointTest, TracesWhatIsPassedInOrder) {
    pass_crash_point("test.before");
    start_crash_trace();
    pass_crash_point("test.first");
    pass_crash_point("test.second");
    pass_crash_point("test.first");
    EXPECT_EQ(take_crash_trace(),
              (std::vector<std::string>{"test.first", "test.second", "test.first"}));
    pass_crash_point("test.after");
    EXPECT_TRUE(take_crash_trace().empty());
}

TEST(CrashPointTest, CountsAnewWhenArmedAgain) {
    Child child([] {
        arm_crash_point("test.here:2:kill");
        pass_crash_point("test.here");
        arm_crash_point("test.here:2:kill");
        pass_crash_point("test.here");
        require(true);
    });
    EXPECT_EQ(child.wait(), 0);
}

}  // namespace
}  // namespace penstock::os

#endif

// Processors: where a thread runs, and that it can leave for another one.
#include "os/processor.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <thread>

#include "tests/unit/support/child.hpp"

namespace penstock::os {
namespace {

using test::Child;
using test::require;

constexpr int kCannotChoose = 77;  // the exit code of a child

cpu_set_t allowed_processors() {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    require(::sched_getaffinity(0, sizeof allowed, &allowed) == 0);
    return allowed;
}

// Pins the calling thread to the first processor that it may run on.
void pin_to_first() {
    const cpu_set_t allowed = allowed_processors();
    std::uint32_t first = 0;
    while (!CPU_ISSET(first, &allowed)) ++first;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    require(::sched_setaffinity(0, sizeof one, &one) == 0);
    require(current_processor() == first);
}

TEST(ProcessorTest, CountsThoseOfTheMachineNotOfTheAffinity) {
    EXPECT_EQ(online_processors(), static_cast<unsigned>(::sysconf(_SC_NPROCESSORS_ONLN)));
    Child child([] {
        const unsigned before = online_processors();
        pin_to_first();
        require(online_processors() == before);
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST(ProcessorTest, APinnedThreadCanNotStepAside) {
    Child child([] {
        pin_to_first();
        const std::uint32_t before = current_processor();
        require(!step_aside());
        require(current_processor() == before);
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST(ProcessorTest, SteppingAsideKeepsAPinToSeveralProcessors) {
    const cpu_set_t before = allowed_processors();
    if (CPU_COUNT(&before) < 3) GTEST_SKIP() << "three processors are needed";
    Child child([&] {
        cpu_set_t pinned = before;
        CPU_CLR(current_processor(), &pinned);
        require(::sched_setaffinity(0, sizeof pinned, &pinned) == 0);
        require(step_aside());
        const cpu_set_t after = allowed_processors();
        require(CPU_EQUAL(&pinned, &after) != 0);
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST(ProcessorTest, SteppingAsideMovesTheThreadAndKeepsItsAffinity) {
    const cpu_set_t before = allowed_processors();
    if (CPU_COUNT(&before) < 2) GTEST_SKIP() << "one processor is allowed here";
    // The scheduler may move the thread back before it is asked where it runs.
    bool has_moved = false;
    for (int attempt = 0; attempt < 1'000 && !has_moved; ++attempt) {
        const std::uint32_t here = current_processor();
        ASSERT_TRUE(step_aside());
        has_moved = current_processor() != here;
        const cpu_set_t after = allowed_processors();
        ASSERT_TRUE(CPU_EQUAL(&before, &after));
    }
    EXPECT_TRUE(has_moved);
}

TEST(ProcessorTest, AThreadLeavesTheScheduleOfItsCreator) {
    const cpu_set_t before = allowed_processors();
    Child child([&] {
        const sched_param ordinary{};
        if (::sched_setscheduler(0, SCHED_BATCH, &ordinary) != 0) ::_exit(kCannotChoose);
        pin_to_first();
        std::thread heir([&] {
            require(::sched_getscheduler(0) == SCHED_BATCH);
            leave_inherited_schedule();
            require(::sched_getscheduler(0) == SCHED_OTHER);
            const cpu_set_t after = allowed_processors();
            require(CPU_EQUAL(&before, &after) != 0);
        });
        heir.join();
        const cpu_set_t own = allowed_processors();
        require(CPU_COUNT(&own) == 1 && ::sched_getscheduler(0) == SCHED_BATCH);
    });
    const int outcome = child.wait();
    if (outcome == kCannotChoose) GTEST_SKIP() << "the policy can't be chosen here";
    EXPECT_EQ(outcome, 0);
}

}  // namespace
}  // namespace penstock::os

// Ends of processes: of own children and of strangers, before and after they are reaped; and what
// can't be known is said to be unknown.
#include "os/process_end.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include "os/process.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/endings.hpp"
#include "tests/unit/support/refused_calls.hpp"

namespace penstock::os {
namespace {

using namespace std::chrono_literals;
using test::Child;
using test::Gate;
using test::require;
using test::Shared;
using test::Victim;
using How = ProcessEnd::How;
using Why = ProcessEnd::Why;

constexpr ProcessEnd exited(std::uint8_t code) {
    return {How::Exited, code, Why::Gone};
}
constexpr ProcessEnd killed(std::uint8_t signal) {
    return {How::Killed, signal, Why::Gone};
}
constexpr ProcessEnd unknown(Why why) {
    return {How::Unknown, 0, why};
}

ProcessEnd end_seen(const Victim& victim, std::chrono::milliseconds patience = 0ms,
                    Calls calls = Calls::All) {
    return end_of(victim.pid(), victim.pid_namespace(), victim.start_time(), patience, calls);
}

// As the watcher holds one.
class Pidfd {
public:
    explicit Pidfd(std::uint32_t pid)
        : number_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))) {
        require(number_ >= 0);
    }
    Pidfd(const Pidfd&) = delete;
    Pidfd& operator=(const Pidfd&) = delete;
    ~Pidfd() { ::close(number_); }
    [[nodiscard]] int number() const { return number_; }

private:
    const int number_;
};

struct Ending {
    const char* name;
    std::function<void()> last_act;
    ProcessEnd end;
    int as_waited;  // what Child::wait() returns
};

const Ending kEndings[] = {
    {"ExitCode0", [] { ::_exit(0); }, exited(0), 0},
    {"ExitCode3", [] { ::_exit(3); }, exited(3), 3},
    {"ExitCode255", [] { ::_exit(255); }, exited(255), 255},
    {"Kill", [] { test::die_by(SIGKILL); }, killed(SIGKILL), test::killed_by(SIGKILL)},
    {"Segv", [] { test::die_by(SIGSEGV); }, killed(SIGSEGV), test::killed_by(SIGSEGV)},
    {"Abort", [] { test::die_by(SIGABRT); }, killed(SIGABRT), test::killed_by(SIGABRT)},
};

class ProcessEndTest : public ::testing::TestWithParam<Ending> {};

TEST_P(ProcessEndTest, OfAChildThatIsNotReapedAndIsLeftToItsParent) {
    Victim victim(GetParam().last_act);
    victim.end_unreaped();
    EXPECT_EQ(end_seen(victim), GetParam().end);
    EXPECT_EQ(end_seen(victim), GetParam().end) << "again: it was not reaped";
    EXPECT_EQ(victim.wait(), GetParam().as_waited);
    EXPECT_EQ(end_seen(victim), unknown(Why::Gone));
}

TEST_P(ProcessEndTest, ByAPidfdThatWasOpenedInTime) {
    Victim victim(GetParam().last_act);
    const Pidfd early(victim.pid());
    victim.end_unreaped();
    const Pidfd late(victim.pid());
    EXPECT_EQ(end_by(early.number(), victim.pid()), GetParam().end);
    EXPECT_EQ(victim.wait(), GetParam().as_waited);
    const ProcessEnd expected = test::tells_of_reaped() ? GetParam().end : unknown(Why::Gone);
    EXPECT_EQ(end_by(early.number(), victim.pid()), expected);
    EXPECT_EQ(end_by(late.number(), victim.pid()), expected);
}

// The parent is another child of this process: the victim is a stranger.
TEST_P(ProcessEndTest, OfAStranger) {
    struct Facts {
        std::uint32_t pid;
        std::uint64_t pid_namespace;
        std::uint64_t start_time;
    };
    const Shared<Facts> facts;
    const Gate is_there;
    const Gate may_end;
    const Gate has_ended;
    const Gate may_reap;
    Child parent([&] {
        Victim victim(GetParam().last_act);
        *facts = {victim.pid(), victim.pid_namespace(), victim.start_time()};
        is_there.open();
        may_end.pass();
        victim.end_unreaped();
        has_ended.open();
        may_reap.pass();
        require(victim.wait() == GetParam().as_waited);
    });
    is_there.pass();
    const auto [pid, pid_namespace, start_time] = *facts;
    const Pidfd held(pid);
    may_end.open();
    has_ended.pass();
    EXPECT_EQ(end_of(pid, pid_namespace, start_time, 0ms), GetParam().end);
    EXPECT_EQ(end_by(held.number(), pid), GetParam().end);
    may_reap.open();
    EXPECT_EQ(parent.wait(), 0);
    EXPECT_EQ(end_of(pid, pid_namespace, start_time, 0ms), unknown(Why::Gone));
    EXPECT_EQ(end_by(held.number(), pid),
              test::tells_of_reaped() ? GetParam().end : unknown(Why::Gone));
}

INSTANTIATE_TEST_SUITE_P(Endings, ProcessEndTest, ::testing::ValuesIn(kEndings),
                         [](const auto& given) { return std::string(given.param.name); });

TEST(ProcessEndsTest, ALivingProcessIsRunning) {
    Victim victim([] {});
    EXPECT_EQ(end_seen(victim), unknown(Why::Running));
    const ProcessIdentity self = identify_self();
    EXPECT_EQ(end_of(self.pid, self.pid_namespace, self.start_time, 1h), unknown(Why::Running))
        << "at once";
}

TEST(ProcessEndsTest, AnEndingProcessIsWaitedFor) {
    Victim victim([] { ::_exit(3); });
    std::jthread late([&] { victim.let_end(); });
    EXPECT_EQ(end_seen(victim, 30s), exited(3));
}

TEST(ProcessEndsTest, AnotherProcessOfThatNumberIsNotMistakenForIt) {
    Victim victim([] { ::_exit(3); });
    const auto forged = [&] {
        return end_of(victim.pid(), victim.pid_namespace(), victim.start_time() + 1, 0ms);
    };
    EXPECT_EQ(forged(), unknown(Why::Gone));
    victim.end_unreaped();
    EXPECT_EQ(forged(), unknown(Why::Gone));
    EXPECT_EQ(end_of(victim.pid(), victim.pid_namespace(), 0, 0ms), unknown(Why::Elsewhere));
    EXPECT_EQ(end_seen(victim), exited(3));
}

TEST(ProcessEndsTest, ANumberOfAnotherPidNamespaceIsNotLookedUp) {
    Victim victim([] { ::_exit(3); });
    victim.end_unreaped();
    for (const std::uint64_t elsewhere : {victim.pid_namespace() + 1, std::uint64_t{0}}) {
        EXPECT_EQ(end_of(victim.pid(), elsewhere, victim.start_time(), 0ms),
                  unknown(Why::Elsewhere));
    }
}

TEST(ProcessEndsTest, ImpossibleNumbersAreUnknown) {
    const ProcessIdentity self = identify_self();
    for (const std::uint32_t pid : {0U, ~0U, 1U << 31U, (1U << 22U) + 1}) {
        EXPECT_FALSE(end_of(pid, self.pid_namespace, self.start_time, 0ms).is_known()) << pid;
    }
}

// The kernel shows a process as a zombie when its first thread has ended, and with that thread's
// exit code.
TEST(ProcessEndsTest, AProcessWhoseFirstThreadHasEndedIsRunning) {
    const Gate may_exit;
    Victim victim([&] {
        std::thread([&] {
            may_exit.pass();
            ::_exit(3);
        }).detach();
        ::syscall(SYS_exit, 7);
    });
    victim.let_end();
    test::await([&] {
        std::ifstream file("/proc/" + std::to_string(victim.pid()) + "/stat");
        std::string text;
        std::getline(file, text);
        return text.find(") Z ") != std::string::npos;
    });
    EXPECT_EQ(end_seen(victim), unknown(Why::Running));
    may_exit.open();
    EXPECT_EQ(end_seen(victim, 30s), exited(3));
    EXPECT_EQ(victim.wait(), 3);
}

// Of another user's processes /proc shows exit code 0.
TEST(ProcessEndsTest, OfAnotherUsersProcess) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become another user";
    for (const int code : {0, 3}) {
        Victim victim([code] { ::_exit(code); });
        victim.end_unreaped();
        Child other([&] {
            constexpr uid_t kNobody = 65534;
            require(::setuid(kNobody) == 0 && ::prctl(PR_SET_DUMPABLE, 1) == 0);
            require(end_seen(victim) == unknown(Why::Hidden));
        });
        EXPECT_EQ(other.wait(), 0);
    }
}

TEST(ProcessEndsTest, WithoutPidfds) {
    for (const auto& [last_act, end] :
         {std::pair<void (*)(), ProcessEnd>{[] { ::_exit(0); }, exited(0)},
          std::pair<void (*)(), ProcessEnd>{[] { test::die_by(SIGKILL); }, killed(SIGKILL)}}) {
        Victim victim(last_act);
        Child other([&] {
            if (!test::refuse_calls({{SYS_pidfd_open, ENOSYS, 0, 0, 0}})) {
                ::_exit(test::kCannotRefuse);
            }
            require(end_seen(victim) == unknown(Why::Running));
            victim.let_end();
            test::await([&] { return end_seen(victim).is_known(); });
            require(end_seen(victim) == end);
        });
        const int outcome = other.wait();
        if (outcome == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
        EXPECT_EQ(outcome, 0);
    }
}

// Under a filter that kills, one other call would be the end.
TEST(ProcessEndsTest, ByFilesAlone) {
    Victim victim([] { ::_exit(3); });
    Child other([&] {
        if (!test::filter_calls({{SYS_pidfd_open, 0, 0, 0, 0},
                                 {SYS_pidfd_send_signal, 0, 0, 0, 0},
                                 {SYS_waitid, 0, 0, 0, 0},
                                 {SYS_ioctl, 0, 0, 0, 0}},
                                SECCOMP_RET_KILL_PROCESS)) {
            ::_exit(test::kCannotRefuse);
        }
        require(end_seen(victim, 1h, Calls::Files) == unknown(Why::Running));
        victim.let_end();
        test::await([&] { return end_seen(victim, 1h, Calls::Files) == exited(3); });
    });
    const int outcome = other.wait();
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
    EXPECT_EQ(victim.wait(), 3);
    EXPECT_EQ(end_seen(victim, 0ms, Calls::Files), unknown(Why::Gone));
}

TEST(ProcessEndsTest, SignalsHaveNames) {
    EXPECT_EQ(signal_name(SIGKILL), "SIGKILL");
    EXPECT_EQ(signal_name(SIGSEGV), "SIGSEGV");
    EXPECT_EQ(signal_name(SIGTERM), "SIGTERM");
    EXPECT_EQ(signal_name(0), "");
    EXPECT_EQ(signal_name(SIGRTMIN + 3), "");
}

}  // namespace
}  // namespace penstock::os

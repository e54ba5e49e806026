// GoogleTest programs whose processes have their own namespaces, where the machine allows that.
#pragma once

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>

#include <optional>
#include <string>
#include <vector>

#include "penstock/segment.hpp"
#include "tests/support/premises.hpp"
#include "tests/support/talk.hpp"

namespace penstock::trust {

// ns; the bound of 100 ms is the crash walk's.
inline constexpr std::int64_t kPromptly = 1'000'000'000;

// Makes this process's mounts private, and mounts the /proc of its PID namespace.
inline bool mount_own_proc() noexcept {
    return ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
           ::mount("proc", "/proc", "proc", 0, nullptr) == 0;
}

inline constexpr const char* kProbeRole = "isolation-probe";

// Returns 0 if this process is pid 1 and sees itself in /proc.
inline int play_isolation_probe(const Words&) {
    return ::getpid() == 1 && ::access("/proc/1/stat", R_OK) == 0 ? 0 : 1;
}

// The flags that isolate a process, with a user namespace where only that is allowed; empty where
// neither is.
inline std::optional<int> isolation_flags() {
    for (const int flags :
         {CLONE_NEWPID | CLONE_NEWNS, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUSER}) {
        try {
            Process probe = Process::start(kProbeRole, {}, {flags, mount_own_proc});
            const auto ending = probe.wait(kPatience);
            if (ending && ending->is_success()) return flags;
        } catch (const std::system_error&) {  // not permitted: try the next
        }
    }
    return std::nullopt;
}

// A fixture for one segment, used by processes that are process 1 of their own PID namespaces.
class IsolatedTest : public testing::Test {
protected:
    void SetUp() override {
        flags_ = isolation_flags();
        if (!flags_) GTEST_SKIP() << "PID namespaces are not permitted here";
    }
    // Starts a process as `unshare -pf --mount-proc` does.
    Actor start(const std::string& name, const std::string& role, const Words& arguments = {}) {
        return Actor(name, Process::start(role, arguments, {flags_.value(), mount_own_proc}));
    }
    void kill(Actor& actor) {
        actor.process().kill();
        ASSERT_TRUE(actor.process().wait(kPatience).has_value());
        death_ = os::monotonic_ns();
    }
    // The answer to the death came promptly.
    void expect_prompt(const Answer& answer) const {
        EXPECT_TRUE(answer.is_ok()) << answer.line();
        EXPECT_LT(answer.number("t") - death_, kPromptly) << answer.line();
    }
    static void expect_process_one(const std::vector<Participant>& participants) {
        EXPECT_FALSE(participants.empty());
        for (const Participant& one : participants) {
            EXPECT_EQ(one.pid, 1U) << one.role;
            EXPECT_TRUE(one.alive) << one.role;
        }
    }

    Premises premises_{"pidns"};
    std::string segment_ = premises_.name();

private:
    std::optional<int> flags_;
    std::int64_t death_ = 0;
};

// main() of such a program, with the roles of its processes.
inline int run_tests(int argc, char** argv, std::vector<Role> roles) {
    ::signal(SIGPIPE, SIG_IGN);
    roles.push_back({kProbeRole, play_isolation_probe});
    if (const auto code = play_role(argc, argv, roles)) return *code;
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}

}  // namespace penstock::trust

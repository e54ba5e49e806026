// Processes in PID and mount namespaces of their own, where the machine allows that.
#pragma once

#include <sched.h>
#include <sys/mount.h>

#include <cstring>
#include <optional>
#include <string>

#include "tests/support/talk.hpp"

namespace penstock::trust {

// Makes this process's mounts its own, and shows it the processes of its PID namespace in /proc.
inline bool mount_own_proc() noexcept {
    return ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
           ::mount("proc", "/proc", "proc", 0, nullptr) == 0;
}

// The flags for start_isolated(): with a user namespace where only that is allowed. Nothing:
// neither.
inline std::optional<int> isolation_flags() {
    for (const int flags :
         {CLONE_NEWPID | CLONE_NEWNS, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUSER}) {
        try {
            Process probe = Process::start("isolation-probe", {}, {flags, mount_own_proc});
            const auto ending = probe.wait(kPatience);
            if (ending && ending->is_success()) return flags;
        } catch (const std::system_error&) {  // not permitted: try the next
        }
    }
    return std::nullopt;
}

// 0: we are pid 1 and see ourselves in /proc.
inline int play_isolation_probe(const Words&) {
    return ::getpid() == 1 && ::access("/proc/1/stat", R_OK) == 0 ? 0 : 1;
}

// Like `unshare -pf --mount-proc`: the process is pid 1 of its own PID namespace.
inline Actor start_isolated(const std::string& name, const std::string& role, int flags,
                            const Words& arguments = {}) {
    return Actor(name, Process::start(role, arguments, {flags, mount_own_proc}));
}

}  // namespace penstock::trust

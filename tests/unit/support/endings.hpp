// Ways in which child processes end, and what this machine's kernel tells of them.
#pragma once

#include <signal.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <utility>

#include "os/process.hpp"
#include "tests/unit/support/child.hpp"

namespace penstock::test {

// Whether a pidfd tells how a process ended that was reaped since (Linux 6.15).
inline bool tells_of_reaped() {
    utsname system{};
    if (::uname(&system) != 0) return false;
    char* end = nullptr;
    const long major = std::strtol(system.release, &end, 10);
    const long minor = *end == '.' ? std::strtol(end + 1, nullptr, 10) : 0;
    return std::pair(major, minor) >= std::pair(6L, 15L);
}

// Without a core file, and without a sanitizer's handler.
[[noreturn]] inline void die_by(int signal) {
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    ::signal(signal, SIG_DFL);
    ::raise(signal);
    ::_exit(1);
}

// A child that waits for end(), and then ends in a certain way.
class Victim {
public:
    explicit Victim(const std::function<void()>& last_act)
        : child_([&] {
              const os::ProcessIdentity self = os::identify_self();
              *identity_ = {self.pid_namespace, self.start_time};
              ready_.open();
              may_end_.pass();
              last_act();
          }),
          pid_(static_cast<std::uint32_t>(child_.pid())) {
        ready_.pass();
    }

    [[nodiscard]] std::uint32_t pid() const { return pid_; }
    [[nodiscard]] std::uint64_t pid_namespace() const { return identity_->pid_namespace; }
    [[nodiscard]] std::uint64_t start_time() const { return identity_->start_time; }
    void let_end() const { may_end_.open(); }
    // Returns when it is a zombie.
    void end_unreaped() const {
        let_end();
        child_.await_end();
    }
    // Reaps it; as Child::wait().
    int wait() { return child_.wait(); }

private:
    struct Identity {
        std::uint64_t pid_namespace;
        std::uint64_t start_time;
    };
    const Shared<Identity> identity_;
    const Gate ready_;
    const Gate may_end_;
    Child child_;
    const std::uint32_t pid_;  // also once it is reaped
};

}  // namespace penstock::test

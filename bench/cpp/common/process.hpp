// The processes of a benchmark: forked, pinned to a core, and never left behind. A child dies with
// its parent, and a child that fails ends the whole run instead of leaving it waiting.
#pragma once

#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <utility>
#include <vector>

#include "bench/cpp/common/failure.hpp"

namespace penstock::bench {

// The cores that this process may run on, as at the start of the run.
inline const std::vector<unsigned>& cores() {
    static const std::vector<unsigned> allowed = [] {
        cpu_set_t set;
        CPU_ZERO(&set);
        require(sched_getaffinity(0, sizeof(set), &set) == 0, "sched_getaffinity failed");
        std::vector<unsigned> found;
        for (unsigned core = 0; core < CPU_SETSIZE; ++core) {
            if (CPU_ISSET(core, &set)) {
                found.push_back(core);
            }
        }
        return found;
    }();
    return allowed;
}

inline void pin_to(unsigned core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    require(sched_setaffinity(0, sizeof(set), &set) == 0, "sched_setaffinity failed");
}

// Called before making processes or threads that may use all cores again.
inline void unpin() {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const unsigned core : cores()) {
        CPU_SET(core, &set);
    }
    require(sched_setaffinity(0, sizeof(set), &set) == 0, "sched_setaffinity failed");
}

// The driver has the first core to itself; readers share the others in turn.
inline void pin_driver() {
    pin_to(cores().front());
}
inline void pin_reader(unsigned rank) {
    const auto& all = cores();
    pin_to(all.size() == 1 ? all.front() : all[1 + rank % (all.size() - 1)]);
}

// Whether every process has its own core: only then may a contender wait by spinning alone.
inline bool has_core_each(unsigned readers) {
    return readers + 1 <= cores().size();
}

class Child {
public:
    template <typename Body>
    explicit Child(Body&& body) {
        std::fflush(nullptr);
        const pid_t parent = getpid();
        pid_ = fork();
        require(pid_ >= 0, "fork failed");
        if (pid_ == 0) {
            run(parent, std::forward<Body>(body));
        }
    }
    Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
    Child& operator=(Child&& other) = delete;
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() {
        if (pid_ > 0) {
            kill_now();
        }
    }

    [[nodiscard]] pid_t pid() const noexcept { return pid_; }

    void kill_now() {
        kill(pid_, SIGKILL);
        waitpid(std::exchange(pid_, -1), nullptr, 0);
    }

    // For a child that ends by itself.
    void join() {
        int status = 0;
        waitpid(std::exchange(pid_, -1), &status, 0);
        require(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child failed");
    }

private:
    template <typename Body>
    [[noreturn]] static void run(pid_t parent, Body&& body) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        std::signal(SIGCHLD, SIG_DFL);
        if (getppid() != parent) {
            _exit(0);
        }
        try {
            body();
        } catch (const std::exception& error) {
            fail(error.what());
        }
        std::fflush(nullptr);
        _exit(0);
    }

    pid_t pid_ = -1;
};

// From now on a failing child ends this process: a contender that cannot detect a death would
// otherwise wait for it for ever.
inline void fail_when_a_child_fails() {
    std::signal(SIGCHLD, [](int) {
        siginfo_t info{};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0 &&
            (info.si_code != CLD_EXITED || info.si_status != 0)) {
            _exit(4);
        }
    });
}

}  // namespace penstock::bench

// The guardian: a parent that only waits for the benchmark process and then removes every name that
// the run may have left, however it ended. Names carry the guardian's process id.
#pragma once

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <string>
#include <system_error>

#include "bench/cpp/common/failure.hpp"

namespace penstock::bench {

inline std::string& run_prefix() {
    static std::string prefix;
    return prefix;
}

// An unused name for a segment or a queue of this run.
inline std::string new_name() {
    static unsigned counter = 0;
    return run_prefix() + std::to_string(counter++);
}

inline void sweep_names() {
    const std::filesystem::path folder = "/dev/shm";
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
        if (entry.path().filename().string().find(run_prefix()) != std::string::npos) {
            std::filesystem::remove(entry.path(), ignored);
        }
    }
}

// Runs `body` in a child, cleans up after it, and returns its exit code. No benchmark runs longer
// than `limit_seconds`.
template <typename Body>
int run_guarded(unsigned limit_seconds, Body&& body) {
    run_prefix() = "bench-" + std::to_string(getpid()) + "-";
    const pid_t guardian = getpid();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    std::fflush(nullptr);
    const pid_t worker = fork();
    if (worker == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != guardian) {
            _exit(0);
        }
        alarm(limit_seconds);
        body();
        std::fflush(nullptr);
        _exit(0);
    }
    require(worker > 0, "fork failed");
    static pid_t to_stop = 0;
    to_stop = worker;
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
        std::signal(number, [](int) { kill(to_stop, SIGKILL); });
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // if bench/run.py is killed
    // As subreaper it also waits for the worker's children, so that no name is made after the
    // cleanup.
    int outcome = 0;
    int status = 0;
    for (pid_t ended = 0; (ended = waitpid(-1, &status, 0)) > 0 || errno == EINTR;) {
        if (ended == worker) {
            outcome = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
    }
    sweep_names();
    return outcome;
}

}  // namespace penstock::bench

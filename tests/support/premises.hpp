// The names that a test uses in /dev/shm, all of them removed in the end: after a failure, and
// after the test itself was killed.
#pragma once

#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <vector>

#include "tests/support/process.hpp"

namespace penstock::trust {

inline constexpr const char* kSharedMemory = "/dev/shm";

// Files in /dev/shm that start with "penstock." and `prefix`.
inline std::vector<std::string> segments_left(const std::string& prefix) {
    std::vector<std::string> left;
    DIR* directory = ::opendir(kSharedMemory);
    if (directory == nullptr) return left;
    const std::string start = "penstock." + prefix;
    while (const dirent* entry = ::readdir(directory)) {
        const std::string name = entry->d_name;
        if (name.starts_with(start)) left.push_back(name);
    }
    ::closedir(directory);
    return left;
}

inline void sweep(const std::string& prefix) {
    for (const std::string& name : segments_left(prefix)) {
        ::unlink((std::string(kSharedMemory) + "/" + name).c_str());
    }
}

// One per test program, constructed first. Hands out names and removes them at its end. A second
// process waits for this one's end and does so if this one is killed.
class Premises {
public:
    explicit Premises(const std::string& test)
        : prefix_("trust-" + test + "-" + std::to_string(::getpid()) + "-"),
          lifeline_(Pipe::make()) {
        guardian_ = ::fork();
        if (guardian_ == 0) guard();
        lifeline_.reading.close();
    }
    Premises(const Premises&) = delete;
    Premises& operator=(const Premises&) = delete;
    ~Premises() {
        sweep(prefix_);
        lifeline_.writing.close();
        ::waitpid(guardian_, nullptr, 0);
    }

    // An unused name that is no prefix of another. Any thread.
    std::string name() { return prefix_ + std::to_string(counter_.fetch_add(1)) + "."; }
    [[nodiscard]] std::vector<std::string> left() const { return segments_left(prefix_); }

private:
    [[noreturn]] void guard() {
        ::setsid();  // Ctrl-C at the terminal is for the test
        lifeline_.writing.close();
        char byte = 0;
        while (::read(lifeline_.reading.get(), &byte, 1) < 0 && errno == EINTR) {
        }
        sweep(prefix_);
        ::_exit(0);
    }

    std::string prefix_;
    Pipe lifeline_;
    pid_t guardian_ = -1;
    std::atomic<unsigned> counter_{0};
};

}  // namespace penstock::trust

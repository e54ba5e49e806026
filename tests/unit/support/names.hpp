// Names for the segments and folders of one test run, and the promise that none outlives it: the
// fixtures fail a test that leaves something, a guardian process sweeps up after one that crashed.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

namespace penstock::test {

// Set before main() and inherited by every child: all names of a run have it.
inline const std::string run_prefix = "unit-" + std::to_string(::getpid()) + "-";

// What this run has left in the folders where it makes names.
inline std::vector<std::filesystem::path> find_left_over() {
    std::vector<std::filesystem::path> found;
    for (const auto& folder :
         {std::filesystem::path("/dev/shm"), std::filesystem::temp_directory_path()}) {
        std::error_code ignored;
        for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
            if (entry.path().filename().string().find(run_prefix) != std::string::npos) {
                found.push_back(entry.path());
            }
        }
    }
    return found;
}

inline void sweep() {
    for (const auto& path : find_left_over()) {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
}

// A process that outlives a crashed test run for as long as it takes to sweep.
class Guardian : public ::testing::Environment {
public:
    void SetUp() override {
        const pid_t guarded = ::getpid();
        guardian_ = ::fork();
        if (guardian_ == 0) watch(guarded);
    }
    void TearDown() override {
        ::kill(guardian_, SIGKILL);
        ::waitpid(guardian_, nullptr, 0);
    }

private:
    [[noreturn]] static void watch(pid_t guarded) {
        ::setsid();  // a Ctrl-C meant for the tests must not take their guardian too
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        ::sigprocmask(SIG_BLOCK, &set, nullptr);
        ::prctl(PR_SET_PDEATHSIG, SIGUSR1);
        int signal = 0;
        if (::getppid() == guarded) ::sigwait(&set, &signal);
        sweep();
        ::_exit(0);
    }

    pid_t guardian_ = -1;
};

inline ::testing::Environment* const guardian = ::testing::AddGlobalTestEnvironment(new Guardian);

// For tests that make segments. What a test leaves is removed, and is a failure of the test.
class CleanTest : public ::testing::Test {
protected:
    void TearDown() override {
        for (const auto& path : find_left_over()) {
            ADD_FAILURE() << path << " was left behind";
        }
        sweep();
    }

    // A segment name that is not in use.
    static std::string new_name() {
        static unsigned counter = 0;
        return run_prefix + std::to_string(counter++);
    }
    static std::string path_of(const std::string& name) { return "/dev/shm/penstock." + name; }
    static bool exists(const std::string& name) { return std::filesystem::exists(path_of(name)); }
};

// An empty folder, removed with all that is in it.
class TemporaryFolder {
public:
    TemporaryFolder() {
        static unsigned counter = 0;
        path_ = std::filesystem::temp_directory_path() /
                ("penstock-" + run_prefix + "folder-" + std::to_string(counter++));
        std::filesystem::create_directory(path_);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    [[nodiscard]] std::string path() const { return path_.string(); }
    [[nodiscard]] std::string operator/(const std::string& name) const {
        return (path_ / name).string();
    }
    // Names in it, also hidden ones.
    [[nodiscard]] std::vector<std::string> names() const {
        std::vector<std::string> all;
        for (const auto& entry : std::filesystem::directory_iterator(path_)) {
            all.push_back(entry.path().filename().string());
        }
        return all;
    }

private:
    std::filesystem::path path_;
};

}  // namespace penstock::test

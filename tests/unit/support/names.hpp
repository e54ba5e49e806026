// Names for the segments and folders of a test run, all removed: the fixtures fail a test that
// leaves one, and a guardian process cleans up after a crash.
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

// Set before main() and inherited by children: every name of a run begins with it.
inline const std::string run_prefix = "unit-" + std::to_string(::getpid()) + "-";

// Files of this run that are left in the folders where it makes names.
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

// A process that survives a crash of the tests and removes their files.
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
        ::setsid();  // Ctrl-C for the tests must not end the guardian too
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

// Fixture for tests that make segments: a name that is left behind is removed, and fails the test.
class CleanTest : public ::testing::Test {
protected:
    void TearDown() override {
        for (const auto& path : find_left_over()) {
            ADD_FAILURE() << path << " was left behind";
        }
        sweep();
    }

    // An unused segment name.
    static std::string new_name() {
        static unsigned counter = 0;
        return run_prefix + std::to_string(counter++);
    }
    static std::string path_of(const std::string& name) { return "/dev/shm/penstock." + name; }
    static bool exists(const std::string& name) { return std::filesystem::exists(path_of(name)); }
};

// A temporary folder, removed with its contents.
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
    // Names in it, hidden ones included.
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

// Facts about processes: identity, display names, and whether they are stopped.
#include "os/process.hpp"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "tests/unit/support/child.hpp"
#include "tests/unit/support/time_namespace.hpp"

namespace penstock::os {
namespace {

using test::Child;
using test::Gate;
using test::require;
using test::Shared;

constexpr const char* kTellName = "PENSTOCK_UNIT_TEST_TELL_NAME";

// This program, executed again under other arguments, writes its display name and exits.
const bool only_tells_name = [] {
    const char* descriptor = std::getenv(kTellName);
    if (descriptor == nullptr) return false;
    const std::string name = identify_self().name;
    const auto written = ::write(std::stoi(descriptor), name.data(), name.size());
    ::_exit(written == static_cast<ssize_t>(name.size()) ? 0 : 1);
}();

std::string name_when_called(const std::vector<const char*>& words) {
    int ends[2];
    require(::pipe(ends) == 0);
    Child child([&] {
        std::vector<char*> arguments;
        for (const char* word : words) arguments.push_back(const_cast<char*>(word));
        arguments.push_back(nullptr);
        ::setenv(kTellName, std::to_string(ends[1]).c_str(), 1);
        ::execv("/proc/self/exe", arguments.data());
    });
    const bool has_told = child.wait() == 0;
    char text[256];
    ::close(ends[1]);
    const ssize_t size = ::read(ends[0], text, sizeof text);
    ::close(ends[0]);
    return has_told && size > 0 ? std::string(text, static_cast<std::size_t>(size)) : "(nothing)";
}

TEST(ProcessTest, IdentifiesItself) {
    const ProcessIdentity self = identify_self();
    EXPECT_EQ(self.pid, static_cast<std::uint32_t>(::getpid()));
    struct stat status{};
    ASSERT_EQ(::stat("/proc/self/ns/pid", &status), 0);
    EXPECT_EQ(self.pid_namespace, status.st_ino);
    EXPECT_GT(self.start_time, 0U);
    EXPECT_EQ(identify_self().start_time, self.start_time);
    EXPECT_EQ(self.name, "penstock_unit_tests");
}

TEST(ProcessTest, IsKnownByItsScriptOrItsProgram) {
    EXPECT_EQ(name_when_called({"/usr/bin/engine", "serve"}), "engine");
    EXPECT_EQ(name_when_called({"engine"}), "engine");
    EXPECT_EQ(name_when_called({"python3", "/srv/worker.py", "--rank", "2"}), "worker.py");
    EXPECT_EQ(name_when_called({"/usr/bin/python3.11", "worker.py"}), "worker.py");
    EXPECT_EQ(name_when_called({"python3", "-c", "pass"}), "python3");
    EXPECT_EQ(name_when_called({"python3"}), "python3");
    EXPECT_EQ(name_when_called({"python3", "-m", "penstock.demo", "--fast"}), "penstock.demo");
    EXPECT_EQ(name_when_called({"python3", "-m"}), "python3");
    EXPECT_EQ(name_when_called({"my program", ""}), "my program");
}

TEST(ProcessTest, SeesAStoppedProcess) {
    struct Facts {
        std::uint64_t pid_namespace;
        std::uint64_t start_time;
    };
    const Shared<Facts> facts;
    const Gate told;
    const Gate end;
    Child child([&] {
        ::prctl(PR_SET_NAME, "a) T (b) 1 2");  // a name that misleads parsers of /proc/N/stat
        const ProcessIdentity self = identify_self();
        *facts = {self.pid_namespace, self.start_time};
        told.open();
        end.pass();
    });
    told.pass();
    const auto pid = static_cast<std::uint32_t>(child.pid());
    const auto [pid_namespace, start_time] = *facts;
    EXPECT_FALSE(is_stopped(pid, pid_namespace, start_time));
    child.stop();
    EXPECT_TRUE(is_stopped(pid, pid_namespace, start_time));
    EXPECT_FALSE(is_stopped(pid, pid_namespace, start_time + 1)) << "another process of that id";
    EXPECT_FALSE(is_stopped(pid, pid_namespace + 1, start_time)) << "an id of another namespace";
    child.resume();
    EXPECT_FALSE(is_stopped(pid, pid_namespace, start_time));
    child.kill_unreaped();
    EXPECT_FALSE(is_stopped(pid, pid_namespace, start_time));
}

TEST(ProcessTest, SeesAStoppedProcessFromAnotherTimeNamespace) {
    const Shared<ProcessIdentity> who;
    Gate known;
    Child child([&] {
        const ProcessIdentity self = identify_self();
        who->pid = self.pid;
        who->pid_namespace = self.pid_namespace;
        who->start_time = self.start_time;
        known.open();
        for (;;) ::pause();
    });
    known.pass();
    child.stop();
    const int outcome = test::run_ahead(
        100'000, [&] { require(is_stopped(who->pid, who->pid_namespace, who->start_time)); });
    if (outcome == test::kNoTimeNamespaces) GTEST_SKIP() << "no time namespaces here";
    EXPECT_EQ(outcome, 0);
}

TEST(ProcessTest, RunningAndMissingProcessesAreNotStopped) {
    const ProcessIdentity self = identify_self();
    EXPECT_FALSE(is_stopped(self.pid, self.pid_namespace, self.start_time));
    EXPECT_FALSE(is_stopped(0, self.pid_namespace, 0));
    EXPECT_FALSE(is_stopped(~std::uint32_t{0}, self.pid_namespace, 0));
}

}  // namespace
}  // namespace penstock::os

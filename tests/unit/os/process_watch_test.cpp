// Process watches: the end of a process is reported after its descriptors are closed; the
// watch has descriptors of its own; and where the system refuses it, it says so.
#include "os/process_watch.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "os/process.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/endings.hpp"
#include "tests/unit/support/refused_calls.hpp"

namespace penstock::os {
namespace {

using test::Child;
using test::Gate;
using test::require;
using test::Shared;

// A child that lives until it is killed, and its identity.
class Peer {
public:
    Peer()
        : child_([this] {
              *start_time_ = identify_self().start_time;
              ready_.open();
              for (;;) ::pause();
          }) {
        ready_.pass();
    }

    [[nodiscard]] std::uint32_t pid() const { return static_cast<std::uint32_t>(child_.pid()); }
    [[nodiscard]] std::uint64_t start_time() const { return *start_time_; }
    void kill_unreaped() const { child_.kill_unreaped(); }
    void end() {
        child_.send(SIGKILL);
        child_.wait();
    }

private:
    const Shared<std::uint64_t> start_time_;
    const Gate ready_;
    Child child_;
};

// Runs `body` in a thread that has begun to watch: with descriptors of its own, as have threads and
// children that it makes.
void watch(ProcessWatch& watch, const std::function<void()>& body) {
    std::string failure;
    std::thread thread([&] {
        try {
            require(watch.begin());
            body();
        } catch (const std::exception& error) {
            failure = error.what();
        }
    });
    thread.join();
    EXPECT_EQ(failure, "");
}

std::vector<std::uint32_t> pids_of(const std::vector<EndedProcess>& ended) {
    std::vector<std::uint32_t> pids;
    for (const EndedProcess& one : ended) pids.push_back(one.pid);
    return pids;
}

std::set<std::string> descriptors() {
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code ignored;
        found.insert(entry.path().filename().string() + " " +
                     std::filesystem::read_symlink(entry.path(), ignored).string());
    }
    return found;
}

TEST(ProcessWatchTest, ReportsEachEnd) {
    ProcessWatch processes;
    Peer first;
    Peer second;
    watch(processes, [&] {
        require(processes.add(first.pid(), first.start_time()));
        require(processes.add(second.pid(), second.start_time()));
        std::vector<EndedProcess> ended;
        const std::vector expected{second.pid()};
        second.end();
        require(processes.wait(ended) && pids_of(ended) == expected);
        first.kill_unreaped();
        require(processes.wait(ended) && pids_of(ended) == std::vector{first.pid()});
    });
}

constexpr ProcessEnd kKilled{ProcessEnd::How::Killed, SIGKILL, ProcessEnd::Why::Gone};

TEST(ProcessWatchTest, TellsHowEachProcessEnded) {
    ProcessWatch processes;
    Peer reaped;
    const Peer zombie;
    watch(processes, [&] {
        require(processes.add(reaped.pid(), reaped.start_time()));
        std::vector<EndedProcess> ended;
        reaped.end();
        require(processes.wait(ended) && ended.size() == 1);
        require(ended[0].start_time == reaped.start_time());
        require(ended[0].end == (test::tells_of_reaped() ? kKilled : ProcessEnd{}));
        require(processes.add(zombie.pid(), zombie.start_time()));
        zombie.kill_unreaped();
        require(processes.wait(ended) && ended.size() == 1);
        require(ended[0].pid == zombie.pid() && ended[0].start_time == zombie.start_time());
        require(ended[0].end == kKilled);
    });
}

// What the kernel promises of a lock that is looked at when a death is told.
TEST(ProcessWatchTest, TheDescriptorsOfAnEndedProcessAreClosed) {
    ProcessWatch processes;
    watch(processes, [&] {
        for (int i = 0; i < 20; ++i) {
            int ends[2];
            require(::pipe2(ends, O_CLOEXEC) == 0);
            Peer peer;  // has both ends
            ::close(ends[1]);
            require(processes.add(peer.pid(), peer.start_time()));
            peer.kill_unreaped();
            std::vector<EndedProcess> ended;
            require(processes.wait(ended) && ended.size() == 1);
            pollfd end{ends[0], POLLIN, 0};
            require(::poll(&end, 1, 0) == 1 && (end.revents & POLLHUP) != 0);
            ::close(ends[0]);
        }
    });
}

TEST(ProcessWatchTest, AProcessThatIsGoneOrAnotherOneIsNotWatched) {
    ProcessWatch processes;
    Peer peer;
    Peer gone;
    gone.end();
    watch(processes, [&] {
        require(!processes.add(gone.pid(), gone.start_time()));
        require(!processes.add(peer.pid(), peer.start_time() + 1));
        peer.kill_unreaped();
        require(processes.add(peer.pid(), peer.start_time()));  // a zombie
        std::vector<EndedProcess> ended;
        require(processes.wait(ended) && pids_of(ended) == std::vector{peer.pid()});
    });
}

TEST(ProcessWatchTest, ManyRaisesAreOneAndComeFromAnyThread) {
    ProcessWatch processes;
    for (int i = 0; i < 100'000; ++i) processes.raise();  // more than a pipe holds
    std::atomic<bool> has_returned{false};
    std::thread other([&] {
        has_returned.wait(false);
        processes.raise();
    });
    watch(processes, [&] {
        std::vector<EndedProcess> ended;
        require(processes.wait(ended) && ended.empty());  // all of them are read
        has_returned = true;
        has_returned.notify_one();
        require(processes.wait(ended) && ended.empty());
    });
    other.join();
}

TEST(ProcessWatchTest, ItHasOneDescriptorOfTheProgramWhichNoChildInherits) {
    const std::set<std::string> before = descriptors();
    ProcessWatch processes;
    Peer peer;
    watch(processes, [&] { require(processes.add(peer.pid(), peer.start_time())); });
    // The gate of the peer is a pipe, too: two ends.
    EXPECT_EQ(descriptors().size(), before.size() + 3);
    Child child([&] { require(descriptors().size() == before.size() + 2); });
    EXPECT_EQ(child.wait(), 0);
}

// A daemon closes everything that it finds, and a file that it has closed is closed: the other end
// of its pipe sees the end.
TEST(ProcessWatchTest, TheProgramClosesItsOwnFilesAndTheWatchesPipe) {
    Child child([] {
        ProcessWatch processes;
        int ends[2];
        require(::pipe2(ends, O_CLOEXEC) == 0);
        std::atomic<bool> has_begun{false};
        std::thread watching([&] {
            require(processes.begin());
            has_begun = true;
            has_begun.notify_one();
            std::vector<EndedProcess> ended;
            while (processes.wait(ended)) {
            }
        });
        has_begun.wait(false);
        ::close(ends[1]);
        pollfd end{ends[0], POLLIN, 0};
        require(::poll(&end, 1, 0) == 1 && (end.revents & POLLHUP) != 0);
        require(::syscall(SYS_close_range, 3, ~0U, 0) == 0);
        watching.join();
        processes.raise();  // does nothing
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST(ProcessWatchTest, ARefusedCallIsAnError) {
    for (const long number : {SYS_pidfd_open, SYS_close_range}) {
        Child child([number] {
            require(ProcessWatch::prepare());
            if (!test::refuse_calls({{number, ENOSYS, 0, 0, 0}})) ::_exit(test::kCannotRefuse);
            require(!ProcessWatch::prepare());
            try {
                ProcessWatch processes;
            } catch (const std::system_error& error) {
                require(error.code() == std::errc::function_not_supported);
                return;
            }
            require(false);
        });
        const int outcome = child.wait();
        if (outcome == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
        EXPECT_EQ(outcome, 0) << number;
    }
}

TEST(ProcessWatchTest, AtTheLimitOfDescriptorsNoMoreAreWatched) {
    Child child([] {
        ProcessWatch processes;
        std::vector<Peer> peers(8);
        const rlimit limit{6, 6};  // for the watching thread: its own two, and one to read /proc
        std::size_t watched = 0;
        std::thread watching([&] {
            require(processes.begin());
            require(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
            while (watched < peers.size() &&
                   processes.add(peers[watched].pid(), peers[watched].start_time())) {
                ++watched;
            }
            require(processes.is_short());
            std::vector<EndedProcess> ended;
            peers.front().kill_unreaped();
            require(processes.wait(ended) && pids_of(ended) == std::vector{peers.front().pid()});
            require(processes.add(peers.back().pid(), peers.back().start_time()));
            require(!processes.is_short());
        });
        watching.join();
        require(watched > 0 && watched < peers.size());
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST(ProcessWatchTest, AClosedWatchLeavesNoDescriptor) {
    const std::set<std::string> before = descriptors();
    ProcessWatch processes;
    EXPECT_EQ(descriptors().size(), before.size() + 1);
    processes.close();
    processes.raise();
    processes.close();
    EXPECT_EQ(descriptors(), before);
}

}  // namespace
}  // namespace penstock::os

// Events for event loops: readable from raise() until lower(), with any number of threads; files of
// the program under the same descriptor number are left alone.
#include "os/event_pipe.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"

namespace penstock::os {
namespace {

using test::Child;
using test::require;
using test::TemporaryFolder;

bool is_readable(int descriptor, int milliseconds = 0) {
    pollfd one{descriptor, POLLIN, 0};
    return ::poll(&one, 1, milliseconds) == 1 && (one.revents & POLLIN) != 0;
}

constexpr int kLong = 20'000;  // ms

TEST(EventPipeTest, IsReadableFromRaiseUntilLower) {
    EventPipe event;
    EXPECT_FALSE(is_readable(event.descriptor()));
    event.lower();
    EXPECT_FALSE(is_readable(event.descriptor()));
    event.raise();
    event.raise();
    EXPECT_TRUE(is_readable(event.descriptor()));
    event.lower();
    EXPECT_FALSE(is_readable(event.descriptor())) << "once for all that was raised before";
    event.raise();
    EXPECT_TRUE(is_readable(event.descriptor()));
}

TEST(EventPipeTest, NeverBlocksHoweverOftenItIsRaised) {
    EventPipe event;
    for (int i = 0; i < 100'000; ++i) event.raise();  // more than a pipe holds
    EXPECT_TRUE(is_readable(event.descriptor()));
    event.lower();
    EXPECT_FALSE(is_readable(event.descriptor()));
    event.lower();
}

TEST(EventPipeTest, AnEventLoopMayTakeTheEventItself) {
    EventPipe event;
    event.raise();
    eventfd_t taken = 0;
    EXPECT_EQ(::eventfd_read(event.descriptor(), &taken), 0);
    EXPECT_EQ(taken, 1U);
    EXPECT_FALSE(is_readable(event.descriptor()));
    EXPECT_EQ(::eventfd_read(event.descriptor(), &taken), -1);
    EXPECT_EQ(errno, EAGAIN);
    event.raise();
    EXPECT_TRUE(is_readable(event.descriptor()));
}

TEST(EventPipeTest, WakesAThreadThatPolls) {
    EventPipe event;
    std::array<std::thread, 3> raisers;
    for (int round = 0; round < 200; ++round) {
        for (std::thread& raiser : raisers) raiser = std::thread([&] { event.raise(); });
        EXPECT_TRUE(is_readable(event.descriptor(), kLong));
        for (std::thread& raiser : raisers) raiser.join();
        event.lower();
        ASSERT_FALSE(is_readable(event.descriptor()));
    }
}

TEST(EventPipeTest, IsNotInheritedByPrograms) {
    const EventPipe event;
    EXPECT_NE(::fcntl(event.descriptor(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(EventPipeTest, EndsWithItsDescriptors) {
    const int before = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    ::close(before);
    {
        const EventPipe event;
    }
    const int after = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(after, before) << "the lowest number that is free";
    ::close(after);
}

// A program that closes every descriptor, as daemons do, and opens its own under the lowest
// numbers, those of the event among them. The event is used and destroyed afterwards.
template <typename Open>
std::vector<int> use_event_after_taking_its_numbers(Open&& open) {
    std::optional<EventPipe> event(std::in_place);
    const int last = event->descriptor() + 1;
    ::close_range(3, ~0U, 0);
    std::vector<int> own;
    while (own.empty() || own.back() < last) {
        own.push_back(open());
        require(own.back() >= 0);
    }
    event->raise();
    event->lower();
    event.reset();
    return own;
}

TEST(EventPipeTest, FilesOfTheProgramUnderItsNumbersAreLeftAlone) {
    const TemporaryFolder folder;
    const std::string path = folder / "own";
    Child child([&] {
        for (const int own : use_event_after_taking_its_numbers(
                 [&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND, 0600); })) {
            require(::fcntl(own, F_GETFD) >= 0);
            require(::lseek(own, 0, SEEK_END) == 0);
        }
    });
    EXPECT_EQ(child.wait(), 0);
}

// Descriptors without a file share an inode, so the inode can't tell them apart.
TEST(EventPipeTest, EventsOfTheProgramUnderItsNumbersAreLeftAlone) {
    Child child([&] {
        for (const int own :
             use_event_after_taking_its_numbers([] { return ::eventfd(5, EFD_NONBLOCK); })) {
            eventfd_t count = 0;
            require(::eventfd_read(own, &count) == 0 && count == 5);
        }
    });
    EXPECT_EQ(child.wait(), 0);
}

}  // namespace
}  // namespace penstock::os

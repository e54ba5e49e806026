// Forked children: they are detected, and inherit no descriptor that carries locks.
#include "os/fork.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>
#include <thread>

#include "os/shared_file.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"

namespace penstock::os {
namespace {

using test::Child;
using test::Gate;
using test::require;
using test::TemporaryFolder;

OwnDescriptor open_null() {
    return open_closed_in_children([] { return ::open("/dev/null", O_RDWR | O_CLOEXEC); });
}

bool is_open(int descriptor) {
    return ::fcntl(descriptor, F_GETFD) >= 0;
}

bool is_open(const OwnDescriptor& descriptor) {
    return is_open(descriptor.number);
}

// Whether this process has the file open.
bool holds_open(const std::string& path) {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code ignored;
        if (std::filesystem::read_symlink(entry.path(), ignored) == path) return true;
    }
    return false;
}

TEST(ForkTest, GenerationTellsChildrenFromTheirParents) {
    const OwnDescriptor descriptor =
        open_null();  // the handlers are installed with the first descriptor
    const auto own = fork_generation();
    Child child([&] {
        const auto second = fork_generation();
        require(second != own);
        Child grandchild([&] {
            require(fork_generation() != own);
            require(fork_generation() != second);
        });
        require(grandchild.wait() == 0);
        require(fork_generation() == second);
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_EQ(fork_generation(), own);
    close_descriptor(descriptor);
}

TEST(ForkTest, DescriptorsAreClosedInChildrenAndStayOpenInTheParent) {
    const OwnDescriptor first = open_null();
    const OwnDescriptor second = open_null();
    ASSERT_TRUE(first.is_open());
    ASSERT_TRUE(second.is_open());
    Child child([&] {
        require(!is_open(first));
        require(!is_open(second));
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_TRUE(is_open(first));
    EXPECT_TRUE(is_open(second));
    close_descriptor(first);
    close_descriptor(second);
    EXPECT_FALSE(is_open(first));
}

TEST(ForkTest, AChildReopensWithoutHarm) {
    const OwnDescriptor inherited = open_null();
    Child child([&] {
        const OwnDescriptor own = open_null();
        require(own.number ==
                inherited.number);  // the lowest free number: the parent's is closed here
        Child grandchild([&] { require(!is_open(own)); });
        require(grandchild.wait() == 0);
        require(is_open(own));
    });
    EXPECT_EQ(child.wait(), 0);
    close_descriptor(inherited);
}

TEST(ForkTest, AnotherFileUnderAClosedNumberIsInherited) {
    const OwnDescriptor closed = open_null();
    close_descriptor(closed);
    const int other = ::open("/dev/null", O_RDWR);
    ASSERT_EQ(other, closed.number) << "the lowest free number";
    Child child([&] { require(is_open(other)); });
    EXPECT_EQ(child.wait(), 0);
    ::close(other);
}

// A program that closes every descriptor and opens its own file under this number.
int take_number_of(const OwnDescriptor& descriptor, const std::string& path) {
    ::close(descriptor.number);
    const int own = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return own == descriptor.number ? own : -1;
}

TEST(ForkTest, AProgramsOwnFileUnderTheNumberStaysOpenHereAndInChildren) {
    const TemporaryFolder folder;
    const OwnDescriptor descriptor = open_null();
    const int own = take_number_of(descriptor, folder / "own");
    ASSERT_GE(own, 0);
    EXPECT_FALSE(descriptor.is_ours());
    Child child([&] { require(is_open(own)); });
    EXPECT_EQ(child.wait(), 0);
    close_descriptor(descriptor);
    EXPECT_TRUE(is_open(own));
    ::close(own);
}

TEST(ForkTest, AnotherDescriptionOfTheSameFileIsNotOurs) {
    const TemporaryFolder folder;
    const std::string path = folder / "file";
    const auto open_file = [&] {
        return open_closed_in_children(
            [&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600); });
    };
    const OwnDescriptor first = open_file();
    ::close(first.number);
    const OwnDescriptor second = open_file();  // by the library, after the program closed all
    ASSERT_EQ(second.number, first.number);
    EXPECT_TRUE(second.is_ours());
    EXPECT_FALSE(first.is_ours());
    close_descriptor(first);
    EXPECT_TRUE(is_open(second));
    Child child([&] { require(!is_open(second)); });
    EXPECT_EQ(child.wait(), 0);
    close_descriptor(second);
    EXPECT_FALSE(is_open(second));
}

TEST(ForkTest, AFailedOpeningRegistersNothing) {
    const OwnDescriptor descriptor = open_closed_in_children([] {
        errno = EMFILE;
        return -1;
    });
    EXPECT_FALSE(descriptor.is_open());
    EXPECT_EQ(errno, EMFILE);
}

TEST(ForkTest, ALockEndsWithItsOwnerAlthoughAChildLivesOn) {
    const TemporaryFolder folder;
    std::error_code error;
    SharedFile owner = SharedFile::create_private(folder.path(), error);
    ASSERT_FALSE(owner.publish(folder / "file"));
    ASSERT_TRUE(owner.try_lock(7));
    const SharedFile observer = SharedFile::open(folder / "file", error);
    ASSERT_TRUE(observer.is_locked_by_other(7));
    const Gate forked;
    const Gate end;
    Child child([&] {
        forked.open();
        end.pass();
    });
    forked.pass();
    owner.close();
    EXPECT_FALSE(observer.is_locked_by_other(7));
    end.open();
    EXPECT_EQ(child.wait(), 0);
}

// Forks race with another thread that opens and closes.
TEST(ForkTest, NoChildInheritsAFileThatIsBeingOpenedOrClosed) {
    const TemporaryFolder folder;
    const std::string path = folder / "file";
    std::error_code error;
    SharedFile file = SharedFile::create_private(folder.path(), error);
    ASSERT_FALSE(file.publish(path));
    file.close();
    std::jthread opener([&](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            std::error_code ignored;
            SharedFile::open(path, ignored).close();
        }
    });
    int heirs = 0;
    constexpr int kForks = 300;
    for (int i = 0; i < kForks; ++i) {
        Child child([&] { require(!holds_open(path)); });
        if (child.wait() != 0) ++heirs;
    }
    opener.request_stop();
    opener.join();
    EXPECT_EQ(heirs, 0) << "of " << kForks;
}

}  // namespace
}  // namespace penstock::os

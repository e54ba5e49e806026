// Locks of single bytes, the evidence of life. They belong to an open file description, so no other
// handle of the process can drop them, and they end with their holder.
#include <gtest/gtest.h>
#include <signal.h>

#include <string>
#include <system_error>
#include <utility>

#include "os/shared_file.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"

namespace penstock::os {
namespace {

using test::Child;
using test::Gate;
using test::killed_by;
using test::require;
using test::TemporaryFolder;

constexpr std::uint64_t kByte = 4096;

class SharedFileLockTest : public ::testing::Test {
protected:
    SharedFileLockTest() {
        std::error_code error;
        SharedFile file = SharedFile::create_private(folder_.path(), error);
        require(!error && !file.publish(path()));
    }

    [[nodiscard]] std::string path() const { return folder_ / "file"; }
    [[nodiscard]] SharedFile open() const {
        std::error_code error;
        SharedFile file = SharedFile::open(path(), error);
        require(!error);
        return file;
    }

private:
    TemporaryFolder folder_;
};

TEST_F(SharedFileLockTest, ExclusiveLocksOfTwoDescriptionsExcludeEachOther) {
    SharedFile first = open();
    SharedFile second = open();
    EXPECT_TRUE(first.try_lock(kByte));
    EXPECT_TRUE(first.try_lock(kByte)) << "a description is only in others' way";
    EXPECT_FALSE(second.try_lock(kByte));
    EXPECT_FALSE(second.try_lock_shared(kByte));
    first.unlock(kByte);
    EXPECT_TRUE(second.try_lock(kByte));
    EXPECT_FALSE(first.try_lock(kByte));
}

TEST_F(SharedFileLockTest, SharedLocksExcludeExclusiveOnesOnly) {
    SharedFile first = open();
    SharedFile second = open();
    SharedFile third = open();
    EXPECT_TRUE(first.try_lock_shared(0));
    EXPECT_TRUE(second.try_lock_shared(0));
    EXPECT_FALSE(third.try_lock(0));
    first.unlock(0);
    EXPECT_FALSE(third.try_lock(0));
    second.unlock(0);
    EXPECT_TRUE(third.try_lock(0));
}

TEST_F(SharedFileLockTest, BytesAreLockedOneByOne) {
    SharedFile first = open();
    SharedFile second = open();
    ASSERT_TRUE(first.try_lock(kByte));
    EXPECT_TRUE(second.try_lock(kByte - 1));
    EXPECT_TRUE(second.try_lock(kByte + 1));
    EXPECT_FALSE(first.is_locked_by_other(kByte));
    EXPECT_TRUE(first.is_locked_by_other(kByte + 1));
    second.unlock(kByte - 1);
    EXPECT_TRUE(first.is_locked_by_other(kByte + 1));
    EXPECT_TRUE(second.is_locked_by_other(kByte));
}

TEST_F(SharedFileLockTest, SeesTheWriteLocksOfOthers) {
    SharedFile first = open();
    SharedFile second = open();
    EXPECT_FALSE(second.is_locked_by_other(kByte));
    ASSERT_TRUE(first.try_lock(kByte));
    EXPECT_TRUE(second.is_locked_by_other(kByte));
    EXPECT_FALSE(first.is_locked_by_other(kByte)) << "one's own lock is no other's";
    first.unlock(kByte);
    EXPECT_FALSE(second.is_locked_by_other(kByte));
    ASSERT_TRUE(first.try_lock_shared(kByte));
    EXPECT_FALSE(second.is_locked_by_other(kByte)) << "a shared lock is no sign of life";
    EXPECT_TRUE(second.try_lock_shared(kByte)) << "asking takes no lock";
}

TEST_F(SharedFileLockTest, AFailedLockQueryIsNoEvidenceOfDeath) {
    const SharedFile closed;
    EXPECT_TRUE(closed.is_locked_by_other(kByte));
}

TEST_F(SharedFileLockTest, ClosingLetsGo) {
    SharedFile first = open();
    SharedFile second = open();
    ASSERT_TRUE(first.try_lock(kByte));
    SharedFile moved = std::move(first);
    EXPECT_FALSE(second.try_lock(kByte)) << "moving a file does not";
    moved.close();
    EXPECT_TRUE(second.try_lock(kByte));
}

// Classic record locks vanish when any descriptor of the file is closed; these do not.
TEST_F(SharedFileLockTest, ClosingAnotherHandleLetsNothingGo) {
    SharedFile first = open();
    const SharedFile observer = open();
    ASSERT_TRUE(first.try_lock(kByte));
    open().close();
    EXPECT_TRUE(observer.is_locked_by_other(kByte));
}

TEST_F(SharedFileLockTest, LocksExcludeOtherProcessesToo) {
    SharedFile own = open();
    ASSERT_TRUE(own.try_lock(kByte));
    Child child([&] {
        SharedFile file = open();
        require(file.is_locked_by_other(kByte));
        require(!file.try_lock(kByte));
        require(file.try_lock(kByte + 1));
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_FALSE(own.is_locked_by_other(kByte + 1)) << "it has exited";
}

TEST_F(SharedFileLockTest, DeathLetsGoEvenBeforeTheDeadIsReaped) {
    SharedFile observer = open();
    const Gate locked;
    Child child([&] {
        SharedFile file = open();
        require(file.try_lock(kByte));
        locked.open();
        for (;;) ::pause();
    });
    locked.pass();
    ASSERT_TRUE(observer.is_locked_by_other(kByte));
    child.stop();
    EXPECT_TRUE(observer.is_locked_by_other(kByte)) << "a stopped process lives";
    child.kill_unreaped();
    EXPECT_FALSE(observer.is_locked_by_other(kByte));
    EXPECT_TRUE(observer.try_lock(kByte));
    EXPECT_EQ(child.wait(), killed_by(SIGKILL));
}

}  // namespace
}  // namespace penstock::os

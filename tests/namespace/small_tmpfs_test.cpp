// A tmpfs of 16 MiB that fills up: a request that does not fit is refused with the free space,
// promised memory stays usable to its last byte, and no process dies of SIGBUS.
#include <sys/statvfs.h>

#include <filesystem>

#include "tests/support/broadcast_actor.hpp"
#include "tests/support/isolation.hpp"
#include "tests/support/store_actor.hpp"

namespace penstock::trust {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;

// A file that takes up space while it exists.
class Filler {
public:
    Filler(std::string path, std::uint64_t leave) : path_(std::move(path)) {
        const Descriptor file(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        struct statvfs space{};
        if (file.get() < 0 || ::fstatvfs(file.get(), &space) != 0) throw_errno("filler");
        const std::uint64_t free = space.f_bavail * space.f_frsize;
        const std::uint64_t wanted = free > leave ? free - leave : 0;
        if (::posix_fallocate(file.get(), 0, static_cast<off_t>(wanted)) != 0) {
            throw_errno("posix_fallocate");
        }
    }
    Filler(const Filler&) = delete;
    Filler& operator=(const Filler&) = delete;
    ~Filler() { ::unlink(path_.c_str()); }

private:
    std::string path_;
};

// Two processes and a file system, mounted for this program alone and removed with it.
class SmallTmpfsTest : public testing::Test {
protected:
    explicit SmallTmpfsTest(const char* role) : role_(role) {}

    void SetUp() override {
        if (!has_own_mounts()) GTEST_SKIP() << "mount namespaces are not permitted here";
        std::filesystem::create_directory(directory_);
        ASSERT_EQ(::mount("tmpfs", directory_.c_str(), "tmpfs", 0, "size=16m"), 0);
        is_mounted_ = true;
        writer_ = Actor(role_);
        reader_ = Actor(role_);
    }
    void TearDown() override {
        writer_ = Actor();
        reader_ = Actor();
        if (!is_mounted_) return;
        std::string left;
        for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
            left += entry.path().filename().string() + " ";
        }
        ::umount2(directory_.c_str(), MNT_DETACH);
        std::filesystem::remove(directory_);
        EXPECT_EQ(left, "");
    }

    static bool has_own_mounts() {
        static const bool has = ::unshare(CLONE_NEWNS) == 0 &&
                                ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
        return has;
    }
    [[nodiscard]] std::string path(const std::string& name) const {
        return (directory_ / name).string();
    }
    [[nodiscard]] std::string segment(const std::string& name = "segment") const {
        return "file:" + path(name);
    }
    // The message tells how much space there is, and the remedy.
    static void expect_no_space(const Answer& answer) {
        EXPECT_EQ(answer.outcome, "NoSpace") << answer.line();
        for (const char* part : {"KiB", "free", "--shm-size"}) {
            EXPECT_NE(answer.sentence.find(part), std::string::npos) << answer.sentence;
        }
    }

    Premises premises_{"tmpfs"};
    Actor writer_;
    Actor reader_;

private:
    const char* role_;
    std::filesystem::path directory_ =
        std::filesystem::temp_directory_path() / ("penstock-tmpfs-" + std::to_string(::getpid()));
    bool is_mounted_ = false;
};

class SmallTmpfs : public SmallTmpfsTest {
protected:
    SmallTmpfs() : SmallTmpfsTest(kBroadcastRole) {}

    void start(std::uint64_t capacity) {
        writer_.must("create " + segment() + " 1 " + std::to_string(capacity) + " " +
                     std::to_string(256 * kMiB) + " raise");
        reader_.must("attach " + segment() + " 0 1000");
    }
    void close() {
        writer_.must("close-writer");
        EXPECT_EQ(reader_.ask("drain 1000").outcome, "Closed");
        reader_.must("close-reader");
    }
};

TEST_F(SmallTmpfs, ASegmentThatDoesNotFitIsRefusedAndLeavesNothing) {
    const std::string big = "create " + segment() + " 1 33554432 0 raise";
    expect_no_space(writer_.ask(big));
    const Filler filler(path("filler"), 2 * kMiB);
    expect_no_space(writer_.ask("create " + segment() + " 1 4194304 0 raise"));
    start(kMiB);  // a segment that fits is created
    writer_.must("send 1 1000 1000");
    reader_.must("recv 1 1000");
    close();
}

TEST_F(SmallTmpfs, ALargeMessageFailsWithNoSpaceAndASmallOneStillGoes) {
    start(kMiB);
    {
        const Filler filler(path("filler"), 2 * kMiB);
        expect_no_space(writer_.ask("send 1 8388608 1000"));
        writer_.must("send 1 1000 1000");
        EXPECT_EQ(reader_.must("recv 1 1000").number("next"), 1);
        writer_.must("send 1 1048576 1000");  // and a large one that fits
        EXPECT_EQ(reader_.must("recv 1 1000").number("next"), 2);
        expect_no_space(writer_.ask("send 1 8388608 1000"));
    }
    writer_.must("send 1 8388608 1000");  // there is room again
    EXPECT_EQ(reader_.must("recv 1 1000").number("next"), 3);
    close();
}

// Everything that create() promised is usable, though the file system has no page left.
TEST_F(SmallTmpfs, ReservedMemoryIsUsableOnAFullFileSystem) {
    start(4 * kMiB);
    const Filler filler(path("filler"), 0);
    reader_.tell("recv 50 5000");
    writer_.must("send 50 1000000 5000");  // many times around the ring
    EXPECT_EQ(reader_.answer().number("next"), 50);
    expect_no_space(writer_.ask("send 1 2000000 1000"));
    // Death and replacement need no page either.
    reader_.process().kill();
    ASSERT_TRUE(reader_.process().wait(kPatience).has_value());
    EXPECT_EQ(writer_.ask("send 10 1000000 1000").number("deaths"), 1);
    reader_ = Actor(kBroadcastRole);
    reader_.must("attach " + segment() + " 0 1000");
    writer_.must("send 1 1000000 1000");
    reader_.must("recv 1 1000");
    close();
}

TEST_F(SmallTmpfs, RemovingASegmentMakesRoomForAnother) {
    std::vector<Actor> writers;
    Answer last = ok();
    while (last.is_ok() && writers.size() < 20) {
        writers.emplace_back(kBroadcastRole);
        last = writers.back().ask("create " + segment(std::to_string(writers.size())) +
                                  " 1 2097152 0 raise");
    }
    expect_no_space(last);
    ASSERT_GE(writers.size(), 4U);
    writers.front().must("close-writer");
    writers.front() = Actor();  // the mapping is freed with the handle
    writers.back().must("create " + segment("again") + " 1 2097152 0 raise");
    for (std::size_t i = 1; i < writers.size(); ++i) writers[i].must("close-writer");
}

// A held block is no reason to wait for ever when the file system lacks memory.
TEST_F(SmallTmpfs, ASendWithoutMemoryEndsDespiteAHeldBlock) {
    start(kMiB);
    writer_.must("send 1 2097152 1000");
    reader_.must("hold 1000");
    reader_.must("keep 0");
    const Filler filler(path("filler"), kMiB);
    const Answer refused = writer_.ask("send 1 8388608 300");
    EXPECT_TRUE(refused.outcome == "NoSpace" || refused.outcome == "Timeout") << refused.line();
    reader_.must("recheck");
    reader_.must("release 0");
    writer_.must("send 1 2097152 1000");  // in the memory that was freed
    reader_.must("recv 1 1000");
    close();
}

// A Store with four times the capacity of the file system.
class StoreOnSmallTmpfs : public SmallTmpfsTest {
protected:
    static constexpr const char* kFour = " 4194304";
    static constexpr const char* kEight = " 8388608";

    StoreOnSmallTmpfs() : SmallTmpfsTest(kStoreRole) {}

    void start(const std::string& eviction) {
        writer_.must("create " + segment() + " " + std::to_string(64 * kMiB) + " 256 8 " +
                     eviction);
        reader_.must("attach " + segment() + " 1000");
    }
    void close() {
        reader_.must("close");
        writer_.must("clear");
        const StoreStats stats = inspect_store(segment()).stats;
        EXPECT_EQ(stats.used_bytes, 0U);
        EXPECT_EQ(stats.largest_free, stats.capacity);
        writer_.must("close");
    }
};

TEST_F(StoreOnSmallTmpfs, GrowthThatDoesNotFitIsRefusedAndNothingIsLost) {
    start("none");
    writer_.must(std::string("put 1") + kFour);
    writer_.must(std::string("put 2") + kFour);
    expect_no_space(writer_.ask(std::string("put 3") + kEight));
    EXPECT_EQ(reader_.ask("read 3").outcome, "NotFound");
    reader_.must("read 1");
    reader_.must("read 2");
    EXPECT_EQ(inspect_store(segment()).stats.staged, 0U);
    writer_.must("put 4 1000");  // an object that fits is put
    reader_.must("read 4");
    reader_.must("remove 1");
    reader_.must("remove 2");
    writer_.must("put 3 8000000");  // in existing memory
    reader_.must("read 3");
    close();
}

TEST_F(StoreOnSmallTmpfs, ExistingMemoryIsUsableOnAFullFileSystem) {
    start("sieve");
    writer_.must(std::string("put 1") + kEight);
    const Filler filler(path("filler"), 0);
    for (unsigned turn = 0; turn < 20; ++turn) {  // in the same memory, again and again
        const std::string number = std::to_string(10 + turn);
        writer_.must("put " + number + " 8000000");
        reader_.must("read " + number);
    }
    reader_.must("get 29");
    expect_no_space(writer_.ask(std::string("put 2") + kFour));
    reader_.must("recheck 29");
    // Death and reaping need no page either.
    reader_.process().kill();
    ASSERT_TRUE(reader_.process().wait(kPatience).has_value());
    writer_.must(std::string("put 2") + kFour);
    reader_ = Actor(kStoreRole);
    reader_.must("attach " + segment() + " 1000");
    reader_.must("read 2");
    close();
}

TEST_F(StoreOnSmallTmpfs, AReservationThatCannotGrowIsUnchanged) {
    start("sieve");
    writer_.must(std::string("reserve 1") + kFour);
    {
        const Filler filler(path("filler"), kMiB);
        EXPECT_EQ(writer_.ask(std::string("resize 1") + kEight).outcome, "NoSpace");
        EXPECT_EQ(inspect_store(segment()).stats.staged, 1U);
    }
    writer_.must(std::string("resize 1") + kEight);  // there is room again
    writer_.must("commit 1");
    EXPECT_EQ(reader_.must("read 1").number("bytes"), 8388608);
    close();
}

TEST_F(StoreOnSmallTmpfs, TrimmedMemoryIsAvailableToOthers) {
    start("none");
    writer_.must(std::string("put 1") + kEight);
    {
        const Filler filler(path("filler"), 0);
        expect_no_space(writer_.ask(std::string("put 2") + kFour));
    }
    writer_.must("remove 1");
    EXPECT_GE(reader_.must("trim").number("bytes"), 8'000'000);
    {
        const Filler filler(path("filler"), 2 * kMiB);
        expect_no_space(writer_.ask(std::string("put 1") + kEight));
        writer_.must("put 2 1000000");
        reader_.must("read 2");
    }
    writer_.must(std::string("put 1") + kEight);
    reader_.must("read 1");
    close();
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    return run_tests(argc, argv,
                     {{kBroadcastRole, play_broadcast_actor}, {kStoreRole, play_store_actor}});
}

// A tmpfs of 16 MiB that fills up: whoever asks for what is not there is told so and how much there
// is, what was promised stays usable to its last byte, and nobody dies of a SIGBUS.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include <filesystem>

#include "tests/support/broadcast_actor.hpp"
#include "tests/support/premises.hpp"

namespace penstock::trust {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;

// A file that takes room away until it is gone.
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

// Mounted for this process and its children alone; gone with them.
class SmallTmpfs : public testing::Test {
protected:
    void SetUp() override {
        if (!has_own_mounts()) GTEST_SKIP() << "mount namespaces are not permitted here";
        directory_ = std::filesystem::temp_directory_path() /
                     ("penstock-tmpfs-" + std::to_string(::getpid()));
        std::filesystem::create_directory(directory_);
        ASSERT_EQ(::mount("tmpfs", directory_.c_str(), "tmpfs", 0, "size=16m"), 0);
        is_mounted_ = true;
        writer_ = Actor(kBroadcastRole);
        reader_ = Actor(kBroadcastRole);
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
    [[nodiscard]] std::string segment(const std::string& name = "steps") const {
        return "file:" + path(name);
    }
    void start(std::uint64_t capacity) {
        writer_.must("create " + segment() + " 1 " + std::to_string(capacity) + " " +
                     std::to_string(256 * kMiB) + " raise");
        reader_.must("attach " + segment() + " 0 1000");
    }
    // The sentence tells how much there is and what to do.
    static void expect_no_space(const Answer& answer) {
        EXPECT_EQ(answer.outcome, "NoSpace") << answer.line();
        EXPECT_NE(answer.sentence.find("KiB"), std::string::npos) << answer.sentence;
        EXPECT_NE(answer.sentence.find("free"), std::string::npos) << answer.sentence;
        EXPECT_NE(answer.sentence.find("--shm-size"), std::string::npos) << answer.sentence;
    }
    void close() {
        writer_.must("close-writer");
        EXPECT_EQ(reader_.ask("drain 1000").outcome, "Closed");
        reader_.must("close-reader");
    }

    Premises premises_{"tmpfs"};
    std::filesystem::path directory_;
    bool is_mounted_ = false;
    Actor writer_;
    Actor reader_;
};

TEST_F(SmallTmpfs, ASegmentThatDoesNotFitIsRefusedInWordsAndLeavesNothing) {
    const std::string big = "create " + segment() + " 1 33554432 0 raise";
    expect_no_space(writer_.ask(big));
    const Filler filler(path("filler"), 2 * kMiB);
    expect_no_space(writer_.ask("create " + segment() + " 1 4194304 0 raise"));
    start(kMiB);  // what fits still goes
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

// Everything that create() promised is there, though the file system has no page left.
TEST_F(SmallTmpfs, WhatWasReservedCanBeWrittenToTheLastByteWhenNothingIsLeft) {
    start(4 * kMiB);
    const Filler filler(path("filler"), 0);
    reader_.tell("recv 50 5000");
    writer_.must("send 50 1000000 5000");  // many times round the ring
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

TEST_F(SmallTmpfs, SegmentsUntilNothingIsLeftAndAgainWhenOneIsGone) {
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
    writers.front() = Actor();  // with its handle goes its mapping
    writers.back().must("create " + segment("again") + " 1 2097152 0 raise");
    for (std::size_t i = 1; i < writers.size(); ++i) writers[i].must("close-writer");
}

// A reader that holds a block is no reason to wait for ever when memory is what is missing.
TEST_F(SmallTmpfs, WithABlockHeldALargeMessageStillComesToAnEnd) {
    start(kMiB);
    writer_.must("send 1 2097152 1000");
    reader_.must("hold 1000");
    reader_.must("keep 0");
    const Filler filler(path("filler"), kMiB);
    const Answer refused = writer_.ask("send 1 8388608 300");
    EXPECT_TRUE(refused.outcome == "NoSpace" || refused.outcome == "Timeout") << refused.line();
    reader_.must("recheck");
    reader_.must("release 0");
    writer_.must("send 1 2097152 1000");  // into the memory that was given back
    reader_.must("recv 1 1000");
    close();
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    ::signal(SIGPIPE, SIG_IGN);
    constexpr Role kRoles[] = {{kBroadcastRole, play_broadcast_actor}};
    if (const auto code = play_role(argc, argv, kRoles)) return *code;
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}

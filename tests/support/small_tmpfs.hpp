// A tmpfs of 16 MiB that a test has to itself, and a file that fills it.
#pragma once

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include <filesystem>
#include <string>

#include "tests/support/talk.hpp"

namespace penstock::trust {

inline constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;

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
class SmallTmpfsTest : public testing::Test {
protected:
    void SetUp() override {
        if (!has_own_mounts()) GTEST_SKIP() << "mount namespaces are not permitted here";
        directory_ = std::filesystem::temp_directory_path() /
                     ("penstock-tmpfs-" + std::to_string(::getpid()));
        std::filesystem::create_directory(directory_);
        ASSERT_EQ(::mount("tmpfs", directory_.c_str(), "tmpfs", 0, "size=16m"), 0);
        is_mounted_ = true;
        start_actors();
    }
    void TearDown() override {
        end_actors();
        if (!is_mounted_) return;
        std::string left;
        for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
            left += entry.path().filename().string() + " ";
        }
        ::umount2(directory_.c_str(), MNT_DETACH);
        std::filesystem::remove(directory_);
        EXPECT_EQ(left, "");
    }
    virtual void start_actors() = 0;
    virtual void end_actors() = 0;

    static bool has_own_mounts() {
        static const bool has = ::unshare(CLONE_NEWNS) == 0 &&
                                ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
        return has;
    }
    [[nodiscard]] std::string path(const std::string& name) const {
        return (directory_ / name).string();
    }
    // The sentence tells how much there is and what to do.
    static void expect_no_space(const Answer& answer) {
        EXPECT_EQ(answer.outcome, "NoSpace") << answer.line();
        EXPECT_NE(answer.sentence.find("KiB"), std::string::npos) << answer.sentence;
        EXPECT_NE(answer.sentence.find("free"), std::string::npos) << answer.sentence;
        EXPECT_NE(answer.sentence.find("--shm-size"), std::string::npos) << answer.sentence;
    }

    std::filesystem::path directory_;
    bool is_mounted_ = false;
};

}  // namespace penstock::trust

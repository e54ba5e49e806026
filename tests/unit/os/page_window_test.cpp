// Page windows: the writer's pages move to other addresses and back; later writes through the
// window do not reach the file.
#include "os/page_window.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "os/shared_file.hpp"

namespace penstock::os {
namespace {

constexpr std::uint64_t kFile = std::uint64_t{8} << 20U;

std::byte byte(int value) {
    return static_cast<std::byte>(value);
}

class PageWindowTest : public testing::Test {
protected:
    void SetUp() override {
        std::error_code error;
        file_ = SharedFile::create_anonymous("window", error);
        ASSERT_FALSE(error);
        ASSERT_FALSE(file_.set_size(kFile));
        mapping_ = Mapping::map(file_, 0, kFile, Mapping::Access::ReadWrite, error);
        ASSERT_FALSE(error) << error.message();
        std::memset(mapping_.data(), 1, kFile);
    }

    // A window on `bytes` at `offset`. Sets `cannot_` where the kernel can't move pages.
    PageWindow open(std::uint64_t offset, std::uint64_t bytes) {
        std::error_code error;
        PageWindow window = PageWindow::open(mapping_.data() + offset, bytes, error);
        cannot_ = error == std::errc::invalid_argument;
        EXPECT_TRUE(cannot_ || !error) << error.message();
        return window;
    }
    std::error_code cut_off(PageWindow& window, std::uint64_t offset, bool moves = true) {
        if (const auto error = window.give_back(file_.descriptor(), offset, moves)) return error;
        return window.show_private(file_.descriptor(), offset);
    }
    // The file's bytes, read without the mapping.
    std::vector<std::byte> in_file(std::uint64_t offset, std::uint64_t bytes) {
        std::vector<std::byte> found(bytes);
        EXPECT_TRUE(file_.read(offset, found.data(), bytes));
        return found;
    }
    void expect_file(std::uint64_t offset, std::uint64_t bytes, int value) {
        const auto found = in_file(offset, bytes);
        EXPECT_TRUE(std::ranges::all_of(found, [&](std::byte is) { return is == byte(value); }))
            << value;
    }
    static int mappings() {
        std::ifstream maps("/proc/self/maps");
        int count = 0;
        for (std::string line; std::getline(maps, line);) {
            if (line.find("memfd:window") != std::string::npos) ++count;
        }
        return count;
    }

    SharedFile file_;
    Mapping mapping_;
    bool cannot_ = false;
};

struct Range {
    std::uint64_t offset;
    std::uint64_t bytes;
};

class PageWindowRangeTest : public PageWindowTest, public testing::WithParamInterface<Range> {};

TEST_P(PageWindowRangeTest, WhatIsWrittenIsThereAndLaterWritesAreNot) {
    const auto [offset, bytes] = GetParam();
    for (const bool moves : {true, false}) {
        std::memset(mapping_.data(), 1, kFile);
        PageWindow window = open(offset, bytes);
        if (cannot_) GTEST_SKIP() << "this kernel can't move pages of files";
        ASSERT_NE(window.data(), mapping_.data() + offset);
        // Large ranges move by whole page tables: the window has the same alignment in them.
        constexpr std::uint64_t kHugePage = std::uint64_t{2} << 20U;
        const std::uintptr_t unit = bytes >= kHugePage ? kHugePage : page_size();
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(window.data()) % unit,
                  reinterpret_cast<std::uintptr_t>(mapping_.data() + offset) % unit);
        std::memset(window.data(), 7, bytes);
        ASSERT_FALSE(cut_off(window, offset, moves));
        expect_file(offset, bytes, 7);
        std::memset(window.data(), 9, bytes);
        EXPECT_EQ(window.data()[bytes - 1], byte(9));
        expect_file(offset, bytes, 7);
        expect_file(0, offset, 1);
        expect_file(offset + bytes, kFile - offset - bytes, 1);
        // The mapping is whole again, for reading and writing.
        EXPECT_EQ(std::memcmp(mapping_.data(), in_file(0, kFile).data(), kFile), 0);
        std::memset(mapping_.data() + offset, 3, bytes);
        expect_file(offset, bytes, 3);
    }
    EXPECT_EQ(mappings(), 1);
}

INSTANTIATE_TEST_SUITE_P(Ranges, PageWindowRangeTest,
                         testing::Values(Range{4096, 65536}, Range{4096 + 64, 65536},
                                         Range{100, 70000}, Range{0, kFile},
                                         Range{(2U << 20U) + 64, 4U << 20U}));

TEST_F(PageWindowTest, WithoutAWholePageThereIsNone) {
    std::error_code error;
    const PageWindow window = PageWindow::open(mapping_.data() + 100, 4096, error);
    EXPECT_EQ(error, std::errc::function_not_supported);
    EXPECT_FALSE(window.is_open());
}

TEST_F(PageWindowTest, ZerosInsteadOfTheFile) {
    PageWindow window = open(4096, 1U << 20U);
    if (cannot_) GTEST_SKIP();
    std::memset(window.data(), 7, 1U << 20U);
    ASSERT_FALSE(window.show_zeros());
    EXPECT_EQ(window.data()[8192], byte(0));
    std::memset(mapping_.data(), 5, kFile);
    std::memset(window.data(), 9, 1U << 20U);
    expect_file(0, kFile, 5);
}

// Races with the cut on purpose; the thread sanitizer must not report it.
[[gnu::no_sanitize_thread]] void scribble(void* memory, std::size_t bytes, std::byte value) {
    auto* const bytewise = static_cast<volatile std::byte*>(memory);
    for (std::size_t at = 0; at < bytes; ++at) bytewise[at] = value;
}

// A thread writes without pause: its writes reach the file before the cut, or not at all.
TEST_F(PageWindowTest, NoWriteSlipsThroughWhileItIsCutOff) {
    constexpr std::uint64_t kBytes = 64U << 10U;
    for (int round = 0; round < 50; ++round) {
        PageWindow window = open(4096, kBytes);
        if (cannot_) GTEST_SKIP();
        std::atomic<bool> is_over = false;
        std::atomic<unsigned> passes = 0;
        std::thread writer([&] {
            while (!is_over.load()) {
                scribble(window.data(), kBytes, static_cast<std::byte>(passes.load() % 251));
                passes.fetch_add(1);
            }
        });
        const auto wait_for_more = [&] {
            for (const unsigned wanted = passes.load() + 2; passes.load() < wanted;) {
                std::this_thread::yield();
            }
        };
        wait_for_more();
        EXPECT_FALSE(cut_off(window, 4096));
        const auto first = in_file(4096, kBytes);
        wait_for_more();
        EXPECT_EQ(in_file(4096, kBytes), first);
        is_over = true;
        writer.join();
    }
}

TEST_F(PageWindowTest, AChildHasNothingOfIt) {
    PageWindow window = open(4096, 1U << 20U);
    if (cannot_) GTEST_SKIP();
    const pid_t child = ::fork();
    if (child == 0) {
        const rlimit none{0, 0};
        ::setrlimit(RLIMIT_CORE, &none);
        ::signal(SIGSEGV, SIG_DFL);  // not a sanitizer's handler, which exits
        {
            const PageWindow forgotten = std::move(window);
        }  // unmaps nothing here
        *const_cast<volatile std::byte*>(mapping_.data() + 4096) = byte(9);
        ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status));
    std::memset(window.data(), 7, 1U << 20U);
    EXPECT_FALSE(cut_off(window, 4096));
    expect_file(4096, 1U << 20U, 7);
}

}  // namespace
}  // namespace penstock::os

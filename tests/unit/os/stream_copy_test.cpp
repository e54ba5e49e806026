// Copies that bypass the caches: the same bytes as memcpy, and none beyond, at every alignment.
#include "os/stream_copy.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "os/pages.hpp"
#include "tests/unit/support/child.hpp"

namespace penstock::os {
namespace {

constexpr std::size_t kLine = 64;
constexpr std::byte kUntouched{0xA5};

using Bytes = std::vector<std::byte>;

Bytes random_bytes(std::size_t size) {
    std::mt19937 random(20261129);
    Bytes bytes(size);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 0xFFU);
    return bytes;
}

// The first cache-line boundary in the buffer.
std::byte* aligned(Bytes& bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(bytes.data());
    return bytes.data() + (kLine - address % kLine) % kLine;
}

// Room for `most` bytes at any offset in a line, with a line on each side.
class Room {
public:
    explicit Room(std::size_t most) : bytes_(most + 4 * kLine, kUntouched), most_(most) {}
    std::byte* at(std::size_t offset) { return aligned(bytes_) + kLine + offset; }
    // Only these bytes were written; resets them for the next copy.
    bool has_only(std::size_t offset, const std::byte* from, std::size_t size) {
        const std::byte* const first = aligned(bytes_);
        const std::byte* const to = at(offset);
        const std::byte* const end = at(0) + most_ + kLine;
        const auto is_untouched = [](std::byte byte) { return byte == kUntouched; };
        const bool holds = std::all_of(first, to, is_untouched) &&
                           std::memcmp(to, from, size) == 0 &&
                           std::all_of(to + size, end, is_untouched);
        std::fill_n(at(offset), size, kUntouched);
        return holds;
    }

private:
    Bytes bytes_;
    std::size_t most_;
};

// Sizes around cache lines and around the widths of the copy's loops.
std::vector<std::size_t> sizes() {
    std::vector<std::size_t> all;
    for (std::size_t size = 0; size <= 3 * kLine + 1; ++size) all.push_back(size);
    for (std::size_t lines = 4; lines <= 64; lines *= 2) {
        for (const std::size_t more : {0U, 1U, 15U, 16U, 17U, 63U}) {
            all.push_back(lines * kLine - more);
            all.push_back(lines * kLine + more);
        }
    }
    return all;
}

TEST(StreamCopy, EveryAlignmentOfTheTarget) {
    Bytes source = random_bytes(8192);
    Room room(8192);
    for (std::size_t offset = 0; offset < kLine; ++offset) {
        for (const std::size_t size : sizes()) {
            const std::byte* const from = aligned(source);
            stream_copy(room.at(offset), from, size);
            stream_fence();
            ASSERT_TRUE(room.has_only(offset, from, size)) << offset << ", " << size << " bytes";
        }
    }
}

TEST(StreamCopy, EveryAlignmentOfTheSource) {
    Bytes source = random_bytes(8192);
    Room room(8192);
    for (std::size_t offset = 0; offset < kLine; ++offset) {
        for (const std::size_t size : sizes()) {
            const std::byte* const from = aligned(source) + offset;
            stream_copy(room.at(63 - offset), from, size);
            stream_fence();
            ASSERT_TRUE(room.has_only(63 - offset, from, size))
                << offset << ", " << size << " bytes";
        }
    }
}

TEST(StreamCopy, EverySizeUpToAPage) {
    Bytes source = random_bytes(8192);
    Room room(8192);
    for (std::size_t size = 0; size <= 4096; ++size) {
        const std::size_t offset = size * 7 % kLine;
        const std::byte* const from = aligned(source) + size * 13 % kLine;
        stream_copy(room.at(offset), from, size);
        stream_fence();
        ASSERT_TRUE(room.has_only(offset, from, size)) << size << " bytes";
    }
}

TEST(StreamCopy, LargeCopies) {
    constexpr std::size_t kSize = (std::size_t{5} << 20U) + 12345;
    Bytes source = random_bytes(kSize + kLine);
    Room room(kSize + kLine);
    for (const std::size_t offset : {0U, 1U, 16U, 63U}) {
        const std::byte* const from = source.data() + offset;
        stream_copy(room.at(offset), from, kSize);
        stream_fence();
        ASSERT_TRUE(room.has_only(offset, from, kSize)) << offset;
    }
}

// Source and target end at unmapped pages: one byte too many is a fault.
TEST(StreamCopy, StaysWithinItsBuffers) {
    const std::size_t page = page_size();
    std::byte* ends[2] = {};
    for (std::byte*& end : ends) {
        void* const memory =
            ::mmap(nullptr, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ASSERT_NE(memory, MAP_FAILED);
        end = static_cast<std::byte*>(memory) + 3 * page;
        ASSERT_EQ(::mprotect(end, page, PROT_NONE), 0);
    }
    const Bytes source = random_bytes(2 * page);
    for (std::size_t size = 0; size <= 2 * page; size += size < 300 ? 1 : 61) {
        std::memcpy(ends[0] - size, source.data(), size);
        stream_copy(ends[1] - size, ends[0] - size, size);
        stream_fence();
        ASSERT_EQ(std::memcmp(ends[1] - size, source.data(), size), 0) << size;
    }
    for (std::byte* const end : ends) ::munmap(end - 3 * page, 4 * page);
}

// The fence orders the copy before the store that publishes it.
TEST(StreamCopy, WhatIsPublishedAfterTheFenceIsWhole) {
    constexpr std::size_t kSize = 4096;
    constexpr std::uint32_t kRounds = 200;
    Bytes target(kSize);
    std::atomic<std::uint32_t> published{0};
    std::atomic<std::uint32_t> read{0};
    std::uint32_t torn = 0;
    std::thread reader([&] {
        for (std::uint32_t round = 1; round <= kRounds; ++round) {
            while (published.load(std::memory_order_acquire) != round) std::this_thread::yield();
            const auto due = static_cast<std::byte>(round & 0xFFU);
            torn += std::ranges::any_of(target, [due](std::byte byte) { return byte != due; });
            read.store(round, std::memory_order_release);
        }
    });
    for (std::uint32_t round = 1; round <= kRounds; ++round) {
        const Bytes source(kSize, static_cast<std::byte>(round & 0xFFU));
        stream_copy(target.data(), source.data(), kSize);
        stream_fence();
        published.store(round, std::memory_order_release);
        while (read.load(std::memory_order_acquire) != round) std::this_thread::yield();
    }
    reader.join();
    EXPECT_EQ(torn, 0U);
}

}  // namespace
}  // namespace penstock::os

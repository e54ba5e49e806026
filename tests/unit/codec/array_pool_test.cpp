// The pool of memory for arrays: what it lends again and when, what it returns to the system, from
// several threads and around forks.
#include "codec/array_pool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "tests/unit/support/child.hpp"

namespace penstock::codec {
namespace {

using test::await;
using test::Child;
using test::require;

using Block = ArrayPool::Block;

constexpr std::size_t kMiB = std::size_t{1} << 20U;
constexpr std::int64_t kLong = 3'600'000'000'000;  // ns: no test takes an hour
constexpr std::uint64_t kLimit = 16 * kMiB;

void fill(const Block& block, int value) {
    std::memset(block.data, value, block.bytes);
}

bool is_full_of(const Block& block, int value) {
    return std::all_of(block.data, block.data + block.bytes,
                       [value](std::byte byte) { return byte == static_cast<std::byte>(value); });
}

TEST(ArrayPoolTest, LendsABlockAgain) {
    ArrayPool pool(kLimit, kLong);
    const Block first = pool.take(kMiB);
    ASSERT_GE(first.bytes, kMiB);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first.data) % 4096, 0U);
    fill(first, 1);
    EXPECT_EQ(pool.stats().in_use_bytes, first.bytes);
    pool.give_back(first);
    EXPECT_EQ(pool.stats().in_use_bytes, 0U);
    EXPECT_EQ(pool.stats().kept_bytes, first.bytes);
    const Block again = pool.take(kMiB - 100);
    EXPECT_EQ(again.data, first.data);
    EXPECT_EQ(again.bytes, first.bytes);
    const MemoryStats stats = pool.stats();
    EXPECT_EQ(stats.kept_bytes, 0U);
    EXPECT_EQ(stats.fresh, 1U);
    EXPECT_EQ(stats.recycled, 1U);
    EXPECT_EQ(stats.returned_bytes, 0U);
    pool.give_back(again);
}

TEST(ArrayPoolTest, LendsNoBlockTwice) {
    ArrayPool pool(kLimit, kLong);
    const Block one = pool.take(kMiB);
    const Block other = pool.take(kMiB);
    fill(one, 1);
    fill(other, 2);
    EXPECT_TRUE(is_full_of(one, 1));
    pool.give_back(other);
    const Block third = pool.take(kMiB);
    EXPECT_EQ(third.data, other.data);
    fill(third, 3);
    EXPECT_TRUE(is_full_of(one, 1));
    pool.give_back(one);
    pool.give_back(third);
}

TEST(ArrayPoolTest, TakesTheBlockThatWastesLeast) {
    ArrayPool pool(kLimit, kLong);
    const Block small = pool.take(2 * kMiB);
    const Block large = pool.take(3 * kMiB);
    pool.give_back(small);
    pool.give_back(large);
    const Block fitting = pool.take(2 * kMiB);
    EXPECT_EQ(fitting.data, small.data);
    const Block next = pool.take(2 * kMiB);  // a third is wasted
    EXPECT_EQ(next.data, large.data);
    pool.give_back(next);
    const Block tiny = pool.take(kMiB);  // of 3 MiB more than half would be
    EXPECT_NE(tiny.data, large.data);
    pool.give_back(fitting);
    pool.give_back(tiny);
}

TEST(ArrayPoolTest, KeepsNoMoreThanItsLimit) {
    ArrayPool pool(kLimit, kLong);
    std::vector<Block> blocks(5);
    for (Block& block : blocks) block = pool.take(5 * kMiB);
    for (const Block& block : blocks) pool.give_back(block);
    EXPECT_EQ(pool.stats().kept_bytes, 15 * kMiB);
    EXPECT_EQ(pool.stats().returned_bytes, 10 * kMiB);
    EXPECT_EQ(pool.take(5 * kMiB).data, blocks.back().data);  // the oldest were returned
    pool.give_back(blocks.back());
    const Block large = pool.take(kLimit + 1);
    pool.give_back(large);
    EXPECT_LE(pool.stats().kept_bytes, kLimit);
}

TEST(ArrayPoolTest, ABlockThatCannotStayDrivesNoneOut) {
    ArrayPool pool(kLimit, kLong);
    const Block small = pool.take(kMiB);
    const Block large = pool.take(kLimit + 1);
    pool.give_back(small);
    pool.give_back(large);
    EXPECT_EQ(pool.stats().kept_bytes, kMiB);
    EXPECT_EQ(pool.stats().returned_bytes, large.bytes);
}

TEST(ArrayPoolTest, KeepsNoMoreThanWasEverInUse) {
    ArrayPool pool(kLimit, kLong);
    for (std::size_t size = 1; size <= 7; size += 2) {
        pool.give_back(pool.take(size * kMiB));
        EXPECT_LE(pool.stats().kept_bytes, size * kMiB);
    }
}

TEST(ArrayPoolTest, ReturnsWhatIsIdle) {
    ArrayPool pool(kLimit, 1'000'000);
    const Block block = pool.take(kMiB);
    pool.give_back(block);
    await([&pool] {
        pool.trim();
        return pool.stats().kept_bytes == 0;
    });
    EXPECT_EQ(pool.stats().returned_bytes, block.bytes);
    ArrayPool patient(kLimit, kLong);
    patient.give_back(patient.take(kMiB));
    patient.trim();
    EXPECT_EQ(patient.stats().kept_bytes, kMiB);
}

TEST(ArrayPoolTest, RefusesWhatNoMachineHas) {
    ArrayPool pool(kLimit, kLong);
    pool.give_back(pool.take(kMiB));
    EXPECT_EQ(pool.take(std::numeric_limits<std::size_t>::max()).data, nullptr);
    EXPECT_EQ(pool.stats().kept_bytes, kMiB);
    EXPECT_EQ(pool.take(std::numeric_limits<std::size_t>::max() / 2).data, nullptr);
    EXPECT_EQ(pool.stats().kept_bytes, 0U);  // returned, in case that it was what lacked
    EXPECT_EQ(pool.stats().in_use_bytes, 0U);
    EXPECT_EQ(pool.stats().fresh, 1U);
}

TEST(ArrayPoolTest, ServesThreads) {
    constexpr int kThreads = 4;
    constexpr int kRounds = 200;
    ArrayPool pool(4 * kMiB, kLong);
    std::atomic<int> torn{0};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
        threads.emplace_back([&pool, &torn, thread] {
            for (int round = 0; round < kRounds; ++round) {
                const Block block =
                    pool.take(ArrayPool::kLeast * static_cast<std::size_t>(1 + round % 3));
                fill(block, thread);
                std::this_thread::yield();
                if (!is_full_of(block, thread)) ++torn;
                pool.give_back(block);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(torn.load(), 0);
    const MemoryStats stats = pool.stats();
    EXPECT_EQ(stats.in_use_bytes, 0U);
    EXPECT_LE(stats.kept_bytes, 4 * kMiB);
    EXPECT_EQ(stats.fresh + stats.recycled, std::uint64_t{kThreads} * kRounds);
}

TEST(ArrayPoolTest, AForkedChildHasItsOwn) {
    ArrayPool& pool = array_pool();
    const Block lent = pool.take(kMiB);
    fill(lent, 1);
    pool.give_back(pool.take(3 * kMiB));
    ASSERT_GE(pool.stats().kept_bytes, 3 * kMiB);
    Child child([&] {
        require(pool.stats().kept_bytes == 0);
        require(pool.stats().in_use_bytes >= lent.bytes);
        require(is_full_of(lent, 1));
        fill(lent, 2);
        pool.give_back(lent);
        require(pool.take(kMiB).data == lent.data);
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_GE(pool.stats().kept_bytes, 3 * kMiB);
    EXPECT_TRUE(is_full_of(lent, 1));
    pool.give_back(lent);
}

// The mutex is free in the child, whatever other threads were doing.
TEST(ArrayPoolTest, AChildOfABusyProcessCanUseIt) {
    ArrayPool& pool = array_pool();
    std::atomic<bool> ends{false};
    std::thread busy([&pool, &ends] {
        while (!ends) pool.give_back(pool.take(ArrayPool::kLeast));
    });
    for (int round = 0; round < 50; ++round) {
        Child child([&pool] { pool.give_back(pool.take(kMiB)); });
        EXPECT_EQ(child.wait(), 0);
    }
    ends = true;
    busy.join();
}

}  // namespace
}  // namespace penstock::codec

// The heap: blocks of every size and alignment that tile it and are joined when free; a name for
// every used block; memory that is reserved when promised and given back on request.
#include "segment/memory/heap.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <utility>
#include <vector>

#include "tests/unit/segment/memory/heap_stage.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/refused_calls.hpp"

namespace penstock::detail {
namespace {

using test::Child;
using test::HeapStage;
using test::require;

TEST(HeapTest, ABlockMayTakeTheWholeHeap) {
    HeapStage stage;
    const HeapBlock all = stage.take(0, stage.geometry().bytes());
    EXPECT_EQ(all.length, stage.geometry().granules);
    EXPECT_EQ(stage.take(1, 1).length, 0U);
    stage.check();
    EXPECT_TRUE(stage.give(0));
    stage.check();
    EXPECT_EQ(stage.heap.use().largest_free, stage.geometry().bytes());
}

TEST(HeapTest, NeighboursAreJoinedInEveryOrder) {
    std::vector<unsigned> order{0, 1, 2, 3};
    do {
        HeapStage stage(64, 4096);
        for (unsigned at = 0; at < 4; ++at) ASSERT_GT(stage.take(at, 64 * (at + 1)).length, 0U);
        for (const unsigned at : order) {
            ASSERT_TRUE(stage.give(at));
            stage.check();
        }
        EXPECT_EQ(stage.heap.use().free_blocks, 1U);
    } while (std::next_permutation(order.begin(), order.end()));
}

TEST(HeapTest, AddressesAreAlignedAsAsked) {
    HeapStage stage(64, 1U << 18U);
    std::mt19937 random(1);
    std::uint64_t number = 0;
    for (std::uint64_t alignment = 64; alignment <= (2U << 20U); alignment *= 2) {
        ++number;
        const HeapBlock block = stage.take(number, 1 + random() % 100'000, alignment);
        ASSERT_GT(block.length, 0U) << alignment;
        EXPECT_EQ((HeapStage::kFileOffset + stage.heap.offset(block)) % alignment, 0U);
        stage.check();
    }
}

TEST(HeapTest, ABlockGrowsAndShrinksWhereItIs) {
    HeapStage stage;
    HeapBlock block = stage.take(0, 10 * 1024);
    const HeapBlock next = stage.take(1, 1024);
    EXPECT_EQ(stage.heap.resize(block, 11 * 1024), Heap::Fit::NoRun) << "another lies there";
    EXPECT_EQ(block.length, 10U);
    EXPECT_EQ(stage.heap.resize(block, 4 * 1024), Heap::Fit::Found);
    stage.check();
    EXPECT_EQ(stage.take(2, 6 * 1024).first, block.first + 4);
    ASSERT_TRUE(stage.give(2));
    EXPECT_EQ(stage.heap.resize(block, 10 * 1024), Heap::Fit::Found);
    stage.check();
    EXPECT_EQ(next.first, block.first + block.length);
    EXPECT_TRUE(stage.give(0));
    EXPECT_TRUE(stage.give(1));
    stage.check();
}

TEST(HeapTest, AnAllocationForAChangedNameFails) {
    HeapStage stage;
    layout::Word& name = stage.name(0);
    const std::uint64_t seen = stage.words.read(name);
    ASSERT_TRUE(MultiWord::change(name, seen, 5));
    EXPECT_EQ(stage.heap.allocate({1024, 64}, name, seen).fit, Heap::Fit::NameGone);
    ASSERT_TRUE(MultiWord::change(name, stage.words.read(name), 0));
    stage.check();
    ASSERT_GT(stage.take(0, 1024).length, 0U);
    WordPlan stale;
    stale.set(name, seen, 0);
    EXPECT_FALSE(stage.heap.free(stage.heap.block_named(1), stale));
    stage.check();
    EXPECT_TRUE(stage.give(0));
}

TEST(HeapTest, MemoryComesWithBlocksAndGoesWithTrim) {
    HeapStage stage(4096, 4096);
    EXPECT_EQ(stage.reserved(), 0U);
    ASSERT_GT(stage.take(0, 1U << 20U).length, 0U);
    EXPECT_EQ(stage.heap.use().reserved_bytes, 1U << 20U);
    EXPECT_GE(stage.reserved(), 1U << 20U);
    ASSERT_GT(stage.take(1, 1U << 20U).length, 0U);
    ASSERT_TRUE(stage.give(0));
    EXPECT_EQ(stage.heap.trim(0, 8U << 20U), 0U) << "as much may stay";
    EXPECT_EQ(stage.heap.trim(0, 0), 1U << 20U);
    stage.check();
    EXPECT_EQ(stage.heap.use().reserved_bytes, 1U << 20U);
    ASSERT_TRUE(stage.give(1));
    EXPECT_EQ(stage.heap.trim(0, 0), 1U << 20U);
    EXPECT_EQ(stage.reserved(), 0U);
    stage.check();
}

TEST(HeapTest, ABlockLongerThanTheHeapIsNotFound) {
    HeapStage stage(1024, 4096);
    HeapBlock block = stage.take(0, 1024);
    for (const std::uint64_t bytes :
         {stage.geometry().bytes() + 1, std::uint64_t{1} << 42U, (std::uint64_t{1} << 42U) + 1024,
          ~std::uint64_t{0} - 1022, ~std::uint64_t{0}}) {
        EXPECT_EQ(stage.take(1, bytes).length, 0U) << bytes;
        EXPECT_EQ(stage.heap.resize(block, bytes), Heap::Fit::NoRun) << bytes;
    }
    stage.check();
}

TEST(HeapTest, TrimLeavesNoChunkBetweenItsParts) {
    HeapStage stage(1024, 4096);
    ASSERT_EQ(stage.take(0, 2000 * 1024).length, 2000U);  // ends in the middle of a chunk
    ASSERT_GT(stage.take(1, 1024).length, 0U);
    ASSERT_TRUE(stage.give(0));
    stage.heap.trim(0, 0);
    EXPECT_EQ(stage.heap.use().reserved_bytes, stage.geometry().chunk_bytes());
    stage.check();
}

TEST(HeapTest, LargeGranulesAreTrimmedToo) {
    Child child([] {
        HeapStage stage(2U << 20U, 8);
        require(stage.take(0, 4U << 20U).length == 2);
        require(stage.give(0));
        require(stage.heap.trim(0, 0) == 4U << 20U);
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST(HeapTest, ReapingAndTrimmingLeaveNamedBlocks) {
    HeapStage stage;
    ASSERT_GT(stage.take(0, 1024).length, 0U);
    stage.heap.reap(0x3FF);
    stage.check();
    stage.heap.trim(0x3FF, 0);
    stage.check();
}

TEST(HeapTest, DamagedWordsAreReported) {
    Child child([] {
        constexpr std::uint64_t kNothing = layout::kWordMark | 17;
        HeapStage stage;
        stage.name(0).store(kNothing);
        require(stage.heap.allocate({1024, 64}, stage.name(0), MultiWord::kBroken).fit ==
                Heap::Fit::Damaged);
        HeapBlock block = stage.take(1, 1024);
        stage.granule(4095).store(kNothing);
        require(stage.heap.allocate({1024, 64}, stage.name(2), 0).fit == Heap::Fit::Damaged);
        require(!stage.give(1));
        require(stage.heap.resize(block, 2048) == Heap::Fit::Damaged);
    });
    EXPECT_EQ(child.wait(), 0);
}

// A contradiction that stays is damage, and not a change under way: it is not waited for.
TEST(HeapTest, ContradictoryWordsAreReportedAtOnce) {
    Child child([] {
        HeapStage stage;
        HeapBlock block = stage.take(1, 1024);
        stage.granule(block.first + 1).store(0);  // a free block without its first word
        require(stage.heap.resize(block, 2048) == Heap::Fit::Damaged);
        require(!stage.give(1));
        require(stage.words.read(stage.name(1)) != 0);
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST(HeapTest, WithoutMemoryNothingIsAllocated) {
    HeapStage stage;
    ASSERT_GT(stage.take(1, 1024).length, 0U);
    Child child([&] {
        if (!test::refuse_calls({test::kNoSpaceLeft})) ::_exit(test::kCannotRefuse);
        stage.join(1);
        const auto outcome = stage.heap.allocate({1U << 20U, 64}, stage.name(0), 0);
        require(outcome.fit == Heap::Fit::NoMemory);
        require(outcome.error == std::errc::no_space_on_device);
        HeapBlock block = stage.heap.block_named(payload_of(stage.words.read(stage.name(1))));
        require(stage.heap.resize(block, 1U << 20U) == Heap::Fit::NoMemory && block.length == 1);
    });
    const int outcome = child.wait();
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "seccomp is not to be had";
    EXPECT_EQ(outcome, 0);
    stage.check();
}

// Sizes over three decades, 95 % full, a million operations: every allocation succeeds as long as
// 15 % of the heap is free in total.
class FragmentationTest : public ::testing::TestWithParam<unsigned> {};

TEST_P(FragmentationTest, StaysBounded) {
    HeapStage stage(512, 1U << 18U);  // 128 MiB
    const auto capacity = static_cast<double>(stage.geometry().bytes());
    std::mt19937_64 random(GetParam());
    std::uniform_real_distribution<double> decades(0, 3);
    std::vector<std::pair<std::uint64_t, std::uint64_t>> live;  // name, bytes
    std::vector<std::uint64_t> names;
    for (std::uint64_t name = 0; name < HeapStage::kNames; ++name) names.push_back(name);
    double used = 0;
    double worst = 0;
    std::uint64_t refused = 0;
    const auto give_one = [&] {
        std::swap(live[random() % live.size()], live.back());
        const auto [name, bytes] = live.back();
        live.pop_back();
        ASSERT_TRUE(stage.give(name));
        names.push_back(name);
        used -= static_cast<double>(bytes);
    };
    for (int operation = 0; operation < 1'000'000;) {
        const auto bytes = static_cast<std::uint64_t>(1000 * std::pow(10.0, decades(random)));
        while (!live.empty() &&
               (names.empty() || used + static_cast<double>(bytes) > 0.95 * capacity)) {
            give_one();
            ++operation;
        }
        const std::uint64_t name = names.back();
        ++operation;
        if (const HeapBlock block = stage.take(name, bytes); block.length > 0) {
            names.pop_back();
            used += static_cast<double>(bytes);
            live.emplace_back(name, bytes);
            continue;
        }
        ++refused;
        worst = std::max(worst, 1 - used / capacity);
        ASSERT_LT(1 - used / capacity, 0.15) << bytes << " bytes were refused";
        give_one();
        ++operation;
    }
    stage.check();
    std::printf("refused %llu of 1000000, with at most %.1f %% free\n",
                static_cast<unsigned long long>(refused), 100 * worst);
}

INSTANTIATE_TEST_SUITE_P(Seeds, FragmentationTest, ::testing::Range(1U, 4U));

}  // namespace
}  // namespace penstock::detail

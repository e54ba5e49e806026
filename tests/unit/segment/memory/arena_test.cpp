// The arena: blocks that do not overlap, memory that is reserved when promised and given back when
// asked, and everything of the dead found again.
#include "segment/memory/arena.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "tests/unit/segment/memory/arena_stage.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/refused_calls.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock::detail {
namespace {

using test::ArenaStage;
using test::Child;
using test::fails;
using test::require;
using test::succeeds;

constexpr std::uint64_t kGranule = ArenaStage::kGranule;
constexpr std::uint32_t kGranules = ArenaStage::kGranules;
constexpr unsigned kOwner = 3;
constexpr unsigned kOther = 7;

// From the comment at the granule word in arena.cpp.
constexpr std::uint64_t kStateMask = 3;
constexpr std::uint64_t kFreeing = 3;
constexpr unsigned kLengthShift = 16;
constexpr std::uint64_t kLengthMask = std::uint64_t{0xFFFFFFF} << kLengthShift;

class ArenaTest : public ::testing::Test {
protected:
    BlockId allocate(std::uint64_t granules, unsigned owner = kOwner) {
        const Result<BlockId> block = arena().allocate(granules * kGranule, owner);
        EXPECT_TRUE(succeeds(block));
        return block ? *block : BlockId{};
    }
    Arena& arena() { return stage_.arena; }
    [[nodiscard]] std::uint64_t allocated_granules() {
        return arena().allocated_bytes() / kGranule;
    }
    // The words of a run, to be restored later: so a test makes a run look half claimed or half
    // freed.
    std::vector<std::uint64_t> copy_words(std::uint32_t first, std::uint32_t count) {
        std::vector<std::uint64_t> words;
        for (std::uint32_t i = 0; i < count; ++i) {
            words.push_back(stage_.word(first + i).owner.load());
        }
        return words;
    }
    void put_words(std::uint32_t first, const std::vector<std::uint64_t>& words) {
        for (std::size_t i = 0; i < words.size(); ++i) {
            stage_.word(first + static_cast<std::uint32_t>(i)).owner = words[i];
        }
    }

    ArenaStage stage_;
};

TEST_F(ArenaTest, NeedsControlMemoryForAWordEach) {
    EXPECT_EQ((ArenaGeometry{kGranule, 64}).control_bytes(), 64U * 8);
    EXPECT_EQ((ArenaGeometry{kGranule, 1}).control_bytes(), 128U);
    EXPECT_EQ((ArenaGeometry{kGranule, 0}).control_bytes(), 0U);
    EXPECT_EQ(arena().range_bytes(), kGranules * kGranule);
}

TEST_F(ArenaTest, BlocksTakeWholeGranules) {
    const std::pair<std::uint64_t, std::uint64_t> cases[] = {
        {0, 1}, {1, 1}, {kGranule, 1}, {kGranule + 1, 2}, {5 * kGranule, 5}};
    for (const auto& [bytes, granules] : cases) {
        const Result<BlockId> block = arena().allocate(bytes, kOwner);
        ASSERT_TRUE(succeeds(block));
        EXPECT_EQ(allocated_granules(), granules) << bytes;
        EXPECT_TRUE(arena().is_valid(*block, granules * kGranule));
        EXPECT_FALSE(arena().is_valid(*block, granules * kGranule + 1));
        arena().free(*block, kOwner);
        EXPECT_EQ(allocated_granules(), 0U);
    }
}

TEST_F(ArenaTest, BlocksLieSideBySide) {
    std::vector<BlockId> blocks;
    for (const std::uint64_t granules : {1U, 2U, 3U, 10U, 48U})
        blocks.push_back(allocate(granules));
    EXPECT_EQ(allocated_granules(), kGranules);
    const std::byte* expected = arena().data(BlockId{});
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        EXPECT_EQ(arena().data(blocks[i]), expected) << "block " << i;
        expected += std::vector<std::uint64_t>{1, 2, 3, 10, 48}[i] * kGranule;
    }
}

TEST_F(ArenaTest, ReservedMemoryIsUsedFirst) {
    const BlockId first = allocate(2);
    const BlockId second = allocate(2);
    arena().free(first, kOwner);
    const BlockId third = allocate(1);
    EXPECT_EQ(third.granule, first.granule);
    EXPECT_EQ(allocate(2).granule, second.granule + 2) << "one free granule is not enough";
    EXPECT_EQ(allocate(1).granule, first.granule + 1);
}

TEST_F(ArenaTest, AStaleNameFreesNothing) {
    const BlockId old = allocate(2);
    arena().free(old, kOwner);
    EXPECT_FALSE(arena().is_valid(old, 1));
    const BlockId fresh = allocate(2);
    EXPECT_EQ(fresh.granule, old.granule);
    EXPECT_NE(fresh.generation, old.generation);
    EXPECT_TRUE(arena().is_valid(fresh, 1));
    EXPECT_FALSE(arena().is_valid(old, 1));
    arena().free(old, kOwner);  // again: a stale name frees nothing
    EXPECT_TRUE(arena().is_valid(fresh, 1));
    EXPECT_EQ(allocated_granules(), 2U);
}

TEST_F(ArenaTest, ANameWithoutABlockIsInvalid) {
    const BlockId block = allocate(4);
    EXPECT_FALSE(arena().is_valid({block.granule + 1, block.generation}, 1)) << "a body";
    EXPECT_FALSE(arena().is_valid({block.granule + 4, block.generation}, 1)) << "free";
    EXPECT_FALSE(arena().is_valid({kGranules, 0}, 1));
    EXPECT_FALSE(arena().is_valid({~std::uint32_t{0}, 0}, 1));
    EXPECT_FALSE(arena().is_valid(block, ~std::uint64_t{0}));
    stage_.word(block.granule).owner |= kLengthMask;  // corrupted
    EXPECT_FALSE(arena().is_valid(block, 1)) << "it would reach beyond the end";
}

TEST_F(ArenaTest, ABlockThatCanNeverFitIsTooLarge) {
    EXPECT_TRUE(fails(arena().allocate(kGranules * kGranule + 1, kOwner), ErrorCode::TooLarge,
                      {std::to_string(kGranules * kGranule + 1) + " bytes can never fit in " +
                       std::to_string(kGranules * kGranule)}));
    EXPECT_TRUE(fails(arena().allocate(~std::uint64_t{0}, kOwner), ErrorCode::TooLarge));
    EXPECT_TRUE(succeeds(arena().allocate(kGranules * kGranule, kOwner)));
}

TEST_F(ArenaTest, OneWithoutGranulesHoldsNothing) {
    Arena empty(ArenaGeometry{kGranule, 0}, nullptr, nullptr, stage_.file(), 0);
    EXPECT_TRUE(fails(empty.allocate(0, kOwner), ErrorCode::TooLarge));
    EXPECT_TRUE(fails(empty.allocate(1, kOwner), ErrorCode::TooLarge));
    EXPECT_EQ(empty.allocated_bytes(), 0U);
    EXPECT_EQ(empty.trim(kOwner, 0), 0U);
    EXPECT_FALSE(empty.is_valid({0, 0}, 0));
}

TEST_F(ArenaTest, AFullArenaIsBusyUntilABlockIsFreed) {
    const BlockId first = allocate(kGranules / 2);
    allocate(kGranules / 2);
    EXPECT_TRUE(fails(arena().allocate(1, kOwner), ErrorCode::Busy, {"no free run of 1 bytes"}));
    arena().free(first, kOwner);
    EXPECT_TRUE(fails(arena().allocate((kGranules / 2 + 1) * kGranule, kOwner), ErrorCode::Busy));
    EXPECT_TRUE(succeeds(arena().allocate(kGranules / 2 * kGranule, kOwner)));
}

TEST_F(ArenaTest, ARunMustBeFreeInOnePiece) {
    std::vector<BlockId> blocks;
    for (std::uint32_t i = 0; i < kGranules; ++i) blocks.push_back(allocate(1));
    for (std::uint32_t i = 0; i < kGranules; i += 2) arena().free(blocks[i], kOwner);
    EXPECT_TRUE(fails(arena().allocate(2 * kGranule, kOwner), ErrorCode::Busy));
    arena().free(blocks[kGranules - 1], kOwner);
    EXPECT_EQ(allocate(2).granule, kGranules - 2) << "the very last run counts too";
    arena().free(blocks[1], kOwner);
    EXPECT_EQ(allocate(3).granule, 0U) << "and so does the first";
    EXPECT_EQ(allocated_granules(), kGranules / 2 - 2 + 2 + 3);
}

TEST_F(ArenaTest, AFailedSearchLeavesNothingBehind) {
    allocate(kGranules - 1);
    const auto before = copy_words(0, kGranules);
    for (int i = 0; i < 3; ++i)
        EXPECT_TRUE(fails(arena().allocate(2 * kGranule, kOwner), ErrorCode::Busy));
    EXPECT_EQ(copy_words(0, kGranules), before);
}

TEST_F(ArenaTest, MemoryIsReservedWithTheBlockAndStaysUntilItIsTrimmed) {
    EXPECT_EQ(stage_.reserved(), 0U);
    const BlockId first = allocate(3);
    EXPECT_EQ(stage_.reserved(), 3 * kGranule);
    const BlockId second = allocate(2);
    EXPECT_EQ(stage_.reserved(), 5 * kGranule);
    arena().free(first, kOwner);
    EXPECT_EQ(stage_.reserved(), 5 * kGranule);
    const BlockId third = allocate(3);
    EXPECT_EQ(stage_.reserved(), 5 * kGranule) << "used again";
    arena().free(second, kOwner);
    allocate(4);
    EXPECT_EQ(stage_.reserved(), 7 * kGranule) << "only what is missing is asked for";
    arena().free(third, kOwner);
}

TEST_F(ArenaTest, TrimmingGivesFreeMemoryBack) {
    const BlockId first = allocate(3);
    const BlockId second = allocate(2);
    const BlockId third = allocate(4);
    std::memset(arena().data(second), 'x', 2 * kGranule);
    arena().free(first, kOwner);
    arena().free(third, kOwner);
    EXPECT_EQ(arena().trim(kOwner, 0), 7 * kGranule);
    EXPECT_EQ(stage_.reserved(), 2 * kGranule);
    EXPECT_EQ(allocated_granules(), 2U);
    EXPECT_TRUE(arena().is_valid(second, 2 * kGranule));
    EXPECT_EQ(arena().data(second)[2 * kGranule - 1], std::byte{'x'}) << "what is in use stays";
    EXPECT_EQ(arena().trim(kOwner, 0), 0U) << "nothing left to give";
    const BlockId again = allocate(3);
    EXPECT_EQ(stage_.reserved(), 5 * kGranule) << "reserved anew before it is promised";
    EXPECT_EQ(again.granule, first.granule);
    EXPECT_NE(again.generation, first.generation);
}

TEST_F(ArenaTest, TrimmingKeepsAsMuchFreeMemoryAsItIsToldTo) {
    const BlockId before = allocate(2);
    const BlockId middle = allocate(8);
    const BlockId after = allocate(3);
    arena().free(middle, kOwner);
    EXPECT_EQ(arena().trim(kOwner, 100 * kGranule), 0U);
    EXPECT_EQ(arena().trim(kOwner, 6 * kGranule), 2 * kGranule);
    EXPECT_EQ(stage_.reserved(), 11 * kGranule) << "what is in use does not count";
    EXPECT_EQ(arena().trim(kOwner, 6 * kGranule), 0U);
    EXPECT_TRUE(arena().is_valid(before, 2 * kGranule));
    EXPECT_TRUE(arena().is_valid(after, 3 * kGranule));
}

TEST_F(ArenaTest, WithoutSpaceNothingIsPromised) {
    Child child([&] {
        stage_.open();
        const Result<BlockId> first = arena().allocate(kGranule, kOwner);
        require(first.is_ok());
        if (!test::refuse_calls({test::kNoSpaceLeft})) ::_exit(test::kCannotRefuse);
        require(static_cast<bool>(fails(arena().allocate(3 * kGranule, kOwner), ErrorCode::NoSpace,
                                        {"could not reserve 12288 bytes"})));
        require(arena().allocated_bytes() == kGranule);
        require(stage_.reserved() == kGranule);
        arena().free(*first, kOwner);
        require(arena().allocate(kGranule, kOwner).is_ok());  // this one has its memory already
        require(static_cast<bool>(fails(arena().allocate(kGranule, kOwner), ErrorCode::NoSpace)));
    });
    const int outcome = child.wait();
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

TEST_F(ArenaTest, FreeingADamagedBlockChangesNothing) {
    const BlockId block = allocate(4);
    const auto healthy = copy_words(0, kGranules);
    for (const std::uint64_t length :
         {std::uint64_t{0}, std::uint64_t{kGranules + 1}, kLengthMask >> kLengthShift}) {
        put_words(0, healthy);
        stage_.word(block.granule).owner = (healthy[0] & ~kLengthMask) | length << kLengthShift;
        const auto damaged = copy_words(0, kGranules);
        arena().free(block, kOwner);
        arena().reap(kOwner);
        EXPECT_EQ(copy_words(0, kGranules), damaged) << "length " << length;
    }
}

TEST_F(ArenaTest, ReapingTakesBackWhatTheDeadOneOwned) {
    const BlockId own = allocate(3, kOwner);
    const BlockId foreign = allocate(2, kOther);
    const BlockId more = allocate(1, kOwner);
    for (int turn = 0; turn < 2; ++turn) {  // repeatable
        arena().reap(kOwner);
        EXPECT_EQ(allocated_granules(), 2U);
        EXPECT_FALSE(arena().is_valid(own, 1));
        EXPECT_FALSE(arena().is_valid(more, 1));
        EXPECT_TRUE(arena().is_valid(foreign, 2 * kGranule));
    }
    allocate(kGranules - 5, kOther);
    allocate(3, kOther);
}

// The steps of claiming and freeing a run of five, as a death leaves them: so many body words are
// written.
class HalfDoneRunTest : public ArenaTest, public ::testing::WithParamInterface<std::uint32_t> {};
constexpr std::uint32_t kRun = 5;

INSTANTIATE_TEST_SUITE_P(Bodies, HalfDoneRunTest, ::testing::Range(0U, kRun));

TEST_P(HalfDoneRunTest, AHalfClaimedRunIsReaped) {
    const std::uint32_t claimed = GetParam();
    const auto free_words = copy_words(0, kRun);
    const BlockId block = allocate(kRun);
    const std::uint32_t first_unclaimed = 1 + claimed;
    put_words(first_unclaimed, {free_words.begin() + first_unclaimed, free_words.end()});
    arena().reap(kOwner);
    EXPECT_EQ(allocated_granules(), 0U);
    EXPECT_FALSE(arena().is_valid(block, 1));
    EXPECT_EQ(allocate(kGranules).granule, 0U);
}

TEST_P(HalfDoneRunTest, ReapingAHalfClaimedRunSparesOtherBlocks) {
    const std::uint32_t claimed = GetParam();
    const auto free_words = copy_words(0, kRun);
    allocate(kRun);
    const std::uint32_t first_unclaimed = 1 + claimed;
    put_words(first_unclaimed, {free_words.begin() + first_unclaimed, free_words.end()});
    const BlockId theirs = allocate(kRun - claimed, kOther);
    ASSERT_EQ(theirs.granule, first_unclaimed);
    arena().reap(kOwner);
    EXPECT_EQ(allocated_granules(), kRun - claimed);
    EXPECT_TRUE(arena().is_valid(theirs, (kRun - claimed) * kGranule));
    EXPECT_EQ(allocate(first_unclaimed, kOther).granule, 0U);
    arena().reap(kOther);
    EXPECT_EQ(allocated_granules(), 0U);
}

TEST_P(HalfDoneRunTest, AHalfFreedRunIsReaped) {
    const std::uint32_t still_bodies = GetParam();
    const BlockId block = allocate(kRun);
    const auto words = copy_words(0, kRun);
    arena().free(block, kOwner);
    put_words(0, {words.begin(), words.begin() + 1 + still_bodies});
    stage_.word(0).owner = (words[0] & ~kStateMask) | kFreeing;
    EXPECT_FALSE(arena().is_valid(block, 1)) << "being freed";
    EXPECT_EQ(allocated_granules(), 1 + still_bodies);
    arena().reap(kOther);
    EXPECT_EQ(allocated_granules(), 1 + still_bodies) << "another owner's";
    arena().reap(kOwner);
    EXPECT_EQ(allocated_granules(), 0U);
    EXPECT_EQ(allocate(kGranules).granule, 0U);
}

TEST_F(ArenaTest, ReservedMemoryIsRememberedThroughReaping) {
    allocate(6);
    arena().reap(kOwner);
    EXPECT_EQ(stage_.reserved(), 6 * kGranule);
    EXPECT_EQ(arena().trim(kOther, 0), 6 * kGranule);
    EXPECT_EQ(stage_.reserved(), 0U);
}

TEST_F(ArenaTest, GenerationsWrapWithoutHarm) {
    BlockId block = allocate(1);
    stage_.word(0).owner |= std::uint64_t{0xFFFFF} << 44U;  // the last generation
    block.generation = 0xFFFFF;
    ASSERT_TRUE(arena().is_valid(block, 1));
    arena().free(block, kOwner);
    const BlockId next = allocate(1);
    EXPECT_EQ(next.granule, block.granule);
    EXPECT_EQ(next.generation, 0U);
    EXPECT_TRUE(arena().is_valid(next, 1));
    arena().free(next, kOwner);
    EXPECT_EQ(allocated_granules(), 0U);
}

}  // namespace
}  // namespace penstock::detail

// The writer's blocks: where they are allocated, when they are freed, and how much memory they
// take.
#include "broadcast/blocks.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "segment/life/membership.hpp"
#include "tests/unit/broadcast/broadcast_fixture.hpp"
#include "tests/unit/support/small_file_system.hpp"

namespace penstock::detail {
namespace {

using test::Child;
using test::fails;
using test::kGranule;
using test::require;
using test::succeeds;

constexpr std::uint32_t kGranules = 64;

// A segment whose slots say that it has two readers, and its writer's blocks.
struct Rig {
    Rig() {
        for (unsigned rank = 0; rank < 2; ++rank) {
            segment_->participants().announce(layout::slot_of_rank(rank));
        }
    }
    // Memory that is reserved for blocks.
    [[nodiscard]] std::uint64_t reserved_granules() const {
        return (segment_->reserved_bytes() - before_) / kGranule;
    }

    BroadcastShape shape_ = broadcast_shape_of(test::small(2, kGranules* kGranule));
    std::unique_ptr<Segment> segment_ =
        Segment::create("", plan_of(shape_), {},
                        [](Segment& fresh) { Membership::found(fresh, layout::kWriterSlot); });
    BroadcastView view_{shape_, segment_->control()};
    std::uint64_t before_ = segment_->reserved_bytes();
    WriterBlocks blocks_{view_, *segment_};
    BlockHolders holders_{view_};
};

class BlocksTest : public ::testing::Test, protected Rig {
protected:
    Block allocate(std::uint32_t granules) {
        const Result<Block> block = blocks_.allocate(granules * kGranule);
        EXPECT_TRUE(succeeds(block));
        return block ? *block : Block{};
    }
    [[nodiscard]] std::uint64_t held_granules() const {
        return view_.state().held_bytes / kGranule;
    }
};

TEST_F(BlocksTest, TakeWholeGranulesSideBySide) {
    const std::pair<std::uint64_t, std::uint32_t> cases[] = {
        {1, 1}, {kGranule, 1}, {kGranule + 1, 2}, {5 * kGranule, 5}};
    std::uint32_t first = 0;
    for (const auto& [bytes, granules] : cases) {
        const Result<Block> block = blocks_.allocate(bytes);
        ASSERT_TRUE(succeeds(block));
        EXPECT_EQ(block->first, first);
        EXPECT_EQ(block->granules, granules);
        first += granules;
    }
    EXPECT_EQ(held_granules(), first);
}

TEST_F(BlocksTest, TheFirstPlaceThatFitsIsUsedAgain) {
    const Block first = allocate(2);
    const Block second = allocate(2);
    blocks_.give_back(first);
    EXPECT_EQ(allocate(1).first, first.first);
    EXPECT_EQ(allocate(2).first, second.first + 2) << "one free granule is not enough";
    EXPECT_EQ(allocate(1).first, first.first + 1);
}

// Freed in every order: the free granules are one run in the end.
TEST_F(BlocksTest, WhatIsFreeIsJoined) {
    std::vector<int> order{0, 1, 2, 3};
    do {
        std::vector<Block> taken;
        for (int i = 0; i < 4; ++i) taken.push_back(allocate(kGranules / 4));
        for (const int i : order) blocks_.give_back(taken[static_cast<std::size_t>(i)]);
        blocks_.give_back(allocate(kGranules));
        EXPECT_EQ(held_granules(), 0U);
    } while (std::ranges::next_permutation(order).found);
}

TEST_F(BlocksTest, AreBusyUntilARunIsFreeInOnePiece) {
    std::vector<Block> taken;
    for (std::uint32_t i = 0; i < kGranules; ++i) taken.push_back(allocate(1));
    EXPECT_TRUE(fails(blocks_.allocate(1), ErrorCode::Busy, {"no free run of 1 bytes"}));
    for (std::uint32_t i = 0; i < kGranules; i += 2) blocks_.give_back(taken[i]);
    EXPECT_TRUE(fails(blocks_.allocate(2 * kGranule), ErrorCode::Busy));
    blocks_.give_back(taken[kGranules - 1]);
    EXPECT_EQ(allocate(2).first, kGranules - 2) << "the very last run counts too";
    blocks_.give_back(taken[1]);
    EXPECT_EQ(allocate(3).first, 0U) << "and so does the first";
}

TEST_F(BlocksTest, MemoryIsReservedWithTheBlockAndStaysUntilItIsTrimmed) {
    EXPECT_EQ(reserved_granules(), 0U);
    const Block first = allocate(3);
    const Block second = allocate(2);
    EXPECT_EQ(reserved_granules(), 5U);
    blocks_.give_back(first);
    blocks_.give_back(allocate(3));
    EXPECT_EQ(reserved_granules(), 5U) << "used again";
    blocks_.give_back(second);
    const Block third = allocate(7);
    EXPECT_EQ(reserved_granules(), 7U) << "only what is missing is asked for";
    blocks_.give_back(third);
    blocks_.trim();
    EXPECT_EQ(reserved_granules(), 0U);
    allocate(3);
    EXPECT_EQ(reserved_granules(), 3U) << "reserved anew";
}

TEST_F(BlocksTest, TrimmingWorksBesideBlocksInUse) {
    const Block first = allocate(3);
    const Block used = allocate(2);
    const Block third = allocate(4);
    blocks_.give_back(first);
    blocks_.give_back(third);
    std::byte* bytes = segment_->payload() + shape_.block_offset(used.first);
    std::fill_n(bytes, 2 * kGranule, std::byte{'x'});
    blocks_.trim();
    blocks_.trim();
    EXPECT_EQ(reserved_granules(), 2U);
    EXPECT_TRUE(std::all_of(bytes, bytes + 2 * kGranule,
                            [](std::byte is) { return is == std::byte{'x'}; }));
}

TEST_F(BlocksTest, ComeBackInTheOrderOfTheirRecords) {
    EXPECT_FALSE(blocks_.has_sent());
    EXPECT_EQ(blocks_.next_end(), 0U);
    blocks_.send(allocate(1), 100);
    blocks_.send(allocate(2), 200);
    EXPECT_EQ(blocks_.next_end(), 100U);
    EXPECT_FALSE(blocks_.recycle(99));
    EXPECT_EQ(held_granules(), 3U);
    EXPECT_TRUE(blocks_.recycle(100));
    EXPECT_EQ(held_granules(), 2U);
    EXPECT_EQ(blocks_.next_end(), 200U);
    EXPECT_TRUE(blocks_.recycle(1000));
    EXPECT_FALSE(blocks_.has_sent());
    EXPECT_FALSE(blocks_.recycle(1000));
    EXPECT_EQ(held_granules(), 0U);
}

TEST_F(BlocksTest, ThatReadersKeepComeBackWhenTheLastLetsGo) {
    const Block kept = allocate(1);
    blocks_.send(kept, 100);
    blocks_.send(allocate(1), 200);
    holders_.hold(kept.first, 0);
    holders_.hold(kept.first, 1);
    EXPECT_TRUE(blocks_.recycle(200));
    EXPECT_EQ(held_granules(), 1U);
    EXPECT_TRUE(blocks_.has_sent());
    EXPECT_EQ(blocks_.next_end(), 0U) << "no position lets it go";
    EXPECT_NE(allocate(1).first, kept.first);
    holders_.drop(kept.first, 1);
    EXPECT_FALSE(blocks_.recycle(200));
    holders_.drop(kept.first, 0);
    EXPECT_TRUE(blocks_.recycle(200));
    EXPECT_FALSE(blocks_.has_sent());
    EXPECT_EQ(allocate(1).first, kept.first);
}

// With 40 kept blocks and 16 checks a call, a dropped block is found within three calls.
TEST_F(BlocksTest, ThatReadersKeepAreLookedAtInTurn) {
    constexpr std::uint32_t kKept = 40;
    constexpr std::size_t kLooks = 16;
    for (std::uint32_t at = 0; at < kKept; ++at) {
        blocks_.send(allocate(1), 100);
        holders_.hold(at, 0);
    }
    EXPECT_FALSE(blocks_.recycle(100));
    for (const std::uint32_t freed : {kKept - 1, 0U}) {
        holders_.drop(freed, 0);
        std::size_t turns = 1;
        while (!blocks_.recycle(100, kLooks) && turns < kKept) ++turns;
        EXPECT_LE(turns, 3U);
        EXPECT_EQ(allocate(1).first, freed);
        holders_.drop(freed == 0 ? 1 : freed - 1, 0);
        EXPECT_TRUE(blocks_.recycle(100)) << "and a look at all at once";
    }
    for (std::uint32_t at = 0; at < kKept; ++at) holders_.drop(at, 0);
    blocks_.recycle(100);
    EXPECT_FALSE(blocks_.has_sent());
    EXPECT_EQ(held_granules(), 2U);
}

// Blocks of 1 to 8 granules, at most four in flight: free granules are not cut up, so that reserved
// memory stays near what is in flight.
TEST_F(BlocksTest, MemoryStaysNearWhatIsInFlight) {
    std::minstd_rand random(7);  // the same every time
    std::deque<Block> flight;
    std::uint64_t most = 0;
    for (int turn = 0; turn < 20'000; ++turn) {
        flight.push_back(allocate(1 + static_cast<std::uint32_t>(random() % 8)));
        most = std::max(most, held_granules());
        if (flight.size() < 4) continue;
        blocks_.give_back(flight.front());
        flight.pop_front();
    }
    EXPECT_LE(reserved_granules(), 2 * most);
}

#ifdef __x86_64__

// The memory of free granules elsewhere is given back, so that the block can have it.
TEST_F(BlocksTest, OnAFullFileSystemTheirOwnFreeMemoryWillDo) {
    Child child([] {
        Rig rig;
        const auto resize = [&](std::uint64_t granules) {
            test::SmallFileSystem::size =
                static_cast<std::int64_t>(rig.before_ + granules * kGranule);
        };
        if (!test::SmallFileSystem::begin()) ::_exit(test::kCannotRefuse);
        resize(kGranules);
        const Block first = rig.blocks_.allocate(7 * kGranule).or_throw();
        const Block second = rig.blocks_.allocate(4 * kGranule).or_throw();
        rig.blocks_.give_back(first);
        rig.blocks_.trim();
        rig.blocks_.give_back(second);  // free, and it has memory
        resize(5);                      // one more than it has
        require(rig.blocks_.allocate(5 * kGranule).or_throw().first == 0);
        require(rig.reserved_granules() == 5);
        require(rig.blocks_.allocate(1).code() == ErrorCode::NoSpace);
        rig.blocks_.give_back({0, 5});
        require(rig.blocks_.allocate(6 * kGranule).code() == ErrorCode::NoSpace);
        require(rig.reserved_granules() == 0);  // free granules keep no memory
    });
    const int end = child.wait();
    if (end == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(end, 0);
}

#endif

TEST_F(BlocksTest, MemoryThatTheSystemKeepsIsTrimmedLater) {
    Child child([] {
        Rig rig;
        const auto refused = {test::Refusal{SYS_madvise, EIO, 2, ~0U, MADV_REMOVE}};
        rig.blocks_.give_back(rig.blocks_.allocate(3 * kGranule).or_throw());
        if (!test::refuse_calls(refused)) ::_exit(test::kCannotRefuse);
        require(!rig.blocks_.trim());
        require(!rig.blocks_.trim());  // it is tried again
        require(rig.reserved_granules() == 3);
        require(rig.blocks_.allocate(3 * kGranule).is_ok());
        require(rig.blocks_.trim());  // nothing is free
    });
    const int end = child.wait();
    if (end == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(end, 0);
}

TEST_F(BlocksTest, OfABroadcastWithoutThemAreNone) {
    const BroadcastView view(broadcast_shape_of(test::small(1, 0)), segment_->control());
    WriterBlocks none(view, *segment_);
    EXPECT_TRUE(fails(none.allocate(1), ErrorCode::Busy));
    none.trim();
    EXPECT_FALSE(none.recycle(100));
}

}  // namespace
}  // namespace penstock::detail

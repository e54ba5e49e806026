// Holder bits: one for each rank on each block, found by block and by rank; bits of ranks that
// don't exist, or have no reader, are ignored.
#include "broadcast/holders.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "penstock/broadcast.hpp"

namespace penstock::detail {
namespace {

constexpr std::uint32_t kGranules = 8;

BroadcastShape shape_for(unsigned readers) {
    BroadcastOptions options;
    options.readers = readers;
    options.capacity = 4096;
    options.large = kGranules * layout::kBroadcastGranule;
    return broadcast_shape_of(options);
}

// A control block in private memory.
class HoldersTest : public ::testing::Test {
protected:
    // Every rank has a reader.
    void SetUp() override {
        for (unsigned rank = 0; rank < shape_.readers; ++rank) {
            participants_.announce(layout::slot_of_rank(rank));
        }
    }

    struct alignas(layout::kApart) Line {
        std::byte bytes[layout::kApart];
    };

    BroadcastShape shape_ = shape_for(130);
    std::vector<Line> lines_{shape_.control_bytes() / sizeof(Line)};
    BroadcastView view_{shape_, lines_.data()->bytes};
    BlockHolders holders_{view_};
    std::vector<layout::ParticipantSlot> slots_ =
        std::vector<layout::ParticipantSlot>(layout::slot_of_rank(shape_.readers));
    os::SharedFile file_;  // none: these tests take no lock
    Participants participants_{file_, slots_.data(), 0, layout::slot_of_rank(shape_.readers)};
};

TEST_F(HoldersTest, AHolderIsABit) {
    for (const unsigned rank : {0U, 1U, 63U, 64U, 128U}) {
        EXPECT_FALSE(holders_.is_held(3, participants_));
        EXPECT_FALSE(holders_.is_held_by(rank, participants_));
        holders_.hold(3, rank);
        holders_.hold(3, rank);  // a bit, not a count
        EXPECT_TRUE(holders_.is_held(3, participants_));
        EXPECT_TRUE(holders_.is_held_by(rank, participants_));
        EXPECT_FALSE(holders_.is_held_by(rank ^ 1U, participants_)) << "that is another";
        EXPECT_FALSE(holders_.is_held(2, participants_));
        EXPECT_FALSE(holders_.is_held(4, participants_));
        holders_.drop(3, rank);
        holders_.drop(3, rank);
    }
    EXPECT_FALSE(holders_.is_held(3, participants_));
}

TEST_F(HoldersTest, ABlockIsHeldUntilTheLastHolderLetsGo) {
    holders_.hold(kGranules - 1, 5);
    holders_.hold(kGranules - 1, 70);
    holders_.drop(kGranules - 1, 5);
    EXPECT_TRUE(holders_.is_held(kGranules - 1, participants_));
    EXPECT_FALSE(holders_.is_held_by(5, participants_));
    holders_.drop(kGranules - 1, 70);
    EXPECT_FALSE(holders_.is_held(kGranules - 1, participants_));
}

TEST_F(HoldersTest, DroppingAllIsOneRanksOnly) {
    for (std::uint32_t at = 0; at < kGranules; at += 2) holders_.hold(at, 64);
    holders_.hold(4, 65);
    for (int turn = 0; turn < 2; ++turn) {  // repeatable
        holders_.drop_all(64);
        EXPECT_FALSE(holders_.is_held_by(64, participants_));
        for (std::uint32_t at = 0; at < kGranules; ++at) {
            EXPECT_EQ(holders_.is_held(at, participants_), at == 4) << at;
        }
        EXPECT_TRUE(holders_.is_held_by(65, participants_));
    }
}

TEST_F(HoldersTest, BitsOfRanksThatDoNotExistHoldNothing) {
    view_.holders(1)[2] = ~std::uint64_t{0} << (130 - 128);
    EXPECT_FALSE(holders_.is_held(1, participants_)) << "scribbled over";
    holders_.hold(1, 129);
    EXPECT_TRUE(holders_.is_held(1, participants_)) << "the last rank that there is";
}

// Bits set late, by a reader that was found dead and lives, or left by a dead one whose janitor is
// stopped.
TEST_F(HoldersTest, BitsOfRanksWithoutAReaderHoldNothing) {
    const unsigned slot = layout::slot_of_rank(70);
    holders_.hold(1, 70);
    participants_.retire(slot);
    EXPECT_FALSE(holders_.is_held(1, participants_));
    EXPECT_FALSE(holders_.is_held_by(70, participants_));
    participants_.announce(slot);
    EXPECT_TRUE(holders_.is_held(1, participants_));
    slots_[slot].found_dead = participants_.joins(slot);
    EXPECT_FALSE(holders_.is_held(1, participants_));
    EXPECT_FALSE(holders_.is_held_by(70, participants_));
    holders_.hold(1, 3);
    EXPECT_TRUE(holders_.is_held(1, participants_)) << "another's still counts";
}

TEST_F(HoldersTest, AWholeWordOfRanksCountsInFull) {
    const BroadcastShape shape = shape_for(64);
    const BroadcastView view(shape, lines_.data()->bytes);
    BlockHolders holders(view);
    holders.hold(0, 63);
    EXPECT_TRUE(holders.is_held(0, participants_));
    EXPECT_FALSE(holders.is_held(1, participants_));
}

}  // namespace
}  // namespace penstock::detail

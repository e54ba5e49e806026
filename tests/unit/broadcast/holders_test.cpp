// Holder bits: one for each rank on each block, found by block and by rank, and nothing where a
// rank does not exist.
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
    struct alignas(layout::kApart) Line {
        std::byte bytes[layout::kApart];
    };

    BroadcastShape shape_ = shape_for(130);
    std::vector<Line> lines_{shape_.control_bytes() / sizeof(Line)};
    BroadcastView view_{shape_, lines_.data()->bytes};
    BlockHolders holders_{view_};
};

TEST_F(HoldersTest, AHolderIsABit) {
    for (const unsigned rank : {0U, 1U, 63U, 64U, 128U}) {
        EXPECT_FALSE(holders_.is_held(3));
        EXPECT_FALSE(holders_.is_held_by(rank));
        holders_.hold(3, rank);
        holders_.hold(3, rank);  // it does not count
        EXPECT_TRUE(holders_.is_held(3));
        EXPECT_TRUE(holders_.is_held_by(rank));
        EXPECT_FALSE(holders_.is_held_by(rank ^ 1U)) << "that is another";
        EXPECT_FALSE(holders_.is_held(2));
        EXPECT_FALSE(holders_.is_held(4));
        holders_.drop(3, rank);
        holders_.drop(3, rank);
    }
    EXPECT_FALSE(holders_.is_held(3));
}

TEST_F(HoldersTest, ABlockIsHeldUntilTheLastHolderLetsGo) {
    holders_.hold(kGranules - 1, 5);
    holders_.hold(kGranules - 1, 70);
    holders_.drop(kGranules - 1, 5);
    EXPECT_TRUE(holders_.is_held(kGranules - 1));
    EXPECT_FALSE(holders_.is_held_by(5));
    holders_.drop(kGranules - 1, 70);
    EXPECT_FALSE(holders_.is_held(kGranules - 1));
}

TEST_F(HoldersTest, DroppingAllIsOneRanksOnly) {
    for (std::uint32_t at = 0; at < kGranules; at += 2) holders_.hold(at, 64);
    holders_.hold(4, 65);
    for (int turn = 0; turn < 2; ++turn) {  // repeatable
        holders_.drop_all(64);
        EXPECT_FALSE(holders_.is_held_by(64));
        for (std::uint32_t at = 0; at < kGranules; ++at) {
            EXPECT_EQ(holders_.is_held(at), at == 4) << at;
        }
        EXPECT_TRUE(holders_.is_held_by(65));
    }
}

TEST_F(HoldersTest, BitsOfRanksThatDoNotExistHoldNothing) {
    view_.holders(1)[2] = ~std::uint64_t{0} << (130 - 128);
    EXPECT_FALSE(holders_.is_held(1)) << "scribbled over";
    holders_.hold(1, 129);
    EXPECT_TRUE(holders_.is_held(1)) << "the last rank that there is";
}

TEST_F(HoldersTest, AWholeWordOfRanksCountsInFull) {
    const BroadcastShape shape = shape_for(64);
    const BroadcastView view(shape, lines_.data()->bytes);
    BlockHolders holders(view);
    holders.hold(0, 63);
    EXPECT_TRUE(holders.is_held(0));
    EXPECT_FALSE(holders.is_held(1));
}

}  // namespace
}  // namespace penstock::detail

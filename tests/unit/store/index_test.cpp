// A store's index, move by move: where a key's entry is claimed, in which states it is found, and
// what a removal leaves.
#include "store/index.hpp"

#include <gtest/gtest.h>

#include <array>
#include <set>
#include <vector>

#include "tests/unit/store/store_stage.hpp"

namespace penstock::test {
namespace {

using detail::KeyHash;
using detail::StoreIndex;

constexpr std::uint32_t kReachable = layout::kProbes * layout::kWays;
constexpr std::array kStates = {EntryState::Free,     EntryState::Claimed,  EntryState::Staged,
                                EntryState::Resident, EntryState::Evicting, EntryState::Doomed,
                                EntryState::Freeing,  EntryState::Expired};

// A hash with a given bucket and tag.
KeyHash hash_in(std::uint32_t bucket, std::uint64_t tag = 3, std::uint64_t low = 1) {
    return {low, tag << 48U | bucket};
}

struct IndexStage : StoreStage {
    // All entries with that hash that find() visits.
    [[nodiscard]] std::vector<std::uint32_t> found(const KeyHash& hash) const {
        std::vector<std::uint32_t> numbers;
        EXPECT_EQ(index.find(hash,
                             [&](std::uint32_t number, std::uint64_t) {
                                 numbers.push_back(number);
                                 return false;
                             }),
                  StoreIndex::kNone);
        return numbers;
    }

    StoreIndex index{view, words};
};

TEST(StoreIndex, AKeyIsClaimedAtHomeFirst) {
    IndexStage stage;
    const KeyHash hash = hash_in(2, 7, 99);
    const std::uint32_t number = stage.index.claim(hash, StoreStage::kOther);
    EXPECT_EQ(number, 2 * layout::kWays);
    EXPECT_EQ(stage.entry(number).state, EntryState::Claimed);
    EXPECT_EQ(stage.entry(number).participant, StoreStage::kOther);
    EXPECT_TRUE(stage.index.has_hash(number, hash));
    EXPECT_FALSE(stage.index.has_hash(number, hash_in(2, 7, 98)));
    EXPECT_EQ(stage.view.bucket(2).tags[0].load(), 7);
    EXPECT_EQ(stage.view.entry(number).incarnation.load(), 1U);
    EXPECT_EQ(stage.index.claim(hash, StoreStage::kSelf), number + 1) << "the next way";
}

TEST(StoreIndex, ATagIsNeverZero) {
    IndexStage stage;
    const KeyHash hash = hash_in(0, 0);
    stage.set(stage.index.claim(hash, StoreStage::kSelf), EntryState::Resident);
    EXPECT_EQ(stage.view.bucket(0).tags[0].load(), 1);
    EXPECT_EQ(stage.found(hash), std::vector<std::uint32_t>{0});
}

TEST(StoreIndex, OnlyStagedResidentAndEvictingEntriesAreFound) {
    for (const EntryState state : kStates) {
        IndexStage stage;
        const KeyHash hash = hash_in(1);
        const std::uint32_t number = stage.index.claim(hash, StoreStage::kSelf);
        stage.set(number, state, StoreStage::kSelf);
        const bool is_there = state == EntryState::Staged || state == EntryState::Resident ||
                              state == EntryState::Evicting;
        EXPECT_EQ(stage.found(hash).size(), is_there ? 1U : 0U) << static_cast<int>(state);
    }
}

TEST(StoreIndex, AnotherKeyWithTheSameTagIsNotFound) {
    IndexStage stage;
    stage.set(stage.index.claim(hash_in(1, 3, 1), StoreStage::kSelf), EntryState::Resident);
    const std::uint32_t second = stage.index.claim(hash_in(1, 3, 2), StoreStage::kSelf);
    stage.set(second, EntryState::Resident);
    EXPECT_EQ(stage.found(hash_in(1, 3, 2)), std::vector<std::uint32_t>{second});
    EXPECT_TRUE(stage.found(hash_in(1, 3, 9)).empty());
    const KeyHash hash = hash_in(1, 3, 2);
    EXPECT_EQ(stage.index.find(hash, [](std::uint32_t, std::uint64_t) { return true; }), second);
}

TEST(StoreIndex, AKeyHasThirtyTwoPlacesAndTheyGoRoundTheEnd) {
    IndexStage stage;
    const KeyHash hash = hash_in(6);  // of 8 buckets: 6, 7, 0 and 1
    std::set<std::uint32_t> places;
    for (std::uint32_t i = 0; i < kReachable; ++i) {
        const std::uint32_t number = stage.index.claim(hash, StoreStage::kSelf);
        ASSERT_NE(number, StoreIndex::kNone);
        places.insert(number / layout::kWays);
        stage.set(number, EntryState::Resident);
    }
    EXPECT_EQ(places, (std::set<std::uint32_t>{0, 1, 6, 7}));
    EXPECT_EQ(stage.index.claim(hash, StoreStage::kSelf), StoreIndex::kNone);
    EXPECT_EQ(stage.found(hash).size(), kReachable);
    EXPECT_NE(stage.index.claim(hash_in(1), StoreStage::kSelf), StoreIndex::kNone)
        << "of which 2 to 4 are free";
}

TEST(StoreIndex, OnlyAFreeEntryIsClaimed) {
    for (const EntryState state : kStates) {
        IndexStage stage;
        stage.set(0, state, StoreStage::kOther);
        EXPECT_EQ(stage.index.claim(hash_in(0), StoreStage::kSelf),
                  state == EntryState::Free ? 0U : 1U)
            << static_cast<int>(state);
        EXPECT_EQ(stage.entry(0).state, state == EntryState::Free ? EntryState::Claimed : state);
    }
}

TEST(StoreIndex, ANeighbourIsAResidentWithinReach) {
    IndexStage stage;
    const KeyHash hash = hash_in(7);
    EXPECT_EQ(stage.index.neighbour(hash, 0), StoreIndex::kNone);
    const std::uint32_t beyond = 3 * layout::kWays;  // bucket 3 is the fifth from 7
    stage.set(beyond, EntryState::Resident);
    EXPECT_EQ(stage.index.neighbour(hash, 0), StoreIndex::kNone);
    stage.set(7 * layout::kWays, EntryState::Staged, StoreStage::kOther);
    const std::uint32_t resident = 2 * layout::kWays + 1;  // the fourth, round the end
    stage.set(resident, EntryState::Resident);
    EXPECT_EQ(stage.index.neighbour(hash, 0), resident);
    EXPECT_EQ(stage.index.neighbour(hash, 3 * layout::kWays + 2), StoreIndex::kNone)
        << "the search goes on behind it";
}

TEST(StoreIndex, AForgottenEntryIsNotFound) {
    IndexStage stage;
    const KeyHash hash = hash_in(1);
    const std::uint32_t number = stage.index.claim(hash, StoreStage::kSelf);
    stage.set(number, EntryState::Resident);
    stage.index.forget(number);
    EXPECT_TRUE(stage.found(hash).empty());
    EXPECT_EQ(stage.view.bucket(1).tags[0].load(), 0);
}

TEST(StoreIndex, KeysOfABucketShareItsVersion) {
    IndexStage stage;
    EXPECT_EQ(&stage.index.version(hash_in(1, 3)), &stage.index.version(hash_in(1 + 8, 5)));
    EXPECT_NE(&stage.index.version(hash_in(1)), &stage.index.version(hash_in(2)));
}

TEST(StoreIndex, TheSeedChangesTheHash) {
    const KeyHash hash = detail::hash_key("key", 1);
    EXPECT_EQ(hash.low, detail::hash_key("key", 1).low);
    EXPECT_NE(hash.low, detail::hash_key("key", 2).low);
    EXPECT_NE(hash.high, detail::hash_key("kex", 1).high);
}

}  // namespace
}  // namespace penstock::test

// A damaged store: every call fails with an error, none loops for ever or reads outside the
// mapping.
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>

#include "store/control.hpp"
#include "tests/support/segment_corruptor.hpp"
#include "tests/unit/store/store_fixture.hpp"

namespace penstock {
namespace {

using namespace test;
using detail::payload_of;
using layout::EntryState;
using layout::Word;

// A reference to a change that has no description.
constexpr std::uint64_t kNothing = layout::kWordMark | 17;

class StoreCorruptor : trust::SegmentCorruptor {
public:
    explicit StoreCorruptor(const std::string& name)
        : SegmentCorruptor(name), view_(detail::store_shape_of(header()), control()) {}

    [[nodiscard]] const detail::StoreView& view() const { return view_; }
    // The n-th entry in that state, from the first.
    [[nodiscard]] layout::StoreEntry& entry(EntryState state, unsigned n = 0) const {
        for (std::uint32_t at = 0; at < view_.shape().entries(); ++at) {
            layout::StoreEntry& entry = view_.entry(at);
            if (layout::decode_entry(entry.word.load()).state == state && n-- == 0) return entry;
        }
        require(false);
        return view_.entry(0);
    }
    void break_versions() const {
        for (std::uint32_t at = 0; at < view_.shape().buckets; ++at) {
            view_.bucket(at).version.store(kNothing);
        }
    }
    // Keeps the generation and the mark.
    static void set_payload(Word& word, std::uint64_t payload) {
        word.store((word.load() & ~layout::kPayloadMask) | payload);
    }

private:
    detail::StoreView view_;
};

class StoreCorruptionTest : public CleanTest {
protected:
    void TearDown() override {
        store_.close();
        CleanTest::TearDown();
    }

    Store store_ = Store::create(new_name(), small_store());
    StoreCorruptor corruptor_{store_.name()};
};

TEST_F(StoreCorruptionTest, AVersionWithADanglingReference) {
    corruptor_.break_versions();
    EXPECT_EQ(put(store_, 1).code(), ErrorCode::Corrupt);
    EXPECT_EQ(put(store_, 1).code(), ErrorCode::Corrupt);
}

TEST_F(StoreCorruptionTest, TheNewestEntryHasANewerNeighbour) {
    ASSERT_TRUE(succeeds(put(store_, 1)));
    StoreCorruptor::set_payload(corruptor_.entry(EntryState::Resident).newer, 7);
    EXPECT_EQ(put(store_, 2).code(), ErrorCode::Corrupt);
    EXPECT_FALSE(store_.contains(key_of(2)));
    EXPECT_EQ(store_.stats().staged, 0U);
}

TEST_F(StoreCorruptionTest, LinksThatDisagree) {
    ASSERT_TRUE(succeeds(put(store_, 1)));
    ASSERT_TRUE(succeeds(put(store_, 2)));
    for (unsigned n : {0U, 1U}) {
        StoreCorruptor::set_payload(corruptor_.entry(EntryState::Resident, n).newer, 0);
        StoreCorruptor::set_payload(corruptor_.entry(EntryState::Resident, n).older, 0);
    }
    EXPECT_EQ(store_.remove(key_of(1)).code(), ErrorCode::Corrupt);
    EXPECT_EQ(store_.clear(), 0U);
    EXPECT_TRUE(has(store_, 1));
}

TEST_F(StoreCorruptionTest, EvictionFailsInATornOrder) {
    ASSERT_TRUE(succeeds(put(store_, 1, 700'000)));
    ASSERT_TRUE(succeeds(put(store_, 2, 100'000)));
    StoreCorruptor::set_payload(corruptor_.view().state().newest, 0);
    StoreCorruptor::set_payload(corruptor_.entry(EntryState::Resident).older, 12);
    StoreCorruptor::set_payload(corruptor_.entry(EntryState::Resident, 1).older, 12);
    EXPECT_EQ(put(store_, 3, 700'000).code(), ErrorCode::Corrupt);
}

TEST_F(StoreCorruptionTest, LinksInACircle) {
    ASSERT_TRUE(succeeds(put(store_, 1, 900'000)));
    const Result<StoreObject> pinned = store_.get(key_of(1));
    ASSERT_TRUE(succeeds(pinned.status()));
    const std::uint64_t self = payload_of(corruptor_.view().state().oldest.load());
    StoreCorruptor::set_payload(corruptor_.entry(EntryState::Resident).newer, self);
    EXPECT_EQ(put(store_, 2, 900'000).code(), ErrorCode::NoSpace);
}

TEST_F(StoreCorruptionTest, AChangeWhoseNumberIsTooGreatForAReference) {
    corruptor_.view().operations()[0].status.store(std::uint64_t{1} << 60U);
    ASSERT_TRUE(succeeds(put(store_, 1)));
    EXPECT_TRUE(has(store_, 1));
}

TEST_F(StoreCorruptionTest, AReservationDoesNotGrowIntoAnothersBlock) {
    Result<StoreReservation> first = store_.reserve(key_of(1), 1000);
    Result<StoreReservation> last = store_.reserve(key_of(2), 900'000);
    ASSERT_TRUE(first.is_ok() && last.is_ok());
    layout::StoreEntry& one = corruptor_.entry(EntryState::Staged);
    layout::StoreEntry& other = corruptor_.entry(EntryState::Staged, 1);
    const std::uint64_t name = payload_of(one.block.load());
    StoreCorruptor::set_payload(one.block, payload_of(other.block.load()));
    StoreCorruptor::set_payload(other.block, name);
    EXPECT_EQ(first->resize(500).code(), ErrorCode::Corrupt);
    EXPECT_EQ(last->resize(800'000).code(), ErrorCode::Corrupt);
    EXPECT_EQ(last->bytes().size(), 900'000U);
}

TEST_F(StoreCorruptionTest, AForgedLengthIsRefusedByAPinningCommit) {
    Result<StoreReservation> room = store_.reserve(key_of(1), 1000);
    ASSERT_TRUE(succeeds(room.status()));
    corruptor_.entry(EntryState::Staged).nbytes.store(~std::uint64_t{0});
    std::optional<StoreObject> pinned;
    EXPECT_EQ(room->commit(pinned).code(), ErrorCode::Corrupt);
    EXPECT_FALSE(pinned);
}

}  // namespace
}  // namespace penstock

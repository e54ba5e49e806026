// The moves of a queue's slots, one by one: the states and participants that may make them, their
// results, and what a janitor does in each state.
#include "queue/slot_ring.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "tests/unit/support/control_block.hpp"

namespace penstock::test {
namespace {

using detail::Arena;
using detail::QueueShape;
using detail::QueueView;
using detail::SlotRing;
using layout::SlotState;
using layout::SlotWord;
using Look = SlotRing::Look;

constexpr unsigned kSlots = 4;
constexpr unsigned kSelf = 1;
constexpr unsigned kOther = 2;
constexpr std::array kStates = {SlotState::Empty,    SlotState::Claimed,   SlotState::Ready,
                                SlotState::Taken,    SlotState::Done,      SlotState::Overtaken,
                                SlotState::Returned, SlotState::DeadLetter};

QueueShape small_shape() {
    QueueShape shape;
    shape.slots = kSlots;
    shape.cell_bytes = 64;
    shape.participants = 4;
    shape.max_deliveries = 2;
    shape.arena.granule_bytes = 4096;
    return shape;
}

std::string text(std::uint64_t word) {
    const SlotWord slot = layout::decode_slot(word);
    return "state " + std::to_string(static_cast<int>(slot.state)) + " owner " +
           std::to_string(slot.owner) + " deliveries " + std::to_string(slot.deliveries) + " lap " +
           std::to_string(slot.lap);
}

class SlotRingTest : public testing::Test {
protected:
    void set(std::uint64_t index, const SlotWord& word, std::uint64_t sequence = 0) {
        view_.slot(index).word.store(layout::encode_slot(word));
        view_.slot(index).sequence.store(sequence);
    }
    [[nodiscard]] std::uint64_t word(std::uint64_t index) const {
        return view_.slot(index).word.load();
    }
    [[nodiscard]] SlotState state(std::uint64_t index) const {
        return layout::decode_slot(word(index)).state;
    }
    testing::AssertionResult is(std::uint64_t index, const SlotWord& expected) const {
        if (word(index) == layout::encode_slot(expected)) return testing::AssertionSuccess();
        return testing::AssertionFailure()
               << text(word(index)) << ", not " << text(layout::encode_slot(expected));
    }
    // Claims the next ticket and publishes under it.
    std::uint64_t put() {
        EXPECT_EQ(ring_.claim(tail_), Look::Got);
        const std::uint64_t ticket = tail_ - 1;
        view_.slot(ticket % kSlots).sequence.store(ticket);
        EXPECT_TRUE(ring_.publish(ticket));
        return ticket;
    }
    std::uint64_t take() {
        std::uint64_t index = kSlots;
        EXPECT_EQ(ring_.take(head_, index), Look::Got);
        return index;
    }

    ControlBlock control_{small_shape().control_bytes()};
    QueueView view_{small_shape(), control_.data()};
    SlotRing ring_{view_, kSelf};
    SlotRing other_{view_, kOther};
    Arena arena_;  // messages in these tests have no block
    std::uint64_t tail_ = 0;
    std::uint64_t head_ = 0;
};

TEST_F(SlotRingTest, AMessagePassesAllStatesAndSpendsALap) {
    ASSERT_EQ(ring_.claim(tail_), Look::Got);
    EXPECT_EQ(tail_, 1U);
    EXPECT_TRUE(is(0, {SlotState::Claimed, kSelf, 0, 0}));
    EXPECT_TRUE(ring_.publish(0));
    EXPECT_TRUE(is(0, {SlotState::Ready, 0, 0, 0}));
    EXPECT_EQ(take(), 0U);
    EXPECT_TRUE(is(0, {SlotState::Taken, kSelf, 1, 0}));
    ring_.settle(0);
    EXPECT_TRUE(is(0, {SlotState::Done, kSelf, 1, 0}));
    ring_.free(0, arena_);
    EXPECT_TRUE(is(0, {SlotState::Empty, 0, 0, 1}));
}

// Every move with a single start state, tried from all states.
struct Move {
    const char* name;
    SlotState from;
    SlotWord to;
    void (*make)(SlotRing& ring, std::uint64_t word, Arena& arena);
};

constexpr Move kMoves[] = {
    {"publish",
     SlotState::Claimed,
     {SlotState::Ready, 0, 0, 0},
     [](SlotRing& ring, std::uint64_t, Arena&) { ring.publish(0); }},
    {"take_seen",
     SlotState::Ready,
     {SlotState::Taken, kSelf, 1, 0},
     [](SlotRing& ring, std::uint64_t word, Arena&) {
         if (layout::decode_slot(word).state == SlotState::Ready) ring.take_seen(0, word);
     }},
    {"defer",
     SlotState::Ready,
     {SlotState::Returned, 0, 0, 0},
     [](SlotRing& ring, std::uint64_t word, Arena&) { ring.defer(0, word); }},
    {"settle",
     SlotState::Taken,
     {SlotState::Done, kSelf, 1, 0},
     [](SlotRing& ring, std::uint64_t, Arena&) { ring.settle(0); }},
    {"nack",
     SlotState::Taken,
     {SlotState::Returned, 0, 1, 0},
     [](SlotRing& ring, std::uint64_t, Arena&) { ring.nack(0); }},
    {"untake",
     SlotState::Taken,
     {SlotState::Returned, 0, 0, 0},
     [](SlotRing& ring, std::uint64_t, Arena&) { ring.untake(0); }},
    {"dead_letter",
     SlotState::Taken,
     {SlotState::DeadLetter, 0, 1, 0},
     [](SlotRing& ring, std::uint64_t, Arena&) { ring.dead_letter(0); }},
    {"requeue",
     SlotState::DeadLetter,
     {SlotState::Returned, 0, 0, 0},
     [](SlotRing& ring, std::uint64_t, Arena&) { ring.requeue(0, 7); }},
    {"drop",
     SlotState::DeadLetter,
     {SlotState::Empty, 0, 0, 1},
     [](SlotRing& ring, std::uint64_t, Arena& arena) { ring.drop(0, 7, arena); }},
};

TEST_F(SlotRingTest, EachMoveStartsFromOneStateOnly) {
    for (const Move& move : kMoves) {
        for (const SlotState state : kStates) {
            const bool is_owned = state == SlotState::Claimed || state == SlotState::Taken ||
                                  state == SlotState::Done || state == SlotState::Overtaken;
            const bool was_delivered = state == SlotState::Taken || state == SlotState::DeadLetter;
            const SlotWord before{state, is_owned ? kSelf : 0, was_delivered ? 1U : 0U, 0};
            set(0, before, 7);
            move.make(ring_, layout::encode_slot(before), arena_);
            EXPECT_TRUE(is(0, state == move.from ? move.to : before))
                << move.name << " in state " << static_cast<int>(state);
        }
    }
}

TEST_F(SlotRingTest, SlotsOfAnotherOwnerAreNotMoved) {
    set(0, {SlotState::Claimed, kOther, 0, 0});
    EXPECT_FALSE(ring_.publish(0));
    EXPECT_TRUE(is(0, {SlotState::Claimed, kOther, 0, 0}));
    const SlotWord taken{SlotState::Taken, kOther, 1, 0};
    set(0, taken);
    ring_.settle(0);
    ring_.untake(0);
    ring_.dead_letter(0);
    EXPECT_TRUE(is(0, taken));
}

TEST_F(SlotRingTest, ASlotThatChangedSinceTheLookIsNotTaken) {
    put();
    const std::uint64_t seen = word(0);
    EXPECT_TRUE(other_.take_seen(0, seen));
    EXPECT_FALSE(ring_.take_seen(0, seen));
    EXPECT_FALSE(ring_.defer(0, seen));
    EXPECT_TRUE(is(0, {SlotState::Taken, kOther, 1, 0}));
}

TEST_F(SlotRingTest, AFullQueueHasNothingToClaim) {
    for (unsigned i = 0; i < kSlots; ++i) put();
    EXPECT_FALSE(ring_.has_room(tail_));
    EXPECT_EQ(ring_.claim(tail_), Look::Nothing);
    EXPECT_EQ(tail_, kSlots);
    for (unsigned i = 0; i < kSlots; ++i) EXPECT_TRUE(is(i, {SlotState::Ready, 0, 0, 0}));
}

TEST_F(SlotRingTest, AHeldSlotIsPassedOnlyIfThatAllowsAClaim) {
    for (unsigned i = 0; i < kSlots; ++i) put();
    ASSERT_EQ(take(), 0U);
    ASSERT_EQ(take(), 1U);
    EXPECT_EQ(ring_.claim(tail_), Look::Nothing) << "both are held";
    EXPECT_TRUE(is(0, {SlotState::Taken, kSelf, 1, 0})) << "passed in vain";
    ring_.acknowledge(1, arena_);
    ASSERT_EQ(ring_.claim(tail_), Look::Got);
    EXPECT_EQ(tail_, kSlots + 2U) << "ticket 4 is passed, ticket 5 claimed";
    EXPECT_TRUE(is(0, {SlotState::Taken, kSelf, 1, 1})) << "the same, with a spent lap";
    EXPECT_TRUE(is(1, {SlotState::Claimed, kSelf, 0, 1}));
    ring_.acknowledge(0, arena_);
    EXPECT_TRUE(is(0, {SlotState::Empty, 0, 0, 2}));
}

TEST_F(SlotRingTest, AnOvertakenProducerClaimsAnotherSlot) {
    for (const bool by_consumer : {true, false}) {
        set(0, {SlotState::Claimed, kOther, 0, 0});
        set(1, {SlotState::Ready, 0, 0, 0});
        if (by_consumer) {
            head_ = 0;
            EXPECT_EQ(take(), 1U) << "its patience ends, and the next is published";
        } else {
            set(1, {SlotState::Empty, 0, 0, 1});
            tail_ = kSlots;
            EXPECT_EQ(ring_.claim(tail_), Look::Got);
        }
        EXPECT_EQ(state(0), SlotState::Overtaken);
        EXPECT_FALSE(other_.publish(0));
        other_.abandon(0);
        EXPECT_EQ(state(0), SlotState::Empty);
    }
}

TEST_F(SlotRingTest, NothingIsTakenBeforeItIsPublished) {
    std::uint64_t index = 0;
    EXPECT_EQ(ring_.take(head_, index), Look::Nothing);
    EXPECT_FALSE(ring_.has(head_, 1));
    put();
    EXPECT_TRUE(ring_.has(head_, 1));
    EXPECT_FALSE(ring_.has(head_, 2));
    EXPECT_EQ(take(), 0U);
    EXPECT_EQ(head_, 1U);
}

TEST_F(SlotRingTest, ImpossibleHintsAndLapsAreDamage) {
    tail_ = kSlots;  // beyond all claims
    EXPECT_EQ(ring_.claim(tail_), Look::Damaged);
    std::uint64_t index = 0;
    head_ = kSlots;
    EXPECT_EQ(ring_.take(head_, index), Look::Damaged);
    set(0, {SlotState::Ready, 0, 0, 0});
    EXPECT_EQ(ring_.take(head_, index), Look::Damaged) << "an old one that is still Ready";
    tail_ = layout::kLapMask * kSlots;
    EXPECT_EQ(ring_.claim(tail_), Look::Damaged);
}

TEST_F(SlotRingTest, ReturnedMessagesGoFirstOldestFirst) {
    for (unsigned i = 0; i < 3; ++i) put();
    const std::uint64_t first = take();
    const std::uint64_t second = take();
    EXPECT_FALSE(ring_.may_have_returned());
    ring_.nack(second);
    ring_.nack(first);
    ASSERT_TRUE(ring_.may_have_returned());
    EXPECT_TRUE(ring_.has(head_, 3));
    std::uint64_t index = kSlots;
    ASSERT_TRUE(ring_.take_returned(index));
    EXPECT_EQ(index, first);
    EXPECT_TRUE(is(first, {SlotState::Taken, kSelf, 2, 0}));
    ASSERT_TRUE(other_.take_returned(index));
    EXPECT_EQ(index, second);
    EXPECT_FALSE(ring_.take_returned(index));
    EXPECT_FALSE(ring_.may_have_returned()) << "the announcement is taken down";
}

TEST_F(SlotRingTest, AnUndoneTakeDoesNotCount) {
    put();
    ring_.untake(take());
    EXPECT_TRUE(is(0, {SlotState::Returned, 0, 0, 0}));
    EXPECT_TRUE(ring_.may_have_returned());
}

TEST_F(SlotRingTest, DeliveriesAreCountedUpToAMaximum) {
    set(0, {SlotState::Ready, 0, layout::kMaxDeliveries, 0});
    EXPECT_EQ(take(), 0U);
    EXPECT_TRUE(is(0, {SlotState::Taken, kSelf, layout::kMaxDeliveries, 0}));
}

TEST_F(SlotRingTest, ADeadLetterReachedTheLimitWithALastDeliveryAlone) {
    const SlotWord last{SlotState::Taken, kSelf, 2, 0};
    set(0, last, 9);
    ring_.nack(0);
    EXPECT_EQ(state(0), SlotState::Returned) << "never alone";
    view_.slot(0).alone.store(layout::encode_alone(9, 1));
    set(0, last, 9);
    ring_.nack(0);
    EXPECT_EQ(state(0), SlotState::Returned) << "alone the time before";
    set(0, {SlotState::Taken, kSelf, 1, 0}, 9);
    ring_.note_alone(0);
    ring_.nack(0);
    EXPECT_EQ(state(0), SlotState::Returned) << "alone, and not often enough";
    EXPECT_FALSE(ring_.may_have_dead_letters());
    set(0, last, 9);
    ring_.note_alone(0);
    ring_.nack(0);
    EXPECT_TRUE(is(0, {SlotState::DeadLetter, 0, 2, 0}));
    EXPECT_TRUE(ring_.may_have_dead_letters());
    EXPECT_FALSE(ring_.must_come_alone(2));
    EXPECT_TRUE(ring_.must_come_alone(3));
}

TEST_F(SlotRingTest, OnlyTheNamedDeadLetterIsMoved) {
    const SlotWord letter{SlotState::DeadLetter, 0, 2, 5};
    set(0, letter, 9);
    EXPECT_FALSE(ring_.requeue(0, 8));
    EXPECT_FALSE(ring_.drop(0, 8, arena_));
    EXPECT_TRUE(is(0, letter));
    ring_.note_alone(0);
    EXPECT_TRUE(ring_.requeue(0, 9));
    EXPECT_TRUE(is(0, {SlotState::Returned, 0, 0, 5}));
    EXPECT_EQ(view_.slot(0).alone.load(), 0U) << "deliveries are counted anew";
    EXPECT_FALSE(ring_.requeue(0, 9)) << "a second time";
}

TEST_F(SlotRingTest, ADeferredMessageIsNoNewsToItsSurvey) {
    put();
    put();
    std::vector<SlotRing::Waiting> waiting;
    SlotRing::Sight sight =
        ring_.survey(head_, [&](const SlotRing::Waiting& one) { waiting.push_back(one); });
    ASSERT_EQ(waiting.size(), 2U);
    EXPECT_EQ(sight.end, 2U);
    EXPECT_FALSE(ring_.has_more(head_, sight));
    ASSERT_TRUE(ring_.defer(waiting[0].index, waiting[0].word));
    ring_.announce_deferred(sight);
    EXPECT_FALSE(ring_.has_more(head_, sight));
    put();
    EXPECT_TRUE(ring_.has_more(head_, sight));
}

// ---- reaping by a janitor

struct Found {
    SlotState state;
    SlotWord left;
};

constexpr Found kFound[] = {
    {SlotState::Empty, {SlotState::Empty, 0, 0, 3}},
    {SlotState::Claimed, {SlotState::Empty, 0, 0, 4}},
    {SlotState::Ready, {SlotState::Ready, 0, 0, 3}},
    {SlotState::Taken, {SlotState::Returned, 0, 1, 3}},
    {SlotState::Done, {SlotState::Empty, 0, 0, 4}},
    {SlotState::Overtaken, {SlotState::Empty, 0, 0, 4}},
    {SlotState::Returned, {SlotState::Returned, 0, 1, 3}},
    {SlotState::DeadLetter, {SlotState::DeadLetter, 0, 1, 3}},
};

TEST_F(SlotRingTest, AJanitorReturnsTakenMessagesAndFreesClaims) {
    for (const Found& found : kFound) {
        const auto number = static_cast<int>(found.state);
        const bool is_delivered =
            found.state == SlotState::Taken || found.state == SlotState::Done ||
            found.state == SlotState::Returned || found.state == SlotState::DeadLetter;
        const bool is_owned = found.state == SlotState::Claimed ||
                              found.state == SlotState::Taken || found.state == SlotState::Done ||
                              found.state == SlotState::Overtaken;
        const SlotWord before{found.state, is_owned ? kOther : 0, is_delivered ? 1U : 0U, 3};
        view_.state().returned.store(0);
        set(0, before);
        EXPECT_EQ(ring_.clear(kOther, arena_), is_owned || found.state == SlotState::Returned)
            << "state " << number;
        EXPECT_TRUE(is(0, found.left)) << "state " << number;
        // Announced, although the dead participant, or its last janitor, only reached the slot.
        EXPECT_EQ(ring_.may_have_returned(), found.left.state == SlotState::Returned)
            << "state " << number;
        ring_.clear(kOther, arena_);
        EXPECT_TRUE(is(0, found.left)) << "a second time, state " << number;
    }
}

TEST_F(SlotRingTest, AJanitorLeavesTheLivingAlone) {
    for (const SlotState state : {SlotState::Claimed, SlotState::Taken, SlotState::Done}) {
        const SlotWord before{state, kSelf, 1, 0};
        set(0, before);
        EXPECT_FALSE(ring_.clear(kOther, arena_));
        EXPECT_TRUE(is(0, before));
    }
}

TEST_F(SlotRingTest, ADeathInTheLastDeliveryAloneMakesADeadLetter) {
    set(0, {SlotState::Taken, kOther, 2, 0}, 9);
    other_.note_alone(0);
    EXPECT_TRUE(ring_.clear(kOther, arena_));
    EXPECT_TRUE(is(0, {SlotState::DeadLetter, 0, 2, 0}));
    EXPECT_TRUE(ring_.may_have_dead_letters());
}

}  // namespace
}  // namespace penstock::test

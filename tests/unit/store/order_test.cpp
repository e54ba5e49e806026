// The order of a store's residents, move by move: adding, removing, renewing, the next victim, and
// contradictory links.
#include "store/order.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "tests/unit/store/store_stage.hpp"

namespace penstock::test {
namespace {

using detail::payload_of;
using detail::StoreOrder;
using Outcome = StoreOrder::Outcome;
using Numbers = std::vector<std::uint32_t>;

constexpr std::uint64_t kResident = layout::encode_entry(EntryState::Resident);
constexpr std::uint64_t kDoomed = layout::encode_entry(EntryState::Doomed);

struct OrderStage : StoreStage {
    using StoreStage::StoreStage;

    [[nodiscard]] std::uint64_t seen(std::uint32_t number) const {
        return words.read(view.entry(number).word);
    }
    void append(const Numbers& numbers) {
        for (const std::uint32_t number : numbers) {
            EXPECT_EQ(order.append(number, seen(number), kResident), Outcome::Done);
        }
    }
    Outcome remove(std::uint32_t number) { return order.remove(number, seen(number), kDoomed); }
    // From the oldest to the newest; the reverse walk must agree.
    [[nodiscard]] Numbers all() const {
        Numbers forth;
        for (std::uint64_t at = payload_of(words.read(view.state().oldest));
             at != 0 && forth.size() < 100;
             at = payload_of(words.read(view.entry(forth.back()).newer))) {
            forth.push_back(static_cast<std::uint32_t>(at - 1));
        }
        Numbers back;
        for (std::uint64_t at = payload_of(words.read(view.state().newest));
             at != 0 && back.size() < 100;
             at = payload_of(words.read(view.entry(back.front()).older))) {
            back.insert(back.begin(), static_cast<std::uint32_t>(at - 1));
        }
        EXPECT_EQ(forth, back);
        return forth;
    }
    void set_favour(std::uint32_t number, const detail::Favour& favour) const {
        view.entry(number).favour.store(detail::encode_favour(favour));
    }
    void hold(std::uint32_t number) const { view.holders(number, kOther).fetch_or(1U << kOther); }
    // Evicts so many; returns their numbers.
    Numbers evict(unsigned count) {
        Numbers victims;
        for (unsigned i = 0; i < count; ++i) {
            victims.push_back(order.victim());
            if (victims.back() == StoreOrder::kNone) return victims;
            EXPECT_EQ(remove(victims.back()), Outcome::Done);
        }
        return victims;
    }

    StoreOrder order{view, words};
};

TEST(StoreOrder, AnAppendedEntryIsTheNewest) {
    OrderStage stage;
    EXPECT_EQ(stage.all(), Numbers{});
    stage.append({5, 2, 9});
    EXPECT_EQ(stage.all(), (Numbers{5, 2, 9}));
    EXPECT_EQ(stage.entry(2).state, EntryState::Resident);
}

TEST(StoreOrder, AnyEntryCanBeRemoved) {
    const Numbers before{5, 2, 9};
    for (std::size_t at = 0; at < before.size(); ++at) {
        OrderStage stage;
        stage.append(before);
        EXPECT_EQ(stage.remove(before[at]), Outcome::Done);
        Numbers after = before;
        after.erase(after.begin() + static_cast<std::ptrdiff_t>(at));
        EXPECT_EQ(stage.all(), after);
        EXPECT_EQ(stage.entry(before[at]).state, EntryState::Doomed);
        // Both links change, so that a concurrent removal of a neighbour notices.
        const layout::StoreEntry& gone = stage.view.entry(before[at]);
        EXPECT_EQ(payload_of(stage.words.read(gone.newer)), 0U);
        EXPECT_EQ(payload_of(stage.words.read(gone.older)), 0U);
        stage.append({before[at]});  // with links of its own that lead nowhere
        after.push_back(before[at]);
        EXPECT_EQ(stage.all(), after);
    }
}

TEST(StoreOrder, TheOrderIsEmptyAfterItsLastEntry) {
    OrderStage stage;
    stage.append({5});
    EXPECT_EQ(stage.remove(5), Outcome::Done);
    EXPECT_EQ(stage.all(), Numbers{});
    EXPECT_EQ(stage.order.victim(), StoreOrder::kNone);
}

TEST(StoreOrder, AnEntryThatMovedSinceTheLookStopsTheChange) {
    OrderStage stage;
    stage.append({5, 2});
    const std::uint64_t seen = stage.seen(2);
    stage.set(2, EntryState::Evicting, StoreStage::kOther);
    EXPECT_EQ(stage.order.remove(2, seen, kDoomed), Outcome::Changed);
    stage.set(2, EntryState::Resident);  // away and back
    EXPECT_EQ(stage.order.remove(2, seen, kDoomed), Outcome::Changed);
    EXPECT_EQ(stage.all(), (Numbers{5, 2}));
    const std::uint64_t staged = stage.seen(9);
    stage.set(9, EntryState::Expired, StoreStage::kSelf);
    EXPECT_EQ(stage.order.append(9, staged, kResident), Outcome::Changed);
    EXPECT_EQ(stage.all(), (Numbers{5, 2}));
    EXPECT_EQ(stage.entry(9).state, EntryState::Expired);
}

TEST(StoreOrder, LinksThatContradictEachOtherAreDamage) {
    OrderStage stage;
    stage.append({5, 2, 9});
    layout::Word& newer = stage.view.entry(5).newer;
    ASSERT_TRUE(detail::MultiWord::change(newer, stage.words.read(newer), 9 + 1));
    EXPECT_EQ(stage.remove(2), Outcome::Damaged);
    EXPECT_EQ(stage.entry(2).state, EntryState::Resident) << "it stays as it was";
    layout::Word& newest = stage.view.state().newest;
    ASSERT_TRUE(detail::MultiWord::change(newest, stage.words.read(newest), 2 + 1));
    const std::uint64_t seen = stage.seen(7);
    EXPECT_EQ(stage.order.append(7, seen, kResident), Outcome::Damaged) << "2 is not the last";
    EXPECT_EQ(stage.seen(7), seen);
}

TEST(StoreOrder, ARenewedEntryIsTheNewest) {
    OrderStage stage(Eviction::Lru);
    stage.append({5, 2, 9});
    stage.order.renew(5);
    EXPECT_EQ(stage.all(), (Numbers{2, 9, 5}));
    stage.order.renew(9);
    EXPECT_EQ(stage.all(), (Numbers{2, 5, 9})) << "next to the newest";
    stage.order.renew(9);
    EXPECT_EQ(stage.all(), (Numbers{2, 5, 9}));
    stage.set(2, EntryState::Evicting, StoreStage::kOther);
    stage.order.renew(2);
    EXPECT_EQ(stage.all(), (Numbers{2, 5, 9})) << "no resident any more";
}

TEST(StoreOrder, FifoAndLruEvictTheOldest) {
    for (const Eviction eviction : {Eviction::Fifo, Eviction::Lru}) {
        OrderStage stage(eviction);
        stage.append({5, 2, 9});
        stage.order.visit(5);
        EXPECT_EQ(stage.evict(4), (Numbers{5, 2, 9, StoreOrder::kNone}));
    }
}

TEST(StoreOrder, EntriesInUseRetainedOrEvictingAreNoVictims) {
    for (const Eviction eviction : {Eviction::Sieve, Eviction::Fifo, Eviction::Lru}) {
        OrderStage stage(eviction);
        stage.append({5, 2, 9, 7});
        stage.hold(5);
        stage.set_favour(2, {0, 0, 1});
        stage.set(9, EntryState::Evicting, StoreStage::kOther);
        EXPECT_EQ(stage.evict(2), (Numbers{7, StoreOrder::kNone}));
    }
}

TEST(StoreOrder, SieveEvictsEntriesNotVisitedSinceTheHandPassed) {
    OrderStage stage;
    stage.append({5, 2, 9, 7});
    stage.order.visit(5);
    stage.order.visit(9);
    EXPECT_EQ(stage.evict(1), Numbers{2});
    stage.append({2});  // behind the hand, so it is the last to be visited
    EXPECT_EQ(stage.evict(4), (Numbers{7, 2, 5, 9})) << "the hand goes on where it was";
}

TEST(StoreOrder, SievePassesOnceMoreForEachWeight) {
    OrderStage stage;
    stage.append({5, 2});
    stage.set_favour(5, {0, 2, 0});
    stage.order.visit(5);
    stage.order.visit(5);  // a second visit in the same round adds nothing
    EXPECT_EQ(detail::decode_favour(stage.view.entry(5).favour.load()).visits, 3);
    EXPECT_EQ(stage.evict(1), Numbers{2});
    EXPECT_EQ(detail::decode_favour(stage.view.entry(5).favour.load()).visits, 2);
    stage.order.visit(5);
    EXPECT_EQ(detail::decode_favour(stage.view.entry(5).favour.load()).visits, 3);
    EXPECT_EQ(stage.evict(1), Numbers{5});
}

TEST(StoreOrder, AHandThatPointsToNothingBeginsAtTheOldest) {
    OrderStage stage;
    stage.append({5, 2, 9});
    for (const std::uint64_t hand : {std::uint64_t{7} + 1, ~std::uint64_t{0}}) {
        stage.view.state().hand.store(hand);
        EXPECT_EQ(stage.order.victim(), 5U) << hand;
    }
}

TEST(StoreOrder, ASearchThroughACircleEnds) {
    for (const Eviction eviction : {Eviction::Sieve, Eviction::Fifo}) {
        OrderStage stage(eviction);
        stage.append({5, 2});
        stage.hold(5);
        stage.hold(2);
        layout::Word& newer = stage.view.entry(2).newer;
        ASSERT_TRUE(detail::MultiWord::change(newer, stage.words.read(newer), 5 + 1));
        EXPECT_EQ(stage.order.victim(), StoreOrder::kNone);
    }
}

}  // namespace
}  // namespace penstock::test

// The moves that are rare: giving back, taking what was given back, clearing up after the dead.
#include "queue/slot_ring.hpp"

namespace penstock::detail {

using layout::QueueSlot;

// `returned` is announced after the slot is Returned. Who finds no such slot takes down the
// announcement that it had seen before it looked; the count tells that from a later one.
bool SlotRing::take_returned(std::uint64_t& index) noexcept {
    for (;;) {
        std::uint64_t announced = view_.state().returned.load(kAcquire);
        std::optional<std::uint64_t> first;
        std::uint64_t order = 0;
        for (std::uint64_t i = 0; i <= mask_; ++i) {
            const QueueSlot& slot = view_.slot(i);
            if (layout::decode_slot(slot.word.load(kAcquire)).state != SlotState::Returned)
                continue;
            const std::uint64_t sequence = slot.sequence.load(kRelaxed);
            if (first && sequence >= order) continue;
            first = i;
            order = sequence;
        }
        if (!first) {
            const std::uint64_t nothing = announced & ~std::uint64_t{1};
            if (view_.state().returned.compare_exchange_strong(announced, nothing, kAcqRel,
                                                               kRelaxed)) {
                return false;
            }
            continue;
        }
        QueueSlot& slot = view_.slot(*first);
        const std::uint64_t seen = slot.word.load(kAcquire);
        const SlotWord word = layout::decode_slot(seen);
        if (word.state != SlotState::Returned || !take_from(slot, seen, word)) continue;
        index = *first;
        return true;
    }
}

void SlotRing::give_back(std::uint64_t index) noexcept {
    const SlotWord word = layout::decode_slot(view_.slot(index).word.load(kAcquire));
    const unsigned limit = view_.shape().poison_limit;
    const bool is_poison = limit != 0 && word.deliveries >= limit;
    const SlotState to = is_poison ? SlotState::Poisoned : SlotState::Returned;
    if (!move(index, word.owner, SlotState::Taken, to)) return;
    PENSTOCK_CRASH_POINT("queue.return.returned");
    if (!is_poison) announce_returned();
}

void SlotRing::untake(std::uint64_t index) noexcept {
    if (!move(index, self_, SlotState::Taken, SlotState::Returned, 1)) return;
    PENSTOCK_CRASH_POINT("queue.return.returned");
    announce_returned();
}

// The block goes before the slot stops naming it, so that a death in between loses neither.
void SlotRing::free_block(std::uint64_t index, Arena& arena) noexcept {
    QueueSlot& slot = view_.slot(index);
    const std::uint64_t named = slot.block.load(kRelaxed);
    if (named == 0) return;
    const BlockId block = decode_block(named);
    if (arena.is_valid(block, 0)) arena.free(block, self_);
    PENSTOCK_CRASH_POINT("queue.free.freed");
    slot.block.store(0, kRelaxed);
}

std::uint64_t SlotRing::discard_poisoned(Arena& arena) noexcept {
    std::uint64_t discarded = 0;
    for (std::uint64_t index = 0; index <= mask_; ++index) {
        QueueSlot& slot = view_.slot(index);
        std::uint64_t seen = slot.word.load(kAcquire);
        SlotWord word = layout::decode_slot(seen);
        if (word.state != SlotState::Poisoned) continue;
        word.state = SlotState::Done;
        word.owner = self_;
        if (!slot.word.compare_exchange_strong(seen, encode(word), kAcqRel, kRelaxed)) {
            --index;  // somebody passed it just now
            continue;
        }
        PENSTOCK_CRASH_POINT("queue.discard.done");
        free(index, arena);
        ++discarded;
    }
    return discarded;
}

bool SlotRing::clear(unsigned dead, Arena& arena) noexcept {
    bool changed = false;
    bool has_returned = false;
    for (std::uint64_t index = 0; index <= mask_; ++index) {
        const SlotWord word = layout::decode_slot(view_.slot(index).word.load(kAcquire));
        has_returned = has_returned || word.state == SlotState::Returned;
        const bool is_owned = word.state == SlotState::Claimed || word.state == SlotState::Taken ||
                              word.state == SlotState::Done || word.state == SlotState::Overtaken;
        if (!is_owned || word.owner != dead) continue;
        changed = true;
        if (word.state == SlotState::Taken) {
            give_back(index);
        } else {
            free_block(index, arena);
            free_slot(index);
        }
        PENSTOCK_CRASH_POINT("queue.clear.slot");
    }
    // The dead one, or its last janitor, may have got no further than the slot.
    if (has_returned) announce_returned();
    return changed || has_returned;
}

}  // namespace penstock::detail

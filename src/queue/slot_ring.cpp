// The rare moves: nack, taking Returned messages, dead letters, clearing the slots of the dead.
#include "queue/slot_ring.hpp"

#include "segment/words/atomics.hpp"

namespace penstock::detail {

using layout::QueueSlot;

// `returned` is announced after the slot is Returned. A consumer that finds no such slot clears the
// announcement that it saw before the search, unless the count shows a later one.
bool SlotRing::take_returned(std::uint64_t& index) noexcept {
    // Each attempt means that another participant took or returned one. Giving up leaves it
    // announced.
    constexpr unsigned kMaxAttempts = 1000;
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint64_t announced = load_acquire(view_.state().returned);
        std::optional<std::uint64_t> first;
        std::uint64_t order = 0;
        for (std::uint64_t i = 0; i <= mask_; ++i) {
            const QueueSlot& slot = view_.slot(i);
            if (layout::decode_slot(load_acquire(slot.word)).state != SlotState::Returned) continue;
            const std::uint64_t sequence = load_relaxed(slot.sequence);
            if (first && sequence >= order) continue;
            first = i;
            order = sequence;
        }
        if (!first) {
            if (take_down(announced)) return false;
            continue;
        }
        QueueSlot& slot = view_.slot(*first);
        const std::uint64_t seen = load_acquire(slot.word);
        const SlotWord word = layout::decode_slot(seen);
        if (word.state != SlotState::Returned || !take_from(slot, seen, word)) continue;
        index = *first;
        return true;
    }
    return false;
}

// Whether the message has reached the delivery limit and its last delivery was of it alone, so that
// no other message can have caused the failure.
bool SlotRing::is_exhausted(const QueueSlot& slot, const SlotWord& word) const noexcept {
    const unsigned limit = view_.shape().max_deliveries;
    if (limit == 0 || word.deliveries < limit) return false;
    // pairs with: the store in note_alone()
    return load_acquire(slot.alone) ==
           layout::encode_alone(load_relaxed(slot.sequence), word.deliveries);
}

void SlotRing::nack(std::uint64_t index) noexcept {
    const QueueSlot& slot = view_.slot(index);
    const SlotWord word = layout::decode_slot(load_acquire(slot.word));
    const bool is_dead_letter = is_exhausted(slot, word);
    if (is_dead_letter) note_dead_letter();
    const SlotState to = is_dead_letter ? SlotState::DeadLetter : SlotState::Returned;
    if (!move(index, word.owner, SlotState::Taken, to)) return;
    PENSTOCK_CRASH_POINT("queue.return.returned");
    if (!is_dead_letter) announce_returned();
}

void SlotRing::untake(std::uint64_t index) noexcept {
    if (!move(index, self_, SlotState::Taken, SlotState::Returned, 1)) return;
    PENSTOCK_CRASH_POINT("queue.return.returned");
    announce_returned();
}

// The block is freed before the slot stops naming it, so that a death in between loses neither.
void SlotRing::free_block(std::uint64_t index, Arena& arena) noexcept {
    QueueSlot& slot = view_.slot(index);
    const std::uint64_t named = load_relaxed(slot.block);
    if (named == 0) return;
    const BlockId block = decode_block(named);
    if (arena.is_valid(block, 0)) arena.free(block, self_);
    PENSTOCK_CRASH_POINT("queue.free.freed");
    store_relaxed(slot.block, 0);
}

// The word is read before the sequence and must be unchanged after it, except for laps that passing
// producers note: so the move is of this message, and not of a later one in the slot.
bool SlotRing::leave_dead_letter(std::uint64_t index, std::uint64_t sequence,
                                 const SlotWord& to) noexcept {
    QueueSlot& slot = view_.slot(index);
    std::uint64_t seen = load_acquire(slot.word);
    for (;;) {
        SlotWord word = layout::decode_slot(seen);
        if (word.state != SlotState::DeadLetter) return false;
        if (load_relaxed(slot.sequence) != sequence) return false;
        word.state = to.state;
        word.owner = to.owner;
        word.deliveries = to.deliveries;
        if (cas_acq_rel(slot.word, seen, encode(word))) return true;
    }
}

bool SlotRing::requeue(std::uint64_t index, std::uint64_t sequence) noexcept {
    QueueSlot& slot = view_.slot(index);
    // Deliveries are counted anew, so the old `alone` must not match a new delivery of the same
    // number. If another operator was faster this may clear a newer one: then the message is
    // delivered alone once more.
    if (layout::decode_slot(load_acquire(slot.word)).state == SlotState::DeadLetter) {
        store_release(slot.alone, 0);
    }
    if (!leave_dead_letter(index, sequence, {SlotState::Returned, 0, 0, 0})) return false;
    PENSTOCK_CRASH_POINT("queue.dead.requeued");
    announce_returned();
    return true;
}

bool SlotRing::drop(std::uint64_t index, std::uint64_t sequence, Arena& arena) noexcept {
    if (!leave_dead_letter(index, sequence, {SlotState::Done, self_, 0, 0})) return false;
    PENSTOCK_CRASH_POINT("queue.dead.dropped");
    free(index, arena);
    return true;
}

bool SlotRing::clear(unsigned dead, Arena& arena) noexcept {
    bool changed = false;
    bool has_returned = false;
    for (std::uint64_t index = 0; index <= mask_; ++index) {
        const SlotWord word = layout::decode_slot(load_acquire(view_.slot(index).word));
        has_returned = has_returned || word.state == SlotState::Returned;
        const bool is_owned = word.state == SlotState::Claimed || word.state == SlotState::Taken ||
                              word.state == SlotState::Done || word.state == SlotState::Overtaken;
        if (!is_owned || word.owner != dead) continue;
        changed = true;
        if (word.state == SlotState::Taken) {
            nack(index);
        } else {
            free_block(index, arena);
            free_slot(index);
        }
        PENSTOCK_CRASH_POINT("queue.clear.slot");
    }
    // The dead participant, or its last janitor, may have died before the announcement.
    if (has_returned) announce_returned();
    return changed || has_returned;
}

std::uint64_t SlotRing::announce_returned() noexcept {
    std::atomic<std::uint64_t>& returned = view_.state().returned;
    std::uint64_t seen = load_relaxed(returned);
    while (!cas_acq_rel(returned, seen, (seen + 2) | 1U)) {
    }
    PENSTOCK_CRASH_POINT("queue.return.announced");
    return (seen + 2) | 1U;
}

bool SlotRing::defer(std::uint64_t index, std::uint64_t seen) noexcept {
    SlotWord word = layout::decode_slot(seen);
    if (word.state != SlotState::Ready) return false;
    word.state = SlotState::Returned;
    const bool is_deferred = cas_acq_rel(view_.slot(index).word, seen, encode(word));
    PENSTOCK_CRASH_POINT("queue.defer.returned");
    return is_deferred;
}

std::uint64_t SlotRing::count_returned(std::uint64_t most) const noexcept {
    std::uint64_t count = 0;
    for (std::uint64_t index = 0; index <= mask_ && count < most; ++index) {
        const SlotWord word = layout::decode_slot(load_acquire(view_.slot(index).word));
        if (word.state != SlotState::Returned) continue;
        // A message that must come alone is a batch by itself, whatever was asked for.
        if (must_come_alone(word.deliveries + 1)) return most;
        ++count;
    }
    return count;
}

// Tickets are claimed in order: unless ticket head + least - 1 is claimed, there are fewer. This
// one look is all that a waiting request costs the producers.
bool SlotRing::has(std::uint64_t& head, std::uint64_t least) noexcept {
    if (may_have_returned()) least -= count_returned(least);
    if (least == 0) return true;
    head = std::max(head, hint_of(view_.head()));
    if (least > mask_ + 1 || !is_claimed(head + least - 1)) return false;
    // Waiting messages lie within a lap of the first unspent ticket, which may be far from the hint
    // if others took what was in between.
    pass_spent(head);
    const std::uint64_t end = head + mask_ + 1;
    for (std::uint64_t at = head; at < end && is_claimed(at); ++at) {
        const SlotWord word = layout::decode_slot(load_acquire(slot_of(at).word));
        if (word.state == SlotState::Ready && word.lap == at >> lap_shift_ && --least == 0) {
            return true;
        }
    }
    return false;
}

void SlotRing::pass_spent(std::uint64_t& head) noexcept {
    for (std::uint64_t looks = 0; looks < most_looks_; ++looks) {
        const SlotWord word = layout::decode_slot(load_acquire(slot_of(head).word));
        if (!is_spent(word, head >> lap_shift_)) return;
        push(view_.head(), ++head);
    }
}

bool SlotRing::has_more(std::uint64_t head, const Sight& seen) const noexcept {
    if (load_acquire(view_.state().returned) >> 1U != seen.returned >> 1U) return true;
    const SlotWord next = layout::decode_slot(load_acquire(slot_of(seen.end).word));
    const std::uint64_t lap = seen.end >> lap_shift_;
    if (next.lap > lap ||
        (next.lap == lap && next.state != SlotState::Empty && next.state != SlotState::Claimed)) {
        return true;
    }
    if (seen.claimed == 0 && !is_claimed(seen.end)) return false;
    // Several messages were being published; some may be Ready now.
    std::uint64_t claimed = 0;
    std::uint64_t at = std::max(head, hint_of(view_.head()));
    for (const std::uint64_t most = at + mask_ + 1; at < most && is_claimed(at); ++at) {
        const SlotWord word = layout::decode_slot(load_acquire(slot_of(at).word));
        if (word.state == SlotState::Claimed && word.lap == at >> lap_shift_) ++claimed;
    }
    return claimed != seen.claimed + (at - seen.end);
}

}  // namespace penstock::detail

// The protocol of a Queue's slots: the moves of a slot's word, one function for each. The decisive
// step of a move is one compare-and-swap; what must precede or follow it is noted there.
// docs/protocols.md has the table of states and what a death in each of them means.
//
// Tickets number the queue's order; ticket t is slot t % slots in lap t / slots. Producers look for
// the first ticket that is not spent, consumers for the first that is Ready. Both hints may lag; a
// search moves them past what it finds spent.
#pragma once

#include <optional>

#include "os/clock.hpp"
#include "os/crash_point.hpp"
#include "os/spin.hpp"
#include "queue/control.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {

class SlotRing {
public:
    using SlotState = layout::SlotState;
    using SlotWord = layout::SlotWord;

    SlotRing() noexcept = default;
    // `self`: the participant that owns the slots claimed or taken by this object.
    SlotRing(const QueueView& view, unsigned self) noexcept
        : view_(view), self_(self), mask_(view.shape().slots - 1),
          lap_shift_(static_cast<unsigned>(std::countr_zero(view.shape().slots))),
          patience_(
              os::pauses_in(kPublishPatience + static_cast<std::int64_t>(view.shape().cell_bytes) *
                                                   kPublishPatienceForEight / 8)),
          most_looks_(std::max(kMinLooks, 16 * view.shape().slots)) {}

    enum class Look : std::uint8_t { Got, Nothing, Damaged };

    // Claims the first free ticket from `tail` on and moves `tail`. Nothing: the queue is full.
    Look claim(std::uint64_t& tail) noexcept {
        if (claim_at(tail)) [[likely]]
            return Look::Got;
        tail = std::max(tail, hint_of(view_.tail()));
        std::uint64_t passable = 0;  // tickets below it may be passed
        for (std::uint64_t looks = 0; looks < most_looks_; ++looks) {
            layout::QueueSlot& slot = slot_of(tail);
            std::uint64_t seen = load_acquire(slot.word);
            const SlotWord word = layout::decode_slot(seen);
            const std::uint64_t lap = tail >> lap_shift_;
            if (lap >= layout::kLapMask) return Look::Damaged;
            if (word.lap > lap || (word.lap == lap && word.state != SlotState::Empty)) {
                push(view_.tail(), ++tail);  // claimed, or spent
                continue;
            }
            if (word.state == SlotState::Ready) return Look::Nothing;
            if (word.state == SlotState::Empty) {
                if (word.lap != lap) return Look::Damaged;  // the hint ran ahead of all claims
                // pairs with: the release in free_slot(): the last consumer's reads come before
                // this producer's writes
                if (cas_seq_cst(slot.word, seen, encode({SlotState::Claimed, self_, 0, lap}))) {
                    PENSTOCK_CRASH_POINT("queue.claim.claimed");
                    push(view_.tail(), ++tail);
                    return Look::Got;
                }
                continue;
            }
            // The slot is still held from an earlier lap. It is passed only if that leads to a
            // claim: a ticket passed in vain costs consumers a look, and its slot a lap.
            if (tail >= passable) {
                passable = find_claimable(tail);
                if (passable == tail) return Look::Nothing;
            }
            SlotWord passed = word;
            passed.lap = lap;
            if (word.state == SlotState::Claimed) passed.state = SlotState::Overtaken;
            cas_acq_rel(slot.word, seen, encode(passed));
            PENSTOCK_CRASH_POINT("queue.claim.passed");
        }
        return Look::Damaged;
    }

    // Claimed -> Ready. False: overtaken meanwhile; the caller still owns the slot, and must
    // abandon it.
    bool publish(std::uint64_t ticket) noexcept {
        std::uint64_t expected = encode({SlotState::Claimed, self_, 0, ticket >> lap_shift_});
        // pairs with: the acquire in take(), which carries the message
        const bool published = cas_acq_rel(slot_of(ticket).word, expected,
                                           encode({SlotState::Ready, 0, 0, ticket >> lap_shift_}));
        PENSTOCK_CRASH_POINT("queue.publish.ready");
        return published;
    }

    // Claimed or Overtaken -> Empty. The slot must not name a block any more.
    void abandon(std::uint64_t ticket) noexcept { free_slot(ticket & mask_); }

    // Takes the ticket at `head` if it is Ready: the likely case of take(). Does not read the hint:
    // where that is ahead the ticket is spent, and its slot's word shows it.
    bool take_at(std::uint64_t& head, std::uint64_t& index) noexcept {
        const SlotWord ready{SlotState::Ready, 0, 0, head >> lap_shift_};
        const std::uint64_t seen = load_acquire(slot_of(head).word);
        if (seen != encode(ready) || !take_from(slot_of(head), seen, ready)) return false;
        index = head & mask_;
        push(view_.head(), ++head);
        return true;
    }
    // Takes the first Ready ticket from `head` on, moves `head`, and stores the slot's index.
    // Nothing: the ticket at `head` has not been published.
    Look take(std::uint64_t& head, std::uint64_t& index) noexcept {
        if (take_at(head, index)) [[likely]]
            return Look::Got;
        head = std::max(head, hint_of(view_.head()));
        std::uint64_t patience = patience_;
        for (std::uint64_t looks = 0; looks < most_looks_; ++looks) {
            layout::QueueSlot& slot = slot_of(head);
            std::uint64_t seen = load_acquire(slot.word);
            const SlotWord word = layout::decode_slot(seen);
            const std::uint64_t lap = head >> lap_shift_;
            if (word.lap < lap) {
                // Held from an earlier lap; Empty and Ready are impossible, since all tickets
                // before `head` are spent.
                const bool is_hostile =
                    word.state == SlotState::Empty || word.state == SlotState::Ready;
                return is_hostile ? Look::Damaged : Look::Nothing;
            }
            if (is_spent(word, lap)) {
                push(view_.head(), ++head);
                patience = patience_;
                continue;
            }
            if (word.state == SlotState::Empty) return Look::Nothing;
            if (word.state == SlotState::Ready) {
                if (!take_from(slot, seen, word)) continue;
                index = head & mask_;
                push(view_.head(), ++head);
                return Look::Got;
            }
            // Claimed: its producer is about to publish, or is stopped, or dead.
            if (patience > 0) {
                --patience;
                os::spin_pause();
                continue;
            }
            cas_acq_rel(slot.word, seen, encode({SlotState::Overtaken, word.owner, 0, lap}));
            PENSTOCK_CRASH_POINT("queue.take.overtaken");
        }
        return Look::Damaged;
    }
    // Whether taking this slot may help a producer that found the queue full: it can now pass this
    // slot to one that became free behind it.
    [[nodiscard]] bool opens_a_way(std::uint64_t index) const noexcept {
        const std::uint64_t next = load_relaxed(view_.slot((index + 1) & mask_).word);
        return layout::decode_slot(next).state != SlotState::Ready;
    }

    // Takes the Returned slot with the lowest sequence. To be called if may_have_returned().
    bool take_returned(std::uint64_t& index) noexcept;
    [[nodiscard]] bool may_have_returned() const noexcept {
        return (load_acquire(view_.state().returned) & 1U) != 0;
    }

    // A waiting message, as it was seen; its words are consistent with each other.
    struct Waiting {
        std::uint64_t index = 0;
        std::uint64_t word = 0;  // of the slot
        std::uint64_t sequence = 0;
        std::uint64_t tag = 0;
        std::uint64_t order = 0;
    };
    // Extent of a survey.
    struct Sight {
        std::uint64_t end = 0;      // the first ticket that was not claimed
        std::uint64_t claimed = 0;  // tickets before it that were not published yet
        std::uint64_t returned = 0;
    };
    // Calls use(Waiting) for all waiting messages, Returned and Ready, and takes nothing. Moves
    // `head`.
    template <typename Use>
    Sight survey(std::uint64_t& head, Use&& use);
    // Whether a new survey would see more than `seen`.
    [[nodiscard]] bool has_more(std::uint64_t head, const Sight& seen) const noexcept;
    // Takes a message that was seen waiting. False: it has changed since.
    bool take_seen(std::uint64_t index, std::uint64_t seen) noexcept {
        const SlotWord word = layout::decode_slot(seen);
        return take_from(view_.slot(index), seen, word);
    }
    // Ready -> Returned, for a message that was seen and is left waiting: its ticket is spent, so
    // that producers can pass its slot. announce_deferred() must follow. True if it was unchanged.
    bool defer(std::uint64_t index, std::uint64_t seen) noexcept;
    // Announces deferred slots without making them news to the survey that saw them.
    void announce_deferred(Sight& sight) noexcept {
        const std::uint64_t announced = announce_returned();
        if (announced == ((sight.returned + 2) | 1U)) sight.returned = announced;
    }

    // Whether `least` messages wait, or one that must come alone. Exact while none is taken. Moves
    // `head`.
    [[nodiscard]] bool has(std::uint64_t& head, std::uint64_t least) noexcept;

    // Whether a take, or a claim, would probably succeed.
    [[nodiscard]] bool is_ready(std::uint64_t head) const noexcept {
        const std::uint64_t at = std::max(head, hint_of(view_.head()));
        const SlotWord word = layout::decode_slot(load_relaxed(slot_of(at).word));
        const std::uint64_t lap = at >> lap_shift_;
        return may_have_returned() || word.lap > lap ||
               (word.lap == lap && word.state != SlotState::Empty);
    }
    [[nodiscard]] bool has_room(std::uint64_t tail) const noexcept {
        const std::uint64_t at = std::max(tail, hint_of(view_.tail()));
        const SlotWord word = layout::decode_slot(load_relaxed(slot_of(at).word));
        return word.lap >= at >> lap_shift_ || word.state != SlotState::Ready;
    }

    // Taken -> Done: acknowledged. Any thread.
    void settle(std::uint64_t index) noexcept {
        move_own(index, SlotState::Taken, SlotState::Done);
        PENSTOCK_CRASH_POINT("queue.ack.done");
    }
    // Done -> Empty; frees the block. Any thread.
    void free(std::uint64_t index, Arena& arena) noexcept {
        free_block(index, arena);
        free_slot(index);
        PENSTOCK_CRASH_POINT("queue.ack.empty");
    }
    // settle() and free(); a single move if there is no block.
    void acknowledge(std::uint64_t index, Arena& arena) noexcept {
        if (load_relaxed(view_.slot(index).block) != 0) {
            settle(index);
            free_block(index, arena);
        }
        free_slot(index);
        PENSTOCK_CRASH_POINT("queue.ack.empty");
    }
    // Taken -> Returned, or DeadLetter if is_exhausted(). Any thread.
    void nack(std::uint64_t index) noexcept;
    // Records that the current delivery is of this message alone. Before the message is handed out:
    // a death before that can't be the message's fault.
    void note_alone(std::uint64_t index) noexcept {
        layout::QueueSlot& slot = view_.slot(index);
        const SlotWord word = layout::decode_slot(load_relaxed(slot.word));
        // pairs with: the load in is_exhausted()
        store_release(slot.alone,
                      layout::encode_alone(load_relaxed(slot.sequence), word.deliveries));
        PENSTOCK_CRASH_POINT("queue.take.alone");
    }
    // Whether the limit was reached by earlier deliveries, the last of which was not alone.
    [[nodiscard]] bool must_come_alone(unsigned deliveries) const noexcept {
        const unsigned limit = view_.shape().max_deliveries;
        return limit != 0 && deliveries > limit;
    }
    // Taken -> Returned without counting the delivery.
    void untake(std::uint64_t index) noexcept;
    // Taken -> DeadLetter: the slot's contents contradict themselves.
    void dead_letter(std::uint64_t index) noexcept {
        note_dead_letter();
        move_own(index, SlotState::Taken, SlotState::DeadLetter);
    }
    // Whether there may be DeadLetter slots.
    [[nodiscard]] bool may_have_dead_letters() const noexcept {
        return load_relaxed(view_.state().had_dead_letters) != 0;
    }
    // DeadLetter -> Returned, deliveries 0. False: the slot has no dead letter of that sequence.
    // One compare-and-swap: of two operators at the same message one succeeds. Any thread.
    bool requeue(std::uint64_t index, std::uint64_t sequence) noexcept;
    // DeadLetter -> Done (the caller's) -> Empty, likewise. A death in between: see clear().
    bool drop(std::uint64_t index, std::uint64_t sequence, Arena& arena) noexcept;

    // Clears the slots of dead participant `dead`. For its janitor, with its lock. Repeatable. True
    // if a message was returned or a slot became free.
    bool clear(unsigned dead, Arena& arena) noexcept;

    [[nodiscard]] std::uint64_t index_of(std::uint64_t ticket) const noexcept {
        return ticket & mask_;
    }
    [[nodiscard]] layout::QueueSlot& slot_of(std::uint64_t ticket) const noexcept {
        return view_.slot(ticket & mask_);
    }
    // For prefetching: the slot `ahead` tickets later.
    [[nodiscard]] std::uint64_t index_after(std::uint64_t ticket, unsigned ahead) const noexcept {
        return (ticket + ahead) & mask_;
    }

private:
    static constexpr std::uint64_t kHintEvery = 16;  // tickets; a lagging hint costs as many looks
    // Looks in one call. Spent tickets lie in a row for a lap at most, and hints lag a little; more
    // looks than this mean that hints or laps are damaged.
    static constexpr std::uint64_t kMinLooks = std::uint64_t{1} << 22U;

    static std::uint64_t encode(const SlotWord& word) noexcept { return layout::encode_slot(word); }

    // Claims the ticket at `tail` if it is free: the likely case of claim(). As take_at().
    bool claim_at(std::uint64_t& tail) noexcept {
        const std::uint64_t lap = tail >> lap_shift_;
        std::uint64_t seen = encode({SlotState::Empty, 0, 0, lap});
        std::atomic<std::uint64_t>& word = slot_of(tail).word;
        if (load_relaxed(word) != seen || lap >= layout::kLapMask) return false;
        // pairs with: the release in free_slot(), as in claim()
        if (!cas_seq_cst(word, seen, encode({SlotState::Claimed, self_, 0, lap}))) return false;
        PENSTOCK_CRASH_POINT("queue.claim.claimed");
        push(view_.tail(), ++tail);
        return true;
    }

    // Whether nothing can be published any more under this slot's ticket of that lap.
    static bool is_spent(const SlotWord& word, std::uint64_t lap) noexcept {
        return word.lap > lap ||
               (word.lap == lap && word.state != SlotState::Empty &&
                word.state != SlotState::Claimed && word.state != SlotState::Ready);
    }

    // The first ticket after `tail` that could be claimed once all in between are passed; `tail` if
    // there is none within a lap, because a Ready slot comes first or all slots are held.
    [[nodiscard]] std::uint64_t find_claimable(std::uint64_t tail) const noexcept {
        for (std::uint64_t at = tail + 1; at <= tail + mask_; ++at) {
            const SlotWord word = layout::decode_slot(load_acquire(slot_of(at).word));
            const std::uint64_t lap = at >> lap_shift_;
            // A later lap: other producers have passed everything before it already.
            if (word.lap >= lap) return at;
            if (word.state == SlotState::Ready) return tail;
        }
        return tail;
    }

    // Release and acquire, so that a search that starts there finds everything before it spent.
    static std::uint64_t hint_of(const layout::TicketHint& hint) noexcept {
        return load_acquire(hint.ticket);
    }
    static void push(layout::TicketHint& hint, std::uint64_t ticket) noexcept {
        if (ticket % kHintEvery != 0) return;
        std::uint64_t seen = load_relaxed(hint.ticket);
        while (seen < ticket && !cas_release(hint.ticket, seen, ticket)) {
        }
    }

    bool take_from(layout::QueueSlot& slot, std::uint64_t seen, const SlotWord& word) noexcept {
        const SlotWord ours{SlotState::Taken, self_,
                            std::min(word.deliveries + 1, layout::kMaxDeliveries), word.lap};
        const bool taken = cas_acq_rel(slot.word, seen, encode(ours));
        PENSTOCK_CRASH_POINT("queue.take.taken");
        return taken;
    }

    // Moves a slot that this participant owns, whatever laps other producers note in it. False: it
    // does not own the slot.
    bool move_own(std::uint64_t index, SlotState from, SlotState to) noexcept {
        return move(index, self_, from, to);
    }
    bool move(std::uint64_t index, unsigned owner, SlotState from, SlotState to,
              unsigned uncounted = 0) noexcept {
        layout::QueueSlot& slot = view_.slot(index);
        std::uint64_t seen = load_acquire(slot.word);
        for (;;) {
            SlotWord word = layout::decode_slot(seen);
            if (word.state != from || word.owner != owner) return false;
            word.state = to;
            word.deliveries -= std::min(word.deliveries, uncounted);
            if (to == SlotState::Returned || to == SlotState::DeadLetter) word.owner = 0;
            if (cas_acq_rel(slot.word, seen, encode(word))) return true;
        }
    }
    // The caller owns the slot, in any state: it becomes Empty in the next lap.
    void free_slot(std::uint64_t index) noexcept {
        layout::QueueSlot& slot = view_.slot(index);
        std::uint64_t seen = load_relaxed(slot.word);
        while (!cas_acq_rel(slot.word, seen,
                            encode({SlotState::Empty, 0, 0, layout::decode_slot(seen).lap + 1}))) {
        }
    }
    void free_block(std::uint64_t index, Arena& arena) noexcept;
    [[nodiscard]] bool is_exhausted(const layout::QueueSlot& slot,
                                    const SlotWord& word) const noexcept;
    bool leave_dead_letter(std::uint64_t index, std::uint64_t sequence,
                           const SlotWord& to) noexcept;
    // Before the move: a death in between costs later looks in vain, and hides no dead letter.
    void note_dead_letter() noexcept { store_relaxed(view_.state().had_dead_letters, 1); }
    // Moves `head` to the first unspent ticket.
    void pass_spent(std::uint64_t& head) noexcept;
    // Whether the ticket has been claimed, or its slot has gone beyond it.
    [[nodiscard]] bool is_claimed(std::uint64_t ticket) const noexcept {
        const SlotWord word = layout::decode_slot(load_acquire(slot_of(ticket).word));
        const std::uint64_t lap = ticket >> lap_shift_;
        return word.lap > lap || (word.lap == lap && word.state != SlotState::Empty);
    }
    // Clears the announcement. False: there was another one since `announced` was read.
    bool take_down(std::uint64_t announced) noexcept {
        return cas_acq_rel(view_.state().returned, announced, announced & ~std::uint64_t{1});
    }
    // Returns the new announcement word.
    std::uint64_t announce_returned() noexcept;
    // Returned slots, `most` at most; one that must come alone counts as `most`.
    [[nodiscard]] std::uint64_t count_returned(std::uint64_t most) const noexcept;
    // The words of a slot while its word is `seen`; nothing if it has changed meanwhile.
    [[nodiscard]] std::optional<Waiting> read_waiting(std::uint64_t index,
                                                      std::uint64_t seen) const noexcept {
        const layout::QueueSlot& slot = view_.slot(index);
        const Waiting waiting{index, seen, load_relaxed(slot.sequence), load_relaxed(slot.tag),
                              load_relaxed(slot.order)};
        // pairs with: the compare-and-swaps by which a slot changes owner: if a word of the next
        // producer was read, the slot's word has changed
        std::atomic_thread_fence(std::memory_order_acquire);
        if (load_relaxed(slot.word) != seen) return std::nullopt;
        return waiting;
    }

    QueueView view_;
    unsigned self_ = 0;
    std::uint64_t mask_ = 0;
    unsigned lap_shift_ = 0;
    std::uint64_t patience_ = 0;  // in pauses
    std::uint64_t most_looks_ = 0;
};

template <typename Use>
SlotRing::Sight SlotRing::survey(std::uint64_t& head, Use&& use) {
    Sight sight;
    // Read before the slots: a later announcement is news.
    sight.returned = load_acquire(view_.state().returned);
    if ((sight.returned & 1U) != 0) {
        bool has_any = false;
        for (std::uint64_t index = 0; index <= mask_; ++index) {
            const std::uint64_t seen = load_acquire(view_.slot(index).word);
            if (layout::decode_slot(seen).state != SlotState::Returned) continue;
            has_any = true;
            if (const auto waiting = read_waiting(index, seen)) use(*waiting);
        }
        if (!has_any) take_down(sight.returned);
    }
    head = std::max(head, hint_of(view_.head()));
    std::uint64_t at = head;
    for (std::uint64_t looks = 0; looks < most_looks_ && at <= head + mask_; ++looks, ++at) {
        const std::uint64_t seen = load_acquire(slot_of(at).word);
        const SlotWord word = layout::decode_slot(seen);
        const std::uint64_t lap = at >> lap_shift_;
        if (word.lap < lap || (word.lap == lap && word.state == SlotState::Empty)) break;
        if (is_spent(word, lap)) {
            if (at == head) push(view_.head(), ++head);
        } else if (word.state == SlotState::Claimed) {
            ++sight.claimed;
        } else if (const auto waiting = read_waiting(at & mask_, seen)) {
            use(*waiting);
        }
    }
    sight.end = at;
    return sight;
}

}  // namespace penstock::detail

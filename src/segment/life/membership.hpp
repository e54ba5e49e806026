// Membership: how a process joins a segment, leaves it, and reaps participants that died. One
// protocol for every concept. What a participant holds depends on the concept, whose
// `take_over(slot)` gives it back to the segment.
//
// Steps of a reap (models/janitor.pml, docs/protocols.md): the death is noted in the slot, the
// slot's lock is taken, take_over() runs, the slot is retired, the lock is let go. A janitor that
// dies in between leaves the slot announced and unlocked, as it found it, and the next janitor
// repeats the steps: so take_over() must be repeatable.
//
// One thread of a process at a time: the cores have a mutex for it. Nothing here waits for a
// stopped process, except once for kJanitorPatience.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "segment/life/segment.hpp"

namespace penstock::detail {

class Membership {
public:
    Membership() noexcept = default;
    // Covers the slots from 0 to `end`; joins none of them yet. Throws std::bad_alloc.
    Membership(Segment& segment, unsigned end);

    // Joins as creator, in Segment::create()'s `fill`: the fresh segment is private. Throws Error.
    static void found(Segment& fresh, unsigned slot);
    // Takes the slot joined by found() as this process's own.
    void adopt(unsigned slot) noexcept;

    // Joining: claim_any() or claim(), then the concept's preparations, inherit(), whatever may
    // still fail, enter(). The segment's life-cycle lock is held from Segment::attach() to enter().
    //
    // Takes the lock of the first available slot. Throws Busy, with the number of living
    // participants.
    unsigned claim_any();
    // Takes the lock of that slot, with patience for a process that is leaving it or reaping it.
    // False: its participant lives, or its janitor makes no progress.
    [[nodiscard]] bool claim(unsigned slot) noexcept;
    // Reaps a dead predecessor in the claimed slot, and signs the slot. True: there was one. While
    // the slot is announced it has the predecessor's signature, by which others find its process.
    template <typename TakeOver>
    bool inherit(TakeOver&& take_over) {
        const bool has_predecessor = participants().is_announced(claimed_);
        if (has_predecessor) {
            take_over(claimed_);
            participants().retire(claimed_);
        }
        participants().sign(claimed_);
        return has_predecessor;
    }
    // Announces this process as a participant.
    void enter() noexcept;
    // Instead of enter(): frees the slot again.
    void renounce() noexcept;

    // Leaves: frees the slot, and removes the segment's name if this was the last participant and
    // `may_go` agrees. Also without a slot, because the life-cycle lock may have kept the last
    // participant from removing the name. What the participant held must have been given back.
    // Repeatable.
    void leave(const std::function<bool()>& may_go = {}) noexcept;

    [[nodiscard]] bool is_member() const noexcept { return is_member_; }
    [[nodiscard]] unsigned slot() const noexcept { return claimed_; }

    // Reaps the participant of that slot if it is dead. False: it is not dead, or another process
    // is its janitor.
    template <typename TakeOver>
    bool reap(unsigned slot, TakeOver&& take_over) noexcept {
        if (is_own(slot) || participants().life(slot) != Life::Dead) return false;
        return reap_dead(slot, std::forward<TakeOver>(take_over));
    }
    // Reaps all dead participants and returns how many. Skips those that another janitor is
    // reaping. No slot from `reach` on has ever had a participant.
    template <typename TakeOver>
    unsigned reap_all(TakeOver&& take_over, unsigned reach = kAll) noexcept {
        unsigned reaped = 0;
        for (unsigned slot = 0; slot < std::min(end_, reach); ++slot) {
            if (reap(slot, take_over)) ++reaped;
        }
        return reaped;
    }
    // The same, and waits for other janitors: what their dead held is free in a moment, and going
    // on without it would evict objects of the living, or report no room. Waits for a stopped
    // janitor once only.
    template <typename TakeOver>
    void reap_all_and_wait(TakeOver&& take_over, unsigned reach = kAll) noexcept {
        for (unsigned slot = 0; slot < std::min(end_, reach); ++slot) {
            if (reap(slot, take_over)) continue;
            if (!is_own(slot) && participants().has_janitor(slot)) await_janitor(slot, take_over);
        }
    }

private:
    static constexpr unsigned kAll = ~0U;

    [[nodiscard]] Participants& participants() noexcept { return segment_->participants(); }
    [[nodiscard]] bool is_own(unsigned slot) const noexcept {
        return is_member_ && slot == claimed_;
    }
    // Takes the lock of a slot whose participant is dead. False: another process has it.
    [[nodiscard]] bool claim_dead(unsigned slot) noexcept;
    void let_go(unsigned slot) noexcept;

    template <typename TakeOver>
    bool reap_dead(unsigned slot, TakeOver&& take_over) noexcept {
        if (!claim_dead(slot)) return false;
        const bool is_dead = participants().is_announced(slot);
        if (is_dead) {
            take_over(slot);
            participants().retire(slot);
        }
        let_go(slot);
        return is_dead;
    }

    template <typename TakeOver>
    void await_janitor(unsigned slot, TakeOver&& take_over) noexcept {
        const std::uint64_t join = participants().joins(slot);
        if (given_up_[slot] == join) return;
        note_awaited();
        for (const std::int64_t end = patience_ends(); is_before(end);) {
            if (!participants().has_janitor(slot)) return;
            if (reap(slot, take_over)) return;  // the janitor died as well
        }
        given_up_[slot] = join;
    }
    static void note_awaited() noexcept;
    [[nodiscard]] static std::int64_t patience_ends() noexcept;
    // Pauses; false once that moment has come.
    [[nodiscard]] static bool is_before(std::int64_t end) noexcept;

    Segment* segment_ = nullptr;
    unsigned end_ = 0;
    unsigned claimed_ = 0;
    bool is_member_ = false;
    std::vector<std::uint64_t> given_up_;  // by slot: the join for whose janitor a wait was in vain
};

}  // namespace penstock::detail

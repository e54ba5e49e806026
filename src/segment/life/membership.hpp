// Membership: how a process joins a segment, leaves it, and reaps participants that died. One
// protocol for every concept; what a participant holds is the concept's, whose `take_over(slot)`
// gives it back to the segment.
//
// A dead participant is reaped in these steps (models/janitor.pml, docs/protocols.md): its death is
// noted in its slot, the slot's lock is taken, take_over() runs, the slot is retired, the lock is
// let go. A janitor that dies on the way leaves the slot announced and unlocked, as it found it,
// and the next one repeats the steps: so take_over() must be repeatable.
//
// One thread of a process at a time: the cores have a mutex for it. Nothing here waits for a
// process that is stopped, but for kJanitorPatience once.
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
    // Of the slots from 0 to `end`. Joined in none of them yet. Throws std::bad_alloc.
    Membership(Segment& segment, unsigned end);

    // The creator's, for Segment::create()'s `fill`: the fresh segment is private. Throws Error.
    static void found(Segment& fresh, unsigned slot);
    // This process is in that slot by found().
    void adopt(unsigned slot) noexcept;

    // Joining: claim_any() or claim(), what the concept has to prepare, inherit(), what may still
    // fail, enter(). The segment's life-cycle lock is held from Segment::attach() to enter().
    //
    // Takes the lock of the first slot that can be had. Throws Busy, with how many live.
    unsigned claim_any();
    // Takes the lock of that slot, with patience for a process that is just leaving it or reaping
    // it. False: its participant lives, or its janitor does not get on.
    [[nodiscard]] bool claim(unsigned slot) noexcept;
    // Signs the claimed slot, and takes over what a dead predecessor held there. True: there was
    // one.
    template <typename TakeOver>
    bool inherit(TakeOver&& take_over) {
        participants().sign(claimed_);
        if (!participants().is_announced(claimed_)) return false;
        take_over(claimed_);
        participants().retire(claimed_);
        return true;
    }
    // From here on this process is a participant.
    void enter() noexcept;
    // Instead of enter(): the slot is free again.
    void renounce() noexcept;

    // Leaves: the slot is free, and the segment's name goes if this was the last participant and
    // `may_go` agrees. Also without a slot: the life-cycle lock may have kept the last participant
    // from removing the name. What the participant held must have been given back. Repeatable.
    void leave(const std::function<bool()>& may_go = {}) noexcept;

    [[nodiscard]] bool is_member() const noexcept { return is_member_; }
    [[nodiscard]] unsigned slot() const noexcept { return claimed_; }

    // Reaps the participant of that slot if it is dead. False: it is not, or another process is
    // its janitor.
    template <typename TakeOver>
    bool reap(unsigned slot, TakeOver&& take_over) noexcept {
        if (is_own(slot) || participants().life(slot) != Life::Dead) return false;
        return reap_dead(slot, std::forward<TakeOver>(take_over));
    }
    // Reaps all that are dead; how many. Those that another janitor is at work on are left to it.
    // No slot from `reach` on has ever had a participant.
    template <typename TakeOver>
    unsigned reap_all(TakeOver&& take_over, unsigned reach = kAll) noexcept {
        unsigned reaped = 0;
        for (unsigned slot = 0; slot < std::min(end_, reach); ++slot) {
            if (reap(slot, take_over)) ++reaped;
        }
        return reaped;
    }
    // The same, and waits for other janitors: what their dead held is free in a moment, and going
    // on without it would evict what the living hold, or report no room. A janitor that is stopped
    // is waited for once, and not again.
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
    // The lock of a slot whose participant is dead. False: another process has it.
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
            if (reap(slot, take_over)) return;  // it died as well
        }
        given_up_[slot] = join;
    }
    static void note_awaited() noexcept;
    [[nodiscard]] static std::int64_t patience_ends() noexcept;
    // After a pause, unless that moment has come.
    [[nodiscard]] static bool is_before(std::int64_t end) noexcept;

    Segment* segment_ = nullptr;
    unsigned end_ = 0;
    unsigned claimed_ = 0;
    bool is_member_ = false;
    std::vector<std::uint64_t> given_up_;  // by slot: the join whose janitor was waited for in vain
};

}  // namespace penstock::detail

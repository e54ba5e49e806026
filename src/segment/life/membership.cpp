// Membership: the steps that do not call the concept.
#include "segment/life/membership.hpp"

#include "os/clock.hpp"
#include "os/crash_point.hpp"
#include "penstock/error.hpp"
#include "segment/text.hpp"

namespace penstock::detail {

Membership::Membership(Segment& segment, unsigned end)
    : segment_(&segment), end_(end), given_up_(end) {}

void Membership::found(Segment& fresh, unsigned slot) {
    if (!fresh.participants().try_claim(slot)) {
        throw Error(ErrorCode::System, "could not lock a byte of a fresh segment");
    }
    fresh.participants().sign(slot);
    fresh.participants().announce(slot);
}

void Membership::adopt(unsigned slot) noexcept {
    claimed_ = slot;
    is_member_ = true;
}

unsigned Membership::claim_any() {
    const std::optional<unsigned> slot = participants().claim_free(end_);
    if (!slot) {
        throw Error(ErrorCode::Busy, quoted(segment_->name()) +
                                         " has no free place: " + participants().describe(end_) +
                                         "; create it with more `participants`");
    }
    claimed_ = *slot;
    PENSTOCK_CRASH_POINT("membership.join.locked");
    return claimed_;
}

bool Membership::claim(unsigned slot) noexcept {
    const std::int64_t end = patience_ends();
    while (!participants().claim(slot)) {
        if (!is_before(end)) return false;
    }
    claimed_ = slot;
    PENSTOCK_CRASH_POINT("membership.join.locked");
    return true;
}

void Membership::enter() noexcept {
    participants().announce(claimed_);
    is_member_ = true;
    PENSTOCK_CRASH_POINT("membership.join.active");
    segment_->joined();
}

void Membership::renounce() noexcept {
    participants().release(claimed_);
}

void Membership::leave(const std::function<bool()>& may_go) noexcept {
    if (is_member_) {
        is_member_ = false;
        participants().retire(claimed_);
        PENSTOCK_CRASH_POINT("membership.leave.retired");
        participants().release(claimed_);
    }
    segment_->joined();
    segment_->leave(may_go);
}

bool Membership::claim_dead(unsigned slot) noexcept {
    if (!participants().claim(slot)) return false;
    PENSTOCK_CRASH_POINT("membership.reap.locked");
    return true;
}

void Membership::let_go(unsigned slot) noexcept {
    participants().release(slot);
}

void Membership::note_awaited() noexcept {
    PENSTOCK_CRASH_POINT("membership.janitor.awaited");
}

std::int64_t Membership::patience_ends() noexcept {
    return os::monotonic_ns() + kJanitorPatience;
}

bool Membership::is_before(std::int64_t end) noexcept {
    if (os::monotonic_ns() >= end) return false;
    os::pause_between_tries();
    return true;
}

}  // namespace penstock::detail

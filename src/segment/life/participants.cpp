// Participants: joining, leaving, and asking the kernel which of them are dead.
#include "segment/life/participants.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <string_view>

#include "os/clock.hpp"
#include "os/crash_point.hpp"
#include "os/process.hpp"
#include "os/process_end.hpp"
#include "segment/text.hpp"
#include "segment/waiting/watcher.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

using layout::ParticipantSlot;

void store_text(ParticipantSlot& slot, const std::string& text) {
    std::array<char, ParticipantSlot::kTextWords * 8> bytes{};
    const std::string_view shortened = cut(text, bytes.size() - 1);
    std::memcpy(bytes.data(), shortened.data(), shortened.size());
    for (std::size_t i = 0; i < ParticipantSlot::kTextWords; ++i) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data() + i * 8, 8);
        store_relaxed(slot.text[i], word);
    }
}

std::string load_text(const ParticipantSlot& slot) {
    std::array<char, ParticipantSlot::kTextWords * 8 + 1> bytes{};
    for (std::size_t i = 0; i < ParticipantSlot::kTextWords; ++i) {
        const std::uint64_t word = load_relaxed(slot.text[i]);
        std::memcpy(bytes.data() + i * 8, &word, 8);
    }
    return bytes.data();
}

// Until a process is reaped by its parent the kernel tells others how it ended; afterwards only a
// process that watched it can tell.
os::ProcessEnd end_of(std::uint32_t pid, std::uint64_t pid_namespace, std::uint64_t start_time,
                      std::chrono::milliseconds patience) noexcept {
    const os::Calls calls = Watcher::is_wanted() ? os::Calls::All : os::Calls::Files;
    const os::ProcessEnd end = os::end_of(pid, pid_namespace, start_time, patience, calls);
    if (end.is_known() || end.why != os::ProcessEnd::Why::Gone) return end;
    return Watcher::end_of(pid, start_time);
}

}  // namespace

constinit const std::atomic<std::uint64_t> OwnMark::kNobody{0};

std::uint64_t Participants::lock_byte(unsigned slot) const noexcept {
    return slots_offset_ + std::uint64_t{slot} * sizeof(ParticipantSlot);
}

bool Participants::try_claim(unsigned slot) noexcept {
    return file_->try_lock(lock_byte(slot));
}

bool Participants::claim(unsigned slot) noexcept {
    if (life(slot) == Life::Alive) return false;
    note_dead(slot);
    PENSTOCK_CRASH_POINT("participants.claim.looked");
    if (!try_claim(slot)) return false;
    // Another participant may have joined here, and died, since the look; with the lock held none
    // can.
    if (is_announced(slot) && found_dead(slot) < joins(slot)) note_dead(slot);
    return true;
}

void Participants::note_dead(unsigned slot) const noexcept {
    const std::uint64_t dead = joins(slot);
    if (life(slot) != Life::Dead || joins(slot) != dead) return;
    if (is_copy_) return note_in_file(slot, dead);
    std::atomic<std::uint64_t>& found = slots_[slot].found_dead;
    // The number only grows, except in damaged memory: then the loop gives up.
    constexpr unsigned kTries = 64;
    std::uint64_t seen = load_relaxed(found);
    if (seen < dead) write_death(slot, look_at_process(slot, dead, kEndPatience));
    for (unsigned attempt = 0; attempt < kTries && seen < dead; ++attempt) {
        // pairs with: has_janitor(), by way of the lock, which it finds taken; is_found_dead()
        if (!cas_release(found, seen, dead)) continue;
        fetch_add_relaxed(slots_[slot].deaths, 1);
        break;
    }
    PENSTOCK_CRASH_POINT("participants.claim.found_dead");
}

// Only removal notes a death without a mapping, under the exclusive life-cycle lock, so no other
// process writes here. A failed write is not reported.
void Participants::note_in_file(unsigned slot, std::uint64_t dead) const noexcept {
    const std::uint64_t at = lock_byte(slot) + offsetof(ParticipantSlot, found_dead);
    std::uint64_t seen = 0;
    if (!file_->read(at, &seen, sizeof seen) || seen >= dead) return;
    static_cast<void>(file_->write(at, &dead, sizeof dead));
}

DeathNote Participants::death(unsigned slot, std::uint64_t join) const noexcept {
    const DeathNote noted = last_death(slot);
    const bool is_noted = noted.is_of(join);
    if (is_noted && noted.end.is_known()) return noted;
    const DeathNote seen = look_at_process(slot, join, std::chrono::milliseconds(0));
    if (is_noted && seen.pid == 0) return noted;  // another participant has the slot
    if (!is_copy_ && seen.end.is_known()) write_death(slot, seen);
    return seen;
}

DeathNote Participants::last_death(unsigned slot) const noexcept {
    // pairs with: write_death()
    std::uint64_t word = load_acquire(slots_[slot].last_death);
    const std::uint64_t at = lock_byte(slot) + offsetof(ParticipantSlot, last_death);
    if (is_copy_ && !file_->read(at, &word, sizeof word)) {
        word = load_relaxed(slots_[slot].last_death);  // as of the copy
    }
    return decode_death(word);
}

// The end of the process that signed the slot; only the join number if another participant may have
// signed it by now.
DeathNote Participants::look_at_process(unsigned slot, std::uint64_t join,
                                        std::chrono::milliseconds patience) const noexcept {
    DeathNote death;
    death.join = static_cast<std::uint32_t>(join);
    const std::uint64_t word = join << 1U | ParticipantSlot::kActive;
    const ParticipantSlot& dead = slots_[slot];
    // pairs with: announce(), after sign()
    if (load_acquire(dead.word) != word) return death;
    const std::uint64_t pid = load_relaxed(dead.pid);
    const std::uint64_t pid_namespace = load_relaxed(dead.pid_namespace);
    const std::uint64_t start_time = load_relaxed(dead.start_time);
    // pairs with: the fence in sign()
    std::atomic_thread_fence(std::memory_order_acquire);
    if (word_of(slot) != word) return death;
    death.pid = static_cast<std::uint32_t>(pid);
    if (death.pid == pid) death.end = end_of(death.pid, pid_namespace, start_time, patience);
    return death;
}

// The death that is noted already stays, unless this one is later, or tells more. The loop is
// bounded for damaged memory.
void Participants::write_death(unsigned slot, const DeathNote& death) const noexcept {
    constexpr unsigned kTries = 64;
    std::atomic<std::uint64_t>& last = slots_[slot].last_death;
    std::uint64_t seen = load_relaxed(last);
    for (unsigned attempt = 0; attempt < kTries; ++attempt) {
        if (!decode_death(seen).is_outdone_by(death)) return;
        // pairs with: last_death(), also by way of `found_dead`, which is stored after this
        if (cas_release(last, seen, encode_death(death))) break;
    }
    PENSTOCK_CRASH_POINT("participants.claim.last_death");
}

bool Participants::has_janitor(unsigned slot) const noexcept {
    // pairs with: retire(), announce(): in a slot that reads as free, what was held is free too
    const std::uint64_t word = word_of(slot);
    return (word & ParticipantSlot::kActive) != 0 && word >> 1U == found_dead(slot);
}

// Every slot has a living participant. A slot locked but not announced is being joined, left or
// reaped.
bool Participants::is_full(unsigned places) const noexcept {
    for (unsigned slot = 0; slot < places; ++slot) {
        if (!is_announced(slot) || has_janitor(slot)) return false;
    }
    return true;
}

std::optional<unsigned> Participants::claim_free(unsigned places) noexcept {
    const std::int64_t end = os::monotonic_ns() + kJanitorPatience;
    for (;;) {
        for (unsigned slot = 0; slot < places; ++slot) {
            if (claim(slot)) return slot;
        }
        if (is_full(places) || os::monotonic_ns() >= end) return std::nullopt;
        os::pause_between_tries();
    }
}

std::string Participants::describe(unsigned places) const {
    unsigned alive = 0;
    unsigned cleared = 0;
    unsigned dead = 0;
    unsigned changing = 0;
    for (unsigned slot = 0; slot < places; ++slot) {
        const Life is = life(slot);
        unsigned& count = is == Life::Free    ? changing
                          : is == Life::Dead  ? dead
                          : has_janitor(slot) ? cleared
                                              : alive;
        ++count;
    }
    if (alive == places) return "all " + std::to_string(places) + " participants are alive";
    std::string text = "of " + std::to_string(places) + " participants " + std::to_string(alive) +
                       (alive == 1 ? " is alive" : " are alive");
    const auto add = [&](unsigned count, const char* what) {
        if (count > 0) text += ", " + std::to_string(count) + what;
    };
    add(cleared, " dead, with a process at work on what they held that does not get on");
    add(dead, " dead");
    add(changing, " joining or leaving");
    return text;
}

void Participants::release(unsigned slot) noexcept {
    if (claimed_ == slot) {
        claimed_ = kNone;
        own_ = {};
    }
    file_->unlock(lock_byte(slot));
    PENSTOCK_CRASH_POINT("participants.release.unlocked");
}

void Participants::sign(unsigned slot) {
    const os::ProcessIdentity self = os::identify_self();
    ParticipantSlot& own = slots_[slot];
    // A look that sees what is stored below also sees that the last participant's slot was retired.
    // pairs with: the fence in look_at_process()
    std::atomic_thread_fence(std::memory_order_release);
    store_relaxed(own.pid, self.pid);
    store_relaxed(own.pid_namespace, self.pid_namespace);
    store_relaxed(own.start_time, self.start_time);
    store_relaxed(own.attached_at, os::wall_ns());
    store_text(own, self.name);
    PENSTOCK_CRASH_POINT("participants.sign.filled");
}

void Participants::announce(unsigned slot) noexcept {
    ParticipantSlot& own = slots_[slot];
    claimed_ = slot;
    const std::uint64_t joins = (load_relaxed(own.word) >> 1U) + 1;
    // pairs with: the acquire in is_announced()
    store_release(own.word, joins << 1U | ParticipantSlot::kActive);
    own_ = {own.found_dead, joins};
    PENSTOCK_CRASH_POINT("participants.announce.active");
}

void Participants::retire(unsigned slot) noexcept {
    ParticipantSlot& own = slots_[slot];
    const std::uint64_t word = load_relaxed(own.word);
    // pairs with: the acquire in is_announced()
    store_release(own.word, word & ~ParticipantSlot::kActive);
    PENSTOCK_CRASH_POINT("participants.retire.free");
}

std::uint64_t Participants::deaths(unsigned first, unsigned end) const noexcept {
    std::uint64_t found = 0;
    for (unsigned slot = first; slot < end; ++slot) {
        found += load_relaxed(slots_[slot].deaths);
    }
    return found;
}

WaitCosts Participants::wait_costs(unsigned slot) const noexcept {
    WaitCosts costs = read_costs(slots_[slot].receiving);
    costs += read_costs(slots_[slot].sending);
    return costs;
}

std::uint64_t Participants::found_dead(unsigned slot) const noexcept {
    // pairs with: note_dead()
    return load_acquire(slots_[slot].found_dead);
}

// pairs with: announce(), retire()
std::uint64_t Participants::word_of(unsigned slot) const noexcept {
    std::uint64_t word = load_acquire(slots_[slot].word);
    // If the file was truncated meanwhile, the word in the copy is used.
    if (is_copy_ && !file_->read(lock_byte(slot), &word, sizeof word)) {
        return load_relaxed(slots_[slot].word);
    }
    return word;
}

std::uint64_t Participants::joins(unsigned slot) const noexcept {
    return word_of(slot) >> 1U;
}

bool Participants::is_announced(unsigned slot) const noexcept {
    return (word_of(slot) & ParticipantSlot::kActive) != 0;
}

Life Participants::life(unsigned slot) const noexcept {
    // Every further try means that the slot was joined or left between two looks.
    constexpr unsigned kTries = 64;
    for (unsigned attempt = 0; attempt < kTries; ++attempt) {
        const std::uint64_t before = word_of(slot);
        if ((before & ParticipantSlot::kActive) == 0) return Life::Free;
        if (slot == claimed_ || file_->is_locked_by_other(lock_byte(slot))) return Life::Alive;
        // A lock that is free may belong to a participant that left in good order between the two
        // looks.
        if (word_of(slot) == before) return Life::Dead;
    }
    return Life::Alive;  // the slot's memory is damaged, which is no evidence of death
}

ParticipantText read_text(const ParticipantSlot& slot) {
    return {static_cast<std::uint32_t>(load_relaxed(slot.pid)), load_relaxed(slot.pid_namespace),
            load_relaxed(slot.start_time), load_relaxed(slot.attached_at), load_text(slot)};
}

ParticipantText Participants::text(unsigned slot) const {
    return read_text(slots_[slot]);
}

bool Participants::anybody_alive() const noexcept {
    for (unsigned slot = 0; slot < count_; ++slot) {
        if (life(slot) == Life::Alive) return true;
    }
    return false;
}

}  // namespace penstock::detail

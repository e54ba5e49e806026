#include "queue/dead_letters.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

#include "segment/waiting/elapsed.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

using layout::QueueSlot;
using layout::SlotState;

bool is_dead_letter(const QueueSlot& slot) noexcept {
    return layout::decode_slot(load_acquire(slot.word)).state == SlotState::DeadLetter;
}

bool may_have_any(const QueueView& view) noexcept {
    return load_relaxed(view.state().had_dead_letters) != 0;
}

// Calls use(index, sequence) for every dead letter.
template <typename Use>
void for_each_dead_letter(const QueueView& view, Use&& use) {
    if (!may_have_any(view)) return;
    for (std::uint64_t index = 0; index < view.shape().slots; ++index) {
        const QueueSlot& slot = view.slot(index);
        if (is_dead_letter(slot)) use(index, load_relaxed(slot.sequence));
    }
}

// Calls `read` between two checks that the slot holds a dead letter of that sequence, so that all
// it read is this message's. Sequences are never reused, so a later message in the slot is noticed;
// a letter that was requeued and became one again has the same bytes.
template <typename Read>
bool read_unchanged(const QueueSlot& slot, std::uint64_t sequence, Read&& read) {
    const auto is_there = [&] {
        return is_dead_letter(slot) && load_relaxed(slot.sequence) == sequence;
    };
    if (!is_there()) return false;
    read();
    // pairs with: the moves that free the slot and its block, which come before anything that a
    // later message writes into them
    std::atomic_thread_fence(std::memory_order_acquire);
    return is_there();
}

DeadLetter describe(const QueueSlot& slot, std::uint64_t sequence) noexcept {
    const auto word = layout::decode_slot(load_relaxed(slot.word));
    const auto message = layout::decode_description(load_relaxed(slot.description));
    return {sequence,
            message.producer,
            word.deliveries,
            message.length,
            static_cast<Format>(message.format),
            seconds_since(load_relaxed(slot.accepted_at))};
}

// Calls move(index, sequence) for all dead letters, or the chosen ones; returns how many it moved.
template <typename Move>
std::uint64_t move_dead_letters(const QueueCore& core, Chosen chosen, Move&& move) noexcept {
    std::uint64_t moved = 0;
    const auto count = [&](std::uint64_t index, std::uint64_t sequence) {
        if (move(index, sequence)) ++moved;
    };
    if (chosen.data() == nullptr) {
        for_each_dead_letter(core.view, count);
    } else {
        // A message's slot follows from its ticket.
        for (const std::uint64_t sequence : chosen) count(core.ring.index_of(sequence), sequence);
    }
    return moved;
}

constexpr const char* kRemedy =
    "; requeue or drop them: drop_dead_letters(), or `penstock dead NAME --drop`";

Status not_there(const QueueCore& core, std::uint64_t sequence) {
    return {ErrorCode::NotFound, "message " + std::to_string(sequence) + " is no dead letter of " +
                                     quoted(core.segment->name()) +
                                     ": it was requeued or dropped, or never set aside"};
}

Status contradictory(const QueueCore& core, std::uint64_t sequence) {
    return {ErrorCode::Corrupt, "dead letter " + std::to_string(sequence) + " of " +
                                    quoted(core.segment->name()) +
                                    " contradicts itself: its bytes are not where it says"};
}

}  // namespace

std::vector<DeadLetter> list_dead_letters(const QueueView& view, std::size_t limit) {
    std::vector<DeadLetter> letters;
    for_each_dead_letter(view, [&](std::uint64_t index, std::uint64_t sequence) {
        const QueueSlot& slot = view.slot(index);
        DeadLetter letter;
        if (read_unchanged(slot, sequence, [&] { letter = describe(slot, sequence); })) {
            letters.push_back(letter);
        }
    });
    std::ranges::sort(letters, {}, &DeadLetter::sequence);
    if (letters.size() > limit) letters.resize(limit);
    return letters;
}

Result<std::vector<std::byte>> copy_dead_letter(const QueueCore& core, std::uint64_t sequence) {
    const std::uint64_t index = core.ring.index_of(sequence);
    const QueueSlot& slot = core.view.slot(index);
    std::vector<std::byte> copy;
    bool is_sound = false;
    const bool is_there = read_unchanged(slot, sequence, [&] {
        const QueueCore::Content found = core.content(index);
        is_sound = found.is_sound;
        if (is_sound) copy.assign(found.bytes.begin(), found.bytes.end());
    });
    if (!is_there) return not_there(core, sequence);
    if (!is_sound) return contradictory(core, sequence);
    return copy;
}

std::uint64_t requeue_dead_letters(QueueCore& core, Chosen chosen) noexcept {
    const std::uint64_t moved =
        move_dead_letters(core, chosen, [&core](std::uint64_t index, std::uint64_t sequence) {
            return core.ring.requeue(index, sequence);
        });
    if (moved > 0) core.data.notify();
    return moved;
}

std::uint64_t drop_dead_letters(QueueCore& core, Chosen chosen) noexcept {
    const std::uint64_t dropped =
        move_dead_letters(core, chosen, [&core](std::uint64_t index, std::uint64_t sequence) {
            return core.ring.drop(index, sequence, core.arena);
        });
    if (dropped == 0) return 0;
    store_relaxed(core.last_freed, os::coarse_ns());
    fetch_add_relaxed(core.own().dropped, dropped);
    core.space.notify();
    return dropped;
}

std::string slots_in_use(const QueueView& view) {
    const std::string slots = std::to_string(view.shape().slots);
    const std::uint64_t dead = count_dead_letters(view);
    if (dead == 0) return "all " + slots + " slots are queued or taken";
    const char* const others = dead < view.shape().slots ? ", the others are queued or taken" : "";
    return std::to_string(dead) + " of " + slots + " slots hold dead letters" + others + kRemedy;
}

std::string slots_of_dead_letters(const QueueView& view) {
    return count_dead_letters(view) == 0 ? std::string() : "; " + slots_in_use(view);
}

std::string bytes_in_use(const QueueView& view) {
    std::uint64_t bytes = 0;
    for_each_dead_letter(view, [&](std::uint64_t index, std::uint64_t) {
        const QueueSlot& slot = view.slot(index);
        if (load_relaxed(slot.block) == 0) return;
        bytes += layout::decode_description(load_relaxed(slot.description)).length;
    });
    std::string used = " are in messages queued or taken";
    if (bytes == 0) return used;
    return used + " or set aside, " + std::to_string(bytes) + " of them in dead letters" + kRemedy;
}

std::string dead_letters_left(const QueueView& view) {
    const std::uint64_t dead = count_dead_letters(view);
    if (dead == 0) return {};
    return "; " + std::to_string(dead) +
           (dead == 1 ? " dead letter is left" : " dead letters are left") +
           ": see dead_letters(), or `penstock dead NAME`";
}

}  // namespace penstock::detail

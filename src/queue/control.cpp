// Cold path of a Queue's control block: geometry, checks and statistics.
#include "queue/control.hpp"

#include <algorithm>
#include <bit>

#include "os/pages.hpp"
#include "segment/waiting/elapsed.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

using layout::QueueSlot;
using layout::SlotState;
constexpr std::uint64_t kMaxCellBytes = 64 << 10U;

[[noreturn]] void refuse(const std::string& why) {
    throw Error(ErrorCode::InvalidArgument, "can't create the queue: " + why);
}

}  // namespace

std::uint64_t QueueShape::slots_offset() const noexcept {
    return sizeof(layout::QueueControl) + participants * sizeof(layout::QueueParticipant);
}

std::uint64_t QueueShape::arena_offset() const noexcept {
    return slots_offset() + slots * sizeof(QueueSlot);
}

std::uint64_t QueueShape::application_offset() const noexcept {
    return layout::round_up(arena_offset() + arena.control_bytes(), layout::kApart);
}

std::uint64_t QueueShape::control_bytes() const noexcept {
    return application_offset() + application_bytes;
}

std::uint64_t QueueShape::cells_bytes() const noexcept {
    return layout::round_up(slots * cell_bytes, arena.granule_bytes);  // blocks begin on a page
}

std::uint64_t QueueShape::payload_bytes() const noexcept {
    return cells_bytes() + arena.granules * arena.granule_bytes;
}

std::string application_text(std::uint64_t word) {
    constexpr std::uint64_t kLettersOfRings = 0xFFFFU;  // its geometry comes after them
    if (word == 0) return "plain messages";
    if (word == application_word("trajecto")) return "groups of trajectories";
    if ((word & kLettersOfRings) == application_word("AT")) {
        return "single trajectories (a ZeroCopySHMBuffer)";
    }
    std::string letters;
    for (; word != 0; word >>= 8U) {
        const auto letter = static_cast<char>(word & 0x7FU);
        if (letter <= ' ' || letter == 0x7F) break;  // numbers of the application's own
        letters += letter;
    }
    return letters.empty() ? "an unknown application" : "the application '" + letters + "'";
}

SegmentPlan plan_of(const QueueShape& shape) {
    SegmentPlan plan;
    plan.kind = Kind::Queue;
    plan.geometry[layout::kQueueSlots] = shape.slots;
    plan.geometry[layout::kCellBytes] = shape.cell_bytes;
    plan.geometry[layout::kQueueGranuleBytes] = shape.arena.granule_bytes;
    plan.geometry[layout::kQueueGranules] = shape.arena.granules;
    plan.geometry[layout::kQueueParticipants] = shape.participants;
    plan.geometry[layout::kQueueRules] = layout::encode_rules(
        {shape.max_deliveries, shape.ends_with == EndsWith::LastProducer, shape.is_reserved});
    plan.geometry[layout::kApplication] = shape.application;
    plan.geometry[layout::kApplicationBytes] = shape.application_bytes;
    plan.slots = shape.participants;
    plan.control_bytes = shape.control_bytes();
    plan.payload_bytes = shape.payload_bytes();
    plan.payload_reserved = shape.is_reserved ? shape.payload_bytes() : shape.cells_bytes();
    return plan;
}

QueueShape queue_shape_of(const QueueOptions& options) {
    if (options.slots < 1 || options.slots > layout::kMaxQueueSlots) {
        refuse("slots must be 1 to " + std::to_string(layout::kMaxQueueSlots) + ", not " +
               std::to_string(options.slots));
    }
    if (options.inline_bytes > kMaxCellBytes) {
        refuse("inline_bytes must be at most " + std::to_string(kMaxCellBytes) + ", not " +
               std::to_string(options.inline_bytes));
    }
    if (options.capacity > layout::kMaxQueueBytes) {
        refuse("capacity must be at most 256 GiB, not " + std::to_string(options.capacity));
    }
    if (options.participants < 1 || options.participants > layout::kMaxQueueParticipants) {
        refuse("participants must be 1 to " + std::to_string(layout::kMaxQueueParticipants) +
               ", not " + std::to_string(options.participants));
    }
    if (options.max_deliveries >= layout::kMaxDeliveries) {
        refuse("max_deliveries must be below " + std::to_string(layout::kMaxDeliveries) + ", not " +
               std::to_string(options.max_deliveries));
    }
    if (options.application_bytes > layout::kMaxApplicationBytes) {
        refuse("application_bytes must be at most 1 GiB, not " +
               std::to_string(options.application_bytes));
    }
    QueueShape shape;
    shape.slots = std::bit_ceil(std::uint64_t{options.slots});
    shape.cell_bytes = layout::round_up(std::max(options.inline_bytes, 1U), 64);
    shape.participants = options.participants;
    shape.max_deliveries = options.max_deliveries;
    shape.ends_with = options.ends_with;
    // Only reserved memory can be faulted in, or locked.
    const MemoryOptions& memory = options.memory;
    shape.is_reserved = memory.populate || memory.lock_memory || memory.huge_pages;
    shape.application = options.application;
    shape.application_bytes = layout::round_up(options.application_bytes, layout::kApart);
    const std::uint64_t granule = std::max(layout::kMinQueueGranule, os::page_size());
    shape.arena.granule_bytes = granule;
    shape.arena.granules =
        static_cast<std::uint32_t>(layout::round_up(options.capacity, granule) / granule);
    return shape;
}

QueueShape queue_shape_of(const layout::SegmentHeader& header) {
    const auto& geometry = header.geometry;
    const std::uint64_t granules = geometry[layout::kQueueGranules];
    const std::uint64_t granule = geometry[layout::kQueueGranuleBytes];
    const layout::QueueRules rules = layout::decode_rules(geometry[layout::kQueueRules]);
    QueueShape shape;
    const bool is_plausible =
        std::has_single_bit(geometry[layout::kQueueSlots]) &&
        geometry[layout::kQueueSlots] <= layout::kMaxQueueSlots &&
        geometry[layout::kCellBytes] >= 64 && geometry[layout::kCellBytes] % 64 == 0 &&
        geometry[layout::kCellBytes] <= kMaxCellBytes && std::has_single_bit(granule) &&
        granule >= layout::kMinQueueGranule && granule <= layout::kMaxQueueGranule &&
        granules <= layout::kMaxQueueBytes / granule && geometry[layout::kQueueParticipants] >= 1 &&
        geometry[layout::kQueueParticipants] <= layout::kMaxQueueParticipants &&
        header.slot_count == geometry[layout::kQueueParticipants] &&
        rules.max_deliveries < layout::kMaxDeliveries &&
        layout::encode_rules(rules) == geometry[layout::kQueueRules] &&
        geometry[layout::kApplicationBytes] % layout::kApart == 0 &&
        geometry[layout::kApplicationBytes] <= layout::kMaxApplicationBytes;
    if (is_plausible) {
        shape.slots = geometry[layout::kQueueSlots];
        shape.cell_bytes = geometry[layout::kCellBytes];
        shape.participants = static_cast<unsigned>(geometry[layout::kQueueParticipants]);
        shape.max_deliveries = static_cast<unsigned>(rules.max_deliveries);
        shape.ends_with =
            rules.ends_with_last_producer ? EndsWith::LastProducer : EndsWith::Creator;
        shape.is_reserved = rules.is_reserved;
        shape.application = geometry[layout::kApplication];
        shape.application_bytes = geometry[layout::kApplicationBytes];
        shape.arena.granule_bytes = granule;
        shape.arena.granules = static_cast<std::uint32_t>(granules);
    }
    if (!is_plausible || header.control_size != shape.control_bytes() ||
        header.payload_size != shape.payload_bytes()) {
        throw Error(ErrorCode::Corrupt,
                    "the queue is damaged: its geometry does not fit its segment");
    }
    return shape;
}

std::uint64_t count_dead_letters(const QueueView& view) noexcept {
    if (load_relaxed(view.state().had_dead_letters) == 0) return 0;
    std::uint64_t found = 0;
    for (std::uint64_t index = 0; index < view.shape().slots; ++index) {
        const std::uint64_t word = load_relaxed(view.slot(index).word);
        if (layout::decode_slot(word).state == SlotState::DeadLetter) ++found;
    }
    return found;
}

QueueStats read_queue_stats(const QueueView& view) {
    QueueStats stats;
    const QueueShape& shape = view.shape();
    for (unsigned slot = 0; slot < shape.participants; ++slot) {
        const layout::QueueParticipant& participant = view.participant(slot);
        stats.accepted += load_relaxed(participant.accepted);
        stats.accepted_bytes += load_relaxed(participant.accepted_bytes);
        stats.taken += load_relaxed(participant.taken);
        stats.acknowledged +=
            load_relaxed(participant.acknowledged) + load_relaxed(participant.got);
        stats.nacked += load_relaxed(participant.nacked);
        stats.dropped += load_relaxed(participant.dropped);
        stats.waits += load_relaxed(participant.waits);
        stats.sleeps += load_relaxed(participant.sleeps);
        if (load_acquire(participant.request) == 0) continue;
        ++stats.requests;
        stats.requested += load_relaxed(participant.requested);
    }
    std::int64_t oldest = 0;
    for (std::uint64_t index = 0; index < shape.slots; ++index) {
        const QueueSlot& slot = view.slot(index);
        const SlotState state = layout::decode_slot(load_acquire(slot.word)).state;
        if (state == SlotState::Taken || state == SlotState::Done) ++stats.in_flight;
        if (state == SlotState::DeadLetter) ++stats.dead_letters;
        if (state != SlotState::Ready && state != SlotState::Returned) continue;
        ++stats.queued;
        stats.queued_bytes += layout::decode_description(load_relaxed(slot.description)).length;
        const std::int64_t at = load_relaxed(slot.accepted_at);
        if (oldest == 0 || at < oldest) oldest = at;
    }
    if (stats.queued > 0) stats.oldest = seconds_since(oldest);
    stats.slots = shape.slots;
    stats.capacity = shape.arena.granules * shape.arena.granule_bytes;
    stats.closed = load_acquire(view.state().closed) != 0;
    return stats;
}

KeptData kept_messages(const QueueView& view) noexcept {
    KeptData kept;
    for (std::uint64_t index = 0; index < view.shape().slots; ++index) {
        const QueueSlot& slot = view.slot(index);
        const SlotState state = layout::decode_slot(load_acquire(slot.word)).state;
        const bool holds_message = state == SlotState::Ready || state == SlotState::Taken ||
                                   state == SlotState::Returned || state == SlotState::DeadLetter;
        if (!holds_message) continue;
        ++kept.messages;
        kept.bytes += layout::decode_description(load_relaxed(slot.description)).length;
    }
    return kept;
}

}  // namespace penstock::detail

// Cold path: geometry checks, states of readers, statistics, and the reaping of a reader.
#include "broadcast/control.hpp"

#include <algorithm>
#include <bit>
#include <cstdio>

#include "broadcast/holders.hpp"
#include "os/crash_point.hpp"
#include "os/pages.hpp"
#include "os/process.hpp"
#include "segment/text.hpp"
#include "segment/waiting/elapsed.hpp"
#include "segment/words/atomics.hpp"

namespace penstock {
namespace detail {
namespace {

using layout::ReaderLine;

[[noreturn]] void refuse(const std::string& why) {
    throw Error(ErrorCode::InvalidArgument, "can't create the broadcast: " + why);
}

}  // namespace

std::uint64_t BroadcastShape::holders_offset() const noexcept {
    return sizeof(layout::BroadcastControl) + readers * sizeof(ReaderLine);
}

std::uint64_t BroadcastShape::control_bytes() const noexcept {
    return layout::round_up(holders_offset() + std::uint64_t{granules} * holder_words() * 8,
                            layout::kApart);
}

SegmentPlan plan_of(const BroadcastShape& shape) {
    SegmentPlan plan;
    plan.kind = Kind::Broadcast;
    plan.may_be_anonymous = true;
    plan.geometry[layout::kReaders] = shape.readers;
    plan.geometry[layout::kCapacity] = shape.capacity;
    plan.geometry[layout::kGranuleBytes] = layout::kBroadcastGranule;
    plan.geometry[layout::kGranules] = shape.granules;
    plan.geometry[layout::kOnReaderDeath] = static_cast<std::uint64_t>(shape.on_reader_death);
    plan.slots = shape.readers + 1;
    plan.control_bytes = shape.control_bytes();
    plan.payload_bytes = shape.block_offset(shape.granules);
    plan.payload_reserved = shape.capacity;
    plan.has_views = false;  // the writer reads nothing
    return plan;
}

BroadcastShape broadcast_shape_of(const BroadcastOptions& options) {
    if (options.readers < 1 || options.readers > layout::kMaxReaders) {
        refuse("readers must be 1 to " + std::to_string(layout::kMaxReaders) + ", not " +
               std::to_string(options.readers));
    }
    if (options.capacity < 1 || options.capacity > layout::kMaxCapacity) {
        refuse("capacity must be 1 byte to 256 GiB, not " + std::to_string(options.capacity));
    }
    if (options.large > layout::kMaxCapacity) {
        refuse("large must be at most 256 GiB, not " + std::to_string(options.large));
    }
    BroadcastShape shape;
    shape.readers = options.readers;
    // Whole pages: the blocks lie behind the ring, and their memory is reserved and freed.
    shape.capacity =
        std::bit_ceil(std::max({options.capacity, layout::kMinCapacity, os::page_size()}));
    shape.granules = static_cast<std::uint32_t>(
        layout::round_up(options.large, layout::kBroadcastGranule) / layout::kBroadcastGranule);
    shape.on_reader_death = options.on_reader_death;
    return shape;
}

BroadcastShape broadcast_shape_of(const layout::SegmentHeader& header) {
    const auto& geometry = header.geometry;
    BroadcastShape shape;
    const std::uint64_t readers = geometry[layout::kReaders];
    const std::uint64_t capacity = geometry[layout::kCapacity];
    const std::uint64_t granules = geometry[layout::kGranules];
    const bool is_plausible = readers >= 1 && readers <= layout::kMaxReaders &&
                              header.slot_count == readers + 1 && std::has_single_bit(capacity) &&
                              capacity >= layout::kMinCapacity &&
                              capacity <= layout::kMaxCapacity &&
                              geometry[layout::kGranuleBytes] == layout::kBroadcastGranule &&
                              granules <= layout::kMaxCapacity / layout::kBroadcastGranule &&
                              geometry[layout::kOnReaderDeath] <= 1;
    if (is_plausible) {
        shape.readers = static_cast<unsigned>(readers);
        shape.capacity = capacity;
        shape.granules = static_cast<std::uint32_t>(granules);
        shape.on_reader_death = static_cast<OnReaderDeath>(geometry[layout::kOnReaderDeath]);
    }
    if (!is_plausible || header.control_size != shape.control_bytes() ||
        header.payload_size != shape.block_offset(shape.granules)) {
        throw Error(ErrorCode::Corrupt,
                    "the broadcast is damaged: its geometry does not fit its segment");
    }
    return shape;
}

BroadcastReaderState describe_reader(const BroadcastView& view, const Participants& participants,
                                     unsigned rank) {
    const ReaderLine& line = view.reader(rank);
    const unsigned slot = layout::slot_of_rank(rank);
    BroadcastReaderState state;
    state.rank = rank;
    // Before the gate: a reader that is replaced meanwhile shows its gate with its own death, or
    // the successor's. A lock that was taken to reap the dead, or to replace them, is no reader's.
    const bool is_announced = participants.is_announced(slot);
    state.alive =
        is_announced && participants.life(slot) == Life::Alive && !participants.has_janitor(slot);
    // Loads the reader's numbers before the writer's, so that no lag is negative.
    const std::uint64_t gate = load_acquire(line.gate);
    const std::uint64_t position = load_acquire(line.position);
    const std::uint64_t released = load_relaxed(line.messages);
    const std::uint64_t published = load_acquire(view.writer().position);
    const std::uint64_t sent = load_relaxed(view.counts().messages);
    state.life = gate == ReaderLine::kActive   ? BroadcastReaderState::Life::Active
                 : gate == ReaderLine::kVacant ? BroadcastReaderState::Life::Vacant
                                               : BroadcastReaderState::Life::Expected;
    state.messages = released - std::min(released, load_relaxed(line.start));
    if (gate != ReaderLine::kVacant) {
        state.lag_bytes = published - std::min(published, position);
        state.lag_messages = sent - std::min(sent, released);
    }
    if (is_announced) {
        const ParticipantText who = participants.text(slot);
        state.pid = who.pid;
        state.process = who.process;
        state.stopped = state.alive && os::is_stopped(who.pid, who.pid_namespace, who.start_time);
        if (!state.alive) participants.death(slot, participants.joins(slot)).describe(state);
    }
    return state;
}

std::vector<BroadcastReaderState> find_blockers(const BroadcastView& view,
                                                const Participants& participants) {
    std::vector<BroadcastReaderState> blockers;
    const std::int64_t since = load_relaxed(view.state().blocked_since);
    if (since == 0) return blockers;
    const std::uint64_t needed = load_relaxed(view.state().needed);
    const double seconds = seconds_since(since);
    for (unsigned rank = 0; rank < view.shape().readers; ++rank) {
        const ReaderLine& line = view.reader(rank);
        // `needed` is 0 while the writer waits only for blocks that readers keep.
        const bool blocks = needed == 0
                                ? BlockHolders(view).is_held_by(rank, participants)
                                : is_gating(view, rank) && load_acquire(line.position) < needed;
        if (!blocks) continue;
        BroadcastReaderState state = describe_reader(view, participants, rank);
        state.blocking_for = seconds;
        blockers.push_back(std::move(state));
    }
    return blockers;
}

BroadcastStats read_stats(const BroadcastView& view) {
    BroadcastStats stats;
    std::uint64_t slowest = ~std::uint64_t{0};
    for (unsigned rank = 0; rank < view.shape().readers; ++rank) {
        const ReaderLine& line = view.reader(rank);
        if (!is_gating(view, rank)) continue;
        slowest = std::min(slowest, load_acquire(line.position));
    }
    const std::uint64_t position = load_acquire(view.writer().position);
    stats.messages = load_relaxed(view.counts().messages);
    stats.bytes = load_relaxed(view.counts().bytes);
    stats.large_messages = load_relaxed(view.state().large_messages);
    stats.waits = load_relaxed(view.state().waits);
    stats.sleeps = load_relaxed(view.state().sleeps);
    stats.capacity = view.shape().capacity;
    stats.used_bytes = position - std::min(position, slowest);
    return stats;
}

bool is_gating(const BroadcastView& view, unsigned rank) noexcept {
    return load_acquire(view.reader(rank).gate) != ReaderLine::kVacant;
}

void take_over_reader(const BroadcastView& view, unsigned rank) noexcept {
    // A rank whose first reader died before it became active stays expected: it lost nothing.
    std::uint64_t gate = ReaderLine::kActive;
    cas_acq_rel(view.reader(rank).gate, gate, ReaderLine::kVacant);
    PENSTOCK_CRASH_POINT("broadcast.janitor.reaped");
}

}  // namespace detail

std::string BroadcastReaderState::describe() const {
    std::string text = "reader " + std::to_string(rank);
    if (life == Life::Expected && pid == 0) return text + ", which has not attached yet";
    if (life == Life::Vacant && pid == 0) return text + ", vacant";
    text += " (pid " + std::to_string(pid) + ", " + detail::printable(process) + ")";
    if (!alive) {
        text += how_it_died.empty() ? ", dead" : ", dead: " + how_it_died;
    } else if (stopped) {
        text += ", stopped";
    }
    text += ", " + std::to_string(lag_messages) + " messages behind";
    if (blocking_for > 0) {
        char seconds[32];
        std::snprintf(seconds, sizeof seconds, "%.1f", blocking_for);
        text += std::string(", blocking for ") + seconds + " s";
    }
    return text;
}

}  // namespace penstock

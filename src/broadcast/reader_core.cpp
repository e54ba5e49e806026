// Receiving: find the next record, check every number in it, hand it out in place, and give room
// back in ring order, in whatever order messages are released.
#include "broadcast/reader_core.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "os/clock.hpp"
#include "os/crash_point.hpp"
#include "os/fence.hpp"
#include "os/fork.hpp"
#include "os/processor.hpp"
#include "os/spin.hpp"
#include "segment/text.hpp"
#include "segment/words/atomics.hpp"
#include "segment/words/read_once.hpp"

namespace penstock::detail {
namespace {

using layout::ReaderLine;
using layout::RecordHeader;
using layout::RecordKind;

}  // namespace

ReaderCore* ReaderCore::attach(std::unique_ptr<Segment> segment, unsigned rank) {
    Segment& joining = *segment;
    std::unique_ptr<ReaderCore, void (*)(ReaderCore*)> core(
        nullptr, [](ReaderCore* failed) { delete failed; });
    try {
        core.reset(new ReaderCore(segment, rank));
        core->enter(*core->segment_, core->slot_);
        core->claim_rank();
    } catch (...) {
        // The life-cycle lock, held since Segment::attach(), may have kept the last participant
        // from removing the name: remove it here.
        joining.joined();
        joining.leave();
        throw;
    }
    return core.release();
}

ReaderCore::ReaderCore(std::unique_ptr<Segment>& segment, unsigned rank)
    : rank_(rank), slot_(layout::slot_of_rank(rank)) {
    const BroadcastShape shape = broadcast_shape_of(segment->header());
    if (rank >= shape.readers) {
        throw Error(ErrorCode::InvalidArgument, quoted(segment->name()) + " has no rank " +
                                                    std::to_string(rank) + ": it was created for " +
                                                    std::to_string(shape.readers) + " readers");
    }
    held_ = std::make_unique<Held[]>(kMaxHeld);
    membership_ = Membership(*segment, layout::slot_of_rank(shape.readers));
    segment_ = std::move(segment);  // nothing fails from here on
    view_ = BroadcastView(shape, segment_->control());
    ring_ = segment_->payload();
    holders_ = BlockHolders(view_);
    data_ = Signal(view_.data_word(), segment_->has_asymmetric_fence());
    space_ = Signal(view_.space_word(), segment_->has_asymmetric_fence());
    spin_ = segment_->receiving_budget(slot_);
    if (shape.readers + 1 > os::online_processors()) spin_.bound_for_crowd();
    mask_ = shape.capacity - 1;
    line_ = &view_.reader(rank);
}

ReaderCore::~ReaderCore() {
    withdraw();
}

// Takes the lock of the rank's slot, reaps a dead predecessor, and becomes the rank's reader.
void ReaderCore::claim_rank() {
    Participants& participants = segment_->participants();
    if (!membership_.claim(slot_)) {
        const ParticipantText who = participants.text(slot_);
        const std::string it =
            "pid " + std::to_string(who.pid) + " (" + printable(who.process) + ")";
        const auto how = [&] {
            return participants.death(slot_, participants.found_dead(slot_)).predicate();
        };
        throw Error(ErrorCode::Busy,
                    "rank " + std::to_string(rank_) + " of " + quoted(segment_->name()) +
                        (participants.has_janitor(slot_)
                             ? " is not free yet: a process that does not get on is at work on "
                               "what its dead reader held, " +
                                   it + ", which " + how() + "; try again, or choose another rank"
                             : " has a reader already: " + it +
                                   "; choose another rank or end that process"),
                    static_cast<int>(rank_));
    }
    membership_.inherit([this](unsigned) { take_over_reader(view_, rank_); });
    // Bits of predecessors, also one set late by a reader that was found dead and lives.
    holders_.drop_all(rank_);
    refuse_if_nothing_can_come();
    costs_before_ = participants.wait_costs(slot_);
    membership_.enter();
    take_gate();
    PENSTOCK_CRASH_POINT("broadcast.attach.active");
    space_.notify();
}

// Throws Closed or PeerDied if the writer is gone and has left nothing for this rank.
void ReaderCore::refuse_if_nothing_can_come() {
    if (!is_writer_gone()) return;
    const bool is_replacement = load_acquire(line_->gate) == ReaderLine::kVacant;
    const bool is_drained = load_acquire(line_->position) == load_acquire(view_.writer().position);
    if (!is_replacement && !is_drained) return;
    const bool was_closed = load_acquire(view_.state().closed) != 0;
    membership_.renounce();
    const std::string nothing =
        ", and nothing is left for a reader of rank " + std::to_string(rank_);
    if (was_closed) {
        throw Error(ErrorCode::Closed,
                    "the writer of " + quoted(segment_->name()) + " has closed it" + nothing);
    }
    const DeathNote death = writers_death();
    throw Error(ErrorCode::PeerDied, dead_writer() + death.predicate() + nothing + death.doubt(),
                -1, ClosedBy::Peer, death.death());
}

DeathNote ReaderCore::writers_death() const noexcept {
    const Participants& participants = segment_->participants();
    return participants.death(layout::kWriterSlot, participants.joins(layout::kWriterSlot));
}

// "the writer of 'steps' (pid 4711, engine.py) "
std::string ReaderCore::dead_writer() const {
    const ParticipantText who = segment_->participants().text(layout::kWriterSlot);
    return "the writer of " + quoted(segment_->name()) + " (pid " + std::to_string(who.pid) + ", " +
           printable(who.process) + ") ";
}

// Expected -> Active keeps position 0: everything sent so far is still in the ring.
// Vacant -> Active starts at what is published once the writer can see the gate.
void ReaderCore::take_gate() noexcept {
    if (load_acquire(line_->gate) == ReaderLine::kVacant) {
        // pairs with: the acquire of the position in WriterCore::find_slowest()
        store_release(line_->position, load_acquire(view_.writer().position));
        PENSTOCK_CRASH_POINT("broadcast.attach.placed");
        store_seq_cst(line_->gate, ReaderLine::kActive);
        PENSTOCK_CRASH_POINT("broadcast.attach.gated");
        // pairs with: the fence in WriterCore::find_slowest(). What a writer published before it
        // missed the gate is seen below, so this reader starts there or later.
        os::full_fence();
        // The count may be ahead of the position by what was sent between the two loads: the tag
        // of the next record tells by how much. A few tries keep that far below the tag's range.
        for (int tries = 0; tries < 8; ++tries) {
            position_ = load_acquire(view_.writer().position);
            messages_ = load_acquire(view_.counts().messages);
            if (position_ == load_relaxed(view_.writer().position)) break;
        }
        tag_is_known_ = false;
        store_relaxed(line_->messages, messages_);
        store_relaxed(line_->start, messages_);
        store_release(line_->position, position_);
    } else {
        position_ = load_relaxed(line_->position);
        messages_ = load_relaxed(line_->messages);
        store_seq_cst(line_->gate, ReaderLine::kActive);
    }
    known_ = position_;
}

bool ReaderCore::is_writer_gone() const noexcept {
    const Participants& participants = segment_->participants();
    const Life is = participants.life(layout::kWriterSlot);
    if (is == Life::Dead) participants.note_dead(layout::kWriterSlot);
    return is != Life::Alive;
}

inline bool ReaderCore::look_for_more() noexcept {
    // pairs with: the release in WriterCore::publish()
    known_ = load_acquire(view_.writer().position);
    if (known_ == position_) return false;
    // Stays as it is until this reader has published that it received all of it.
    // pairs with: the store in WriterCore::rewind_if_idle(), by the acquire above
    origin_ = load_relaxed(view_.origin());
    return true;
}

// Pauses before a look for more, in a stream of small messages: a reader as fast as its writer
// would take the writer's lines away after every message. Where each look finds one message
// (request and reply) it does not pause, for latency. But a stream whose reader takes every message
// as it comes looks the same, at a tenth of its speed: a long pause now and then, ever more rarely,
// finds out.
inline void ReaderCore::back_off_while_streaming() noexcept {
    constexpr std::int64_t kUnit = 40;  // ns, the shortest pause
    constexpr std::int64_t kMax = 64 * kUnit;
    constexpr std::uint64_t kWorth = 8 * kUnit;  // of pause for every message gained
    constexpr std::uint64_t kGoodBatch = 4096;   // bytes worth one transfer of the writer's lines
    const std::uint64_t batch = messages_ - batch_messages_;
    if (batch <= 1) {
        streaming_pause_ = is_time_to_probe() ? kMax : 0;
    } else if (batch * kWorth < static_cast<std::uint64_t>(streaming_pause_)) {
        streaming_pause_ /= 2;
    } else if (known_ - batch_position_ < kGoodBatch) {
        streaming_pause_ = std::min(streaming_pause_ * 2 + kUnit, kMax);
        probe_after_ = kFirstProbe;
    }
    batch_messages_ = messages_;
    batch_position_ = position_;
    os::spin_for(streaming_pause_);
    look_for_more();
}

inline bool ReaderCore::is_time_to_probe() noexcept {
    if (++singles_ < probe_after_) return false;
    singles_ = 0;
    probe_after_ = std::min(probe_after_ * 2, kLastProbe);
    return true;
}

Status ReaderCore::wait_for_more(const Wait& wait) noexcept {
    store_relaxed(line_->waits, ++waits_);
    Peers writer =
        segment_->participants().peers(layout::kWriterSlot, layout::kWriterSlot + 1, closing_);
    writer.slices = Slices::Long;  // the writer notifies after each message, and at its end
    const WaitEnd end = wait_until(
        data_, spin_, wait, sleeps_,
        [this, next = ring_ + offset()] {
            if (look_for_more()) return true;
            if (takes_newest_) return false;
            // A small record is fetched together with the position and not after it.
            __builtin_prefetch(next);
            __builtin_prefetch(next + 64);
            return false;
        },
        [this] {
            return closing_.is_cancelled() || !segment_->check_place() ||
                   load_acquire(view_.state().closed) != 0 || is_writer_gone();
        },
        writer);
    if (segment_->is_foreign()) return segment_->why_foreign();
    store_relaxed(line_->sleeps, sleeps_);
    if (end == WaitEnd::Ready) return Status::ok();
    // The writer may have published a message just before its end.
    if (end == WaitEnd::PeerGone && !closing_.is_cancelled() && look_for_more()) {
        return Status::ok();
    }
    return end_of_stream(end);
}

Status ReaderCore::end_of_stream(WaitEnd end) noexcept {
    if (closing_.is_cancelled() || end == WaitEnd::Cancelled) {
        return {ErrorCode::Cancelled, "receiving was cancelled; nothing was consumed"};
    }
    if (end == WaitEnd::Timeout) {
        return {ErrorCode::Timeout, "no message came from " + quoted(segment_->name())};
    }
    // pairs with: the release in WriterCore::end_stream(). wait_for_more() has looked once more
    // since it saw the end.
    if (load_acquire(view_.state().closed) != 0) {
        return {ErrorCode::Closed,
                "the writer closed " + quoted(segment_->name()) + " and everything was received"};
    }
    const DeathNote death = writers_death();
    return {
        ErrorCode::PeerDied,
        dead_writer() + death.predicate() + "; everything it had sent was received" + death.doubt(),
        -1, death.death()};
}

Status ReaderCore::corrupt(const char* why) noexcept {
    return {ErrorCode::Corrupt, "the ring of " + quoted(segment_->name()) + " is damaged: " + why +
                                    " at position " + std::to_string(position_)};
}

inline bool ReaderCore::catch_up(const Wait& wait, Status& failure) noexcept {
    back_off_while_streaming();
    if (position_ != known_) return true;
    failure = wait_for_more(wait);
    return failure.is_ok();
}

inline bool ReaderCore::find(const Wait& wait, Found& found, Status& failure) noexcept {
    if (segment_->is_foreign()) [[unlikely]] {
        failure = segment_->why_foreign();
        return false;
    }
    return search(wait, found, failure);
}

inline bool ReaderCore::search(const Wait& wait, Found& found, Status& failure) noexcept {
    constexpr unsigned kMaxPaddings = 64;  // at most one precedes a record; more is damage
    unsigned paddings = 0;
    for (;;) {
        if (position_ == known_ && !catch_up(wait, failure)) return false;
        if (const char* wrong = parse(found)) [[unlikely]] {
            failure = corrupt(wrong);
            return false;
        }
        if (found.data != nullptr) return true;
        // Padding: the record is at the beginning of the ring. A damaged ring could hold padding
        // without end.
        if (++paddings > kMaxPaddings) [[unlikely]] {
            failure = corrupt("padding without end");
            return false;
        }
        position_ = found.end;
    }
}

// Checks every number of the record at the cursor. No data: it is padding.
inline const char* ReaderCore::parse(Found& found) noexcept {
    const std::uint64_t published = known_ - position_;
    const std::uint64_t at = offset();
    if (published > mask_ + 1 || at % 8 != 0) return "impossible positions";
    const RecordHeader header = layout::decode_record(load_word(ring_ + at));
    const std::uint64_t bytes = layout::record_bytes(header.length, header.skip);
    if (bytes > published || bytes > mask_ + 1 - at) return "a record too long";
    found.end = position_ + bytes;
    found.granule = kNoBlock;
    found.data = nullptr;
    if (header.kind == RecordKind::Padding) return nullptr;
    if (header.kind == RecordKind::Invalid) return "no record";
    if (!tag_is_known_) [[unlikely]] {
        // take_gate() may have loaded a count that was ahead of the position: believe the record.
        messages_ -= (messages_ - header.tag) & layout::kTagMask;
        store_relaxed(line_->start, messages_);
        tag_is_known_ = true;
    }
    if (header.tag != (messages_ & layout::kTagMask)) return "a record out of order";
    found.data = ring_ + at + layout::kRecordHeaderBytes + header.skip * 8U;
    found.size = header.length;
    found.format = static_cast<Format>(header.format);
    return header.kind == RecordKind::Block ? parse_block(found) : nullptr;
}

const char* ReaderCore::parse_block(Found& found) noexcept {
    if (found.size != sizeof(layout::BlockRecord)) return "a block record of the wrong size";
    const auto record = load_words<layout::BlockRecord>(found.data);
    const BroadcastShape& shape = view_.shape();
    const bool is_inside =
        record.granule < shape.granules &&
        record.length <= (shape.granules - record.granule) * layout::kBroadcastGranule;
    const auto tag = static_cast<std::uint16_t>(messages_ & layout::kTagMask);
    if (!is_inside || record.check != layout::block_check(record.granule, record.length, tag))
        return "a block that does not exist";
    found.data = ring_ + shape.block_offset(record.granule);
    found.size = record.length;
    found.granule = record.granule;
    return nullptr;
}

inline std::uint32_t ReaderCore::hand_out(const Found& found) noexcept {
    const std::uint32_t entry = load_relaxed(next_);
    Held& held = held_[entry % kMaxHeld];
    position_ = found.end;
    held.end = found.end;
    held.messages = ++messages_;
    store_relaxed(held.released, false);
    ++handed_out_;
    store_release(next_, entry + 1);  // pairs with: the acquire in free_released()
    return entry;
}

Result<BroadcastMessage> ReaderCore::recv(const Wait& wait) noexcept {
    if (load_relaxed(next_) - load_acquire(oldest_) == kMaxHeld) [[unlikely]] {
        return Status(ErrorCode::Busy, "4096 messages of this reader are held; release some first");
    }
    Found found;
    Status failure;
    if (!find(wait, found, failure)) [[unlikely]]
        return failure;
    takes_newest_ = false;
    const std::uint64_t sequence = messages_;
    const std::uint32_t entry = hand_out(found);
    PENSTOCK_CRASH_POINT("broadcast.recv.found");
    return Result<BroadcastMessage>(std::in_place, this, std::span(found.data, found.size),
                                    sequence, entry, found.granule, found.format);
}

Result<std::size_t> ReaderCore::next_size(const Wait& wait) noexcept {
    Found found;
    Status failure;
    if (!find(wait, found, failure)) return failure;
    return static_cast<std::size_t>(found.size);
}

Result<std::size_t> ReaderCore::recv_into(std::span<std::byte> buffer, const Wait& wait) noexcept {
    Found found;
    Status failure;
    if (segment_->is_foreign()) [[unlikely]]
        return segment_->why_foreign();
    if (position_ == known_) {
        if (!catch_up(wait, failure)) [[unlikely]]
            return failure;
        if (copy_newest(buffer, found)) return pass(found);
    }
    if (!search(wait, found, failure)) [[unlikely]]
        return failure;
    if (found.size > buffer.size()) {
        return Status(ErrorCode::TooLarge, "the next message has " + std::to_string(found.size) +
                                               " bytes and the buffer " +
                                               std::to_string(buffer.size()) +
                                               "; the message stays: use a larger buffer");
    }
    if (found.size > 0) std::memcpy(buffer.data(), found.data, found.size);
    takes_newest_ = found.size <= layout::WriterLine::kMaxBytes;
    return pass(found);
}

inline bool ReaderCore::copy_newest(std::span<std::byte> buffer, Found& found) noexcept {
    const layout::WriterLine& line = view_.writer();
    if (!tag_is_known_ || load_relaxed(line.newest_end) != known_) return false;
    const RecordHeader header = layout::decode_record(load_relaxed(line.newest_header));
    if (header.kind != RecordKind::Inline || header.length > layout::WriterLine::kMaxBytes ||
        header.length > buffer.size() || header.tag != (messages_ & layout::kTagMask) ||
        position_ + layout::record_bytes(header.length, header.skip) != known_) {
        return false;
    }
    std::array<std::uint64_t, layout::WriterLine::kMaxBytes / 8> words;
    for (std::uint64_t i = 0; i < layout::round_up(header.length, 8) / 8; ++i) {
        words[i] = load_relaxed(line.newest_words[i]);
    }
    // pairs with: the fence in WriterCore::copy_newest()
    std::atomic_thread_fence(std::memory_order_acquire);
    if (load_relaxed(line.newest_end) != known_) return false;
    if (header.length > 0) std::memcpy(buffer.data(), words.data(), header.length);
    found.size = header.length;
    found.end = known_;
    takes_newest_ = true;
    return true;
}

inline Result<std::size_t> ReaderCore::pass(const Found& found) noexcept {
    // After the copy: unless this reader was found dead by now, the writer has not reused the room.
    if (segment_->is_found_dead_after_reading()) [[unlikely]]
        return segment_->why_foreign();
    if (load_relaxed(next_) == load_acquire(oldest_)) {
        position_ = found.end;  // nothing is held before it: no entry is needed
        publish_position(position_, ++messages_);
    } else if (load_relaxed(next_) - load_acquire(oldest_) == kMaxHeld) {
        return Status(ErrorCode::Busy, "4096 messages of this reader are held; release some first");
    } else {
        release(hand_out(found), false, kNoBlock);
    }
    return static_cast<std::size_t>(found.size);
}

// Holds the block instead of the ring, so that the writer can reuse the ring.
bool ReaderCore::keep(std::uint32_t entry, std::uint32_t granule) noexcept {
    if (granule == kNoBlock || segment_->is_foreign()) return false;
    // Before the position passes the record: see BlockHolders.
    holders_.hold(granule, rank_);
    PENSTOCK_CRASH_POINT("broadcast.keep.held");
    store_release(held_[entry % kMaxHeld].released, true);
    announce(kReleased);
    return true;
}

void ReaderCore::release(std::uint32_t entry, bool kept, std::uint32_t granule) noexcept {
    if (segment_->is_foreign()) return let_go(kLetGo);
    if (kept) {
        holders_.drop(granule, rank_);
        PENSTOCK_CRASH_POINT("broadcast.keep.dropped");
        space_.notify();
    } else {
        // pairs with: the acquire in free_released()
        store_release(held_[entry % kMaxHeld].released, true);
    }
    announce(kLetGo | kReleased);
}

// Handles a release, or leaves it to the working thread, which gives room back until it has handled
// every announcement, and leaves the segment after the last final release; see `work_`.
inline void ReaderCore::announce(std::uint64_t what) noexcept {
    if (static_cast<std::uint32_t>(fetch_add_acq_rel(work_, what)) != 0)
        return;  // the working thread will see this announcement
    std::uint64_t seen = load_acquire(work_);
    for (;;) {
        free_released();
        if (load_acquire(handle_closed_)) {
            if (seen / kLetGo == handed_out_) return leave();
            // Messages still held lie in kept blocks: the ring need not wait for them.
            if (load_relaxed(oldest_) == load_acquire(next_)) open_gate();
        }
        if (cas_acq_rel(work_, seen, seen / kLetGo * kLetGo)) return;
    }
}

// A final release of a lost handle: gives nothing back, but the last one still leaves. In a forked
// child it does nothing: messages of the parent may still point here.
void ReaderCore::let_go(std::uint64_t what) noexcept {
    if (!segment_->is_lost()) return;
    if (static_cast<std::uint32_t>(fetch_add_acq_rel(work_, what | kReleased)) != 0) return;
    std::uint64_t seen = load_acquire(work_);
    for (;;) {
        if (load_acquire(handle_closed_) && seen / kLetGo == handed_out_) return leave();
        if (cas_acq_rel(work_, seen, seen / kLetGo * kLetGo)) return;
    }
}

inline void ReaderCore::free_released() noexcept {
    const std::uint32_t first = load_relaxed(oldest_);
    const std::uint32_t next = load_acquire(next_);
    std::uint32_t oldest = first;
    while (oldest != next && load_acquire(held_[oldest % kMaxHeld].released)) ++oldest;
    if (oldest == first) return;
    const Held& last = held_[(oldest - 1) % kMaxHeld];
    const std::uint64_t end = last.end;
    const std::uint64_t messages = last.messages;
    publish_position(end, messages);
    // After the position: where oldest_ == next_, pass() publishes a later position itself.
    // pairs with: the acquire in recv() and pass(): the entries are free
    store_release(oldest_, oldest);
}

inline void ReaderCore::publish_position(std::uint64_t position, std::uint64_t messages) noexcept {
    store_relaxed(line_->messages, messages);
    PENSTOCK_CRASH_POINT("broadcast.release.counted");
    // pairs with: the acquire in WriterCore::find_slowest(): reads come before the reuse
    store_release(line_->position, position);
    PENSTOCK_CRASH_POINT("broadcast.release.published");
    if (space_.has_waiters() && position >= load_relaxed(view_.state().wanted)) space_.wake();
}

void ReaderCore::close_handle() noexcept {
    // A forked child leaves its copy alone: messages of the parent may still point to it.
    if (segment_->is_foreign() && !segment_->is_lost()) return;
    store_release(handle_closed_, true);  // handed_out_ is final from here on
    if (!segment_->check_place()) return let_go(kLetGo);
    announce(kLetGo | kReleased);
}

// Stops gating the writer. Repeatable.
void ReaderCore::open_gate() noexcept {
    store_release(line_->gate, ReaderLine::kVacant);
    PENSTOCK_CRASH_POINT("broadcast.leave.vacant");
    space_.notify();
}

void ReaderCore::leave() noexcept {
    withdraw();
    if (segment_->check_place()) {  // else departed or lost: the rank may have another reader
        open_gate();
        membership_.leave();
    }
    delete this;
}

// Messages that are still held lose their hold on room in the ring and on blocks.
void ReaderCore::depart() noexcept {
    if (!segment_->check_place()) return;
    open_gate();
    membership_.leave();
    space_.notify();  // kept blocks are free
    segment_->disown();
}

bool ReaderCore::is_stream_over() const noexcept {
    return load_acquire(view_.state().closed) != 0;
}

BroadcastStats ReaderCore::stats() const {
    if (!segment_->check_place()) segment_->why_foreign().or_throw();
    BroadcastStats stats = read_stats(view_);
    stats.reader_deaths = reader_deaths(segment_->participants(), view_.shape());
    stats.messages = load_relaxed(line_->messages) - load_relaxed(line_->start);
    stats.waits = load_relaxed(line_->waits);
    stats.sleeps = load_relaxed(line_->sleeps);
    const std::uint64_t released = load_acquire(line_->position);
    stats.used_bytes = load_acquire(view_.writer().position) - released;
    read_segment_stats(stats, segment_->header(), segment_->participants(), segment_->file());
    set_wait_costs(stats, segment_->participants().wait_costs(slot_).since(costs_before_));
    return stats;
}

}  // namespace penstock::detail

// Sending: find room, write the record, publish it by advancing one position.
#include "broadcast/writer_core.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "os/clock.hpp"
#include "os/crash_point.hpp"
#include "os/fence.hpp"
#include "segment/text.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

using layout::ReaderLine;
using layout::RecordHeader;
using layout::RecordKind;
constexpr std::uint64_t kPaceMask = 63;      // the pace is measured over 64 messages
constexpr std::int64_t kStreamingPace = 60;  // ns a message; less than any round trip takes
constexpr std::int64_t kIdleBeforeTrim = 2'000'000'000;  // ns since the last large message
// The part of the ring that a conversation uses over and over. Figures: docs/performance.md.
constexpr std::uint64_t kWarmBytes = std::uint64_t{32} << 10U;
constexpr unsigned kReadersAtOnce = 8;  // a look at more of them is made as much more rarely

void store_word(std::byte* at, std::uint64_t word) noexcept {
    store_relaxed(std::atomic_ref<std::uint64_t>(*reinterpret_cast<std::uint64_t*>(at)), word);
}

}  // namespace

WriterCore::WriterCore(std::unique_ptr<Segment> made)
    : segment(std::move(made)), ring(segment->payload()) {
    view = BroadcastView(broadcast_shape_of(segment->header()), segment->control());
    const auto& shape = view.shape();
    blocks = WriterBlocks(view, *segment);
    data = Signal(view.data_word(), segment->has_asymmetric_fence());
    space = Signal(view.space_word(), segment->has_asymmetric_fence());
    mask = shape.capacity - 1;
    longest_inline = shape.longest_inline();
    longest = std::max(longest_inline, shape.blocks_bytes());
    told.resize(shape.readers);
    membership = Membership(*segment, layout::slot_of_rank(shape.readers));
    membership.adopt(layout::kWriterSlot);
    spin = segment->sending_budget(layout::kWriterSlot);
    stretch = kWarmBytes;
    raise_limit(0);
    set_usable();
    enter(*segment, layout::kWriterSlot);
}

inline bool WriterCore::is_usable(std::uint64_t length) const noexcept {
    return !segment->is_foreign() && length < too_long;
}

// One bound covers every reason to refuse a length, so that send() makes one comparison.
void WriterCore::set_usable() noexcept {
    too_long = closed || loan_open ? 0 : longest + 1;
}

// `closed` first: a closed writer has detached and is foreign.
Status WriterCore::check_readable() const noexcept {
    if (closed) return Status::closed_here("this writer is closed; create the broadcast anew");
    return segment->is_foreign() ? segment->why_foreign() : Status::ok();
}

// Why is_usable() is false.
Status WriterCore::why_unusable(std::uint64_t length) const noexcept {
    if (Status status = check_readable(); !status) return status;
    if (loan_open) {
        return {ErrorCode::Busy, "a loan of this writer is still open; commit or drop it first"};
    }
    return {ErrorCode::TooLarge, "a message of " + std::to_string(length) +
                                     " bytes can never fit: " + quoted(segment->name()) +
                                     " takes up to " + std::to_string(longest) +
                                     "; create it with a larger `large`, or send it in parts"};
}

// Where the next record would lie.
inline WriterCore::Room WriterCore::measure(const Record& record) const noexcept {
    const auto skip_at = [&record](std::uint64_t offset) {
        const std::uint64_t payload = offset + layout::kRecordHeaderBytes;
        return (layout::round_up(payload, record.alignment) - payload) / 8;
    };
    Room room;
    const std::uint64_t offset = offset_of(position);
    room.skip = skip_at(offset);
    room.bytes = layout::record_bytes(record.length, room.skip);
    if (offset + room.bytes <= mask + 1) return room;
    room.padding = mask + 1 - offset;  // contiguous: start again at the beginning of the ring
    room.skip = skip_at(0);
    room.bytes = layout::record_bytes(record.length, room.skip);
    return room;
}

inline std::byte* WriterCore::payload_at(const Room& room) const noexcept {
    return ring + offset_of(position + room.padding) + layout::kRecordHeaderBytes + room.skip * 8;
}

std::uint64_t WriterCore::find_slowest() noexcept {
    // Orders what is published before the loads of the gates; a joining reader makes its gate
    // active and then loads the position, so one of the two sees the other.
    // pairs with: the fence in ReaderCore::take_gate()
    os::full_fence();
    std::uint64_t slowest = position;
    for (unsigned rank = 0; rank < view.shape().readers; ++rank) {
        if (!is_gating(view, rank)) continue;
        // pairs with: the release in ReaderCore::publish_position()
        slowest = std::min(slowest, load_acquire(view.reader(rank).position));
    }
    return slowest;
}

// A joining reader's position may be an old one: the limit never falls.
void WriterCore::raise_limit(std::uint64_t slowest) noexcept {
    limit = std::max(limit, slowest + mask + 1);
    unlooked = std::min(limit, position + stretch);
}

// In a conversation each message is received before the next is sent. The rest of the ring would
// only bring cold memory: the next record goes to its beginning again. In a stream readers are
// always behind, and looks become rare.
void WriterCore::rewind_if_idle(std::uint64_t slowest) noexcept {
    if (slowest != position || mask < kWarmBytes) {
        stretch = std::min(stretch * 2, mask + 1);
        return;
    }
    stretch = kWarmBytes * std::max(1U, view.shape().readers / kReadersAtOnce);
    origin = (0 - position) & mask;
    // Released with the next position; until then no reader has a use for it.
    // pairs with: the acquire in ReaderCore::look_for_more()
    store_relaxed(view.origin(), origin);
    PENSTOCK_CRASH_POINT("broadcast.rewind.stored");
}

Status WriterCore::make_room(Room& room, const Record& record, const Wait& wait) noexcept {
    const std::uint64_t slowest = find_slowest();
    rewind_if_idle(slowest);
    raise_limit(slowest);
    trim_when_idle();
    if (find_untold()) return death_notice();  // reaped by another process
    room = measure(record);
    const std::uint64_t end = end_of(room);
    if (end <= limit) return Status::ok();
    const std::uint64_t needed = end - (mask + 1);
    // Readers wake the writer only when there is room for more than one message, so that a full
    // ring does not cost a wake-up for each. They can always reach `position`.
    const std::uint64_t comfortable = std::min(needed + (mask + 1) / 8, position);
    return wait_for_readers(needed, comfortable, wait, [this, end] {
        raise_limit(find_slowest());
        return end <= limit;
    });
}

template <typename Ready>
Status WriterCore::wait_for_readers(std::uint64_t needed, std::uint64_t comfortable,
                                    const Wait& wait, Ready&& ready) noexcept {
    auto& state = view.state();
    add_as_sole_writer(state.waits, 1);
    store_relaxed(state.wanted, comfortable);
    store_relaxed(state.needed, needed);
    // A caller that tries again after a failure is blocked since its first try.
    if (!std::exchange(blocked, true)) store_relaxed(state.blocked_since, os::monotonic_ns());
    PENSTOCK_CRASH_POINT("broadcast.wait.noted");
    // Not notified: a reader that stops between `needed` and `wanted`, and room in a file system.
    Peers blockers = peers();
    blockers.slices = Slices::Growing;
    const WaitEnd end = wait_until(
        space, spin, wait, sleeps, ready, [this] { return is_to_end_wait() || reap_readers(); },
        blockers);
    if (segment->is_foreign()) return segment->why_foreign();
    store_relaxed(state.sleeps, sleeps);
    PENSTOCK_CRASH_POINT("broadcast.wait.ended");
    if (end == WaitEnd::Ready) clear_blocked();
    return explain_wait(end, wait);
}

Peers WriterCore::peers() const noexcept {
    return segment->participants().peers(layout::slot_of_rank(0),
                                         layout::slot_of_rank(view.shape().readers), closing);
}

bool WriterCore::is_to_end_wait() noexcept {
    return closing.is_cancelled() || !segment->check_place();
}

// After a wait that succeeded, and at the end. After a Timeout blocked_by() still reports readers.
void WriterCore::clear_blocked() noexcept {
    if (std::exchange(blocked, false)) store_relaxed(view.state().blocked_since, 0);
}

// The Status of a wait for readers.
Status WriterCore::explain_wait(WaitEnd end, const Wait& wait) noexcept {
    if (end == WaitEnd::Ready) return Status::ok();
    if (end == WaitEnd::PeerGone && !closing.is_cancelled()) return death_notice();
    if (end != WaitEnd::Timeout) {
        return {ErrorCode::Cancelled, "sending was cancelled; nothing was sent"};
    }
    if (wait.deadline.is_try()) {  // a poller: no scan of the readers
        return {ErrorCode::Timeout, "no room at this moment; blocked_by() tells who is behind"};
    }
    std::string who;
    for (const BroadcastReaderState& reader : find_blockers(view, segment->participants())) {
        who += (who.empty() ? "" : "; ") + reader.describe();
    }
    return {ErrorCode::Timeout, "no room in " + quoted(segment->name()) + ": waiting for " +
                                    (who.empty() ? "its readers" : who)};
}

bool WriterCore::reap_readers() noexcept {
    for (unsigned rank = 0; rank < view.shape().readers; ++rank) {
        const auto take_over = [&](unsigned slot) {
            const BroadcastReaderState dead = describe_reader(view, segment->participants(), rank);
            take_over_reader(view, rank);
            note_death(rank, segment->participants().found_dead(slot),
                       " (pid " + std::to_string(dead.pid) + ", " + printable(dead.process) + ")",
                       ", " + std::to_string(dead.lag_messages) + " messages behind");
        };
        // There may be room now: the sleep of the wait that reaps ends at once.
        if (membership.reap(layout::slot_of_rank(rank), take_over)) space.notify();
    }
    return find_untold();
}

bool WriterCore::find_untold() noexcept {
    for (unsigned rank = 0; rank < view.shape().readers; ++rank) {
        const unsigned slot = layout::slot_of_rank(rank);
        if (segment->participants().has_janitor(slot)) continue;  // found, and not yet reaped
        note_death(rank, segment->participants().found_dead(slot), "",
                   ", and its place has been taken or cleared by another process");
    }
    return !deaths_to_tell.empty();
}

// `death`: Participants::found_dead() of the rank; 0, or noted before: there is nothing to report.
void WriterCore::note_death(unsigned rank, std::uint64_t death, std::string_view who,
                            std::string_view where) noexcept {
    if (std::exchange(told[rank], death) == death) return;
    if (view.shape().on_reader_death == OnReaderDeath::Drop) return;
    const DeathNote note = segment->participants().death(layout::slot_of_rank(rank), death);
    if (deaths_to_tell.empty()) {
        first_dead = static_cast<int>(rank);
        first_death = note.death();
    }
    deaths_to_tell += (deaths_to_tell.empty() ? "reader " : "; reader ") + std::to_string(rank) +
                      " of " + quoted(segment->name());
    deaths_to_tell.append(who).append(" ").append(note.predicate());
    deaths_to_tell.append(where).append(note.doubt());
}

Status WriterCore::death_notice() noexcept {
    return {ErrorCode::PeerDied,
            std::exchange(deaths_to_tell, {}) +
                "; nothing was sent, and the dead block nobody any more: send again, and attach "
                "a replacement at the same rank",
            std::exchange(first_dead, -1), std::exchange(first_death, {})};
}

inline void WriterCore::publish(const Room& room, const RecordHeader& header,
                                std::uint64_t payload_bytes) noexcept {
    if (room.padding > 0) {
        RecordHeader padding;
        padding.kind = RecordKind::Padding;
        padding.length = room.padding - layout::kRecordHeaderBytes;
        store_word(ring + offset_of(position), layout::encode_record(padding));
        PENSTOCK_CRASH_POINT("broadcast.send.padded");
    }
    store_word(ring + offset_of(position + room.padding), layout::encode_record(header));
    PENSTOCK_CRASH_POINT("broadcast.send.written");
    position += room.padding + room.bytes;
    ++messages;
    bytes += payload_bytes;
    if (blocked) [[unlikely]]
        clear_blocked();
    store_relaxed(view.counts().messages, messages);
    store_relaxed(view.counts().bytes, bytes);
    PENSTOCK_CRASH_POINT("broadcast.send.counted");
    // pairs with: the acquire in ReaderCore::look_for_more()
    store_release(view.writer().position, position);
    PENSTOCK_CRASH_POINT("broadcast.send.published");
    data.notify();
    // Readers still have the lines of the next record from the last lap: fetch them early.
    __builtin_prefetch(ring + offset_of(position), 1);
    __builtin_prefetch(ring + offset_of(position + 64), 1);
}

inline void WriterCore::publish_inline(const Room& room, std::uint64_t length,
                                       Format format) noexcept {
    RecordHeader header;
    header.length = length;
    header.kind = RecordKind::Inline;
    header.skip = static_cast<std::uint8_t>(room.skip);
    header.format = static_cast<std::uint8_t>(format);
    header.tag = static_cast<std::uint16_t>(messages & layout::kTagMask);
    if ((messages & kPaceMask) == 0) [[unlikely]]
        measure_pace();
    if (length <= layout::WriterLine::kMaxBytes && !is_streaming) copy_newest(room, header);
    publish(room, header, length);
}

// A stream at full speed leaves the copies out: its readers find many records at a look.
void WriterCore::measure_pace() noexcept {
    const std::int64_t now = os::monotonic_ns();
    is_streaming = now - pace_since < kStreamingPace * static_cast<std::int64_t>(kPaceMask + 1);
    pace_since = now;
}

inline void WriterCore::copy_newest(const Room& room, const RecordHeader& header) noexcept {
    layout::WriterLine& line = view.writer();
    store_relaxed(line.newest_end, end_of(room));
    // pairs with: the fence in ReaderCore::copy_newest(). A reader that loads a word stored below
    // finds newest_end changed.
    std::atomic_thread_fence(std::memory_order_release);
    PENSTOCK_CRASH_POINT("broadcast.send.naming");
    store_relaxed(line.newest_header, layout::encode_record(header));
    // Whole words: the record is rounded up to them in the ring.
    const std::byte* from = payload_at(room);
    for (std::uint64_t i = 0; i < layout::round_up(header.length, 8) / 8; ++i) {
        std::uint64_t word = 0;
        std::memcpy(&word, from + i * 8, sizeof word);
        store_relaxed(line.newest_words[i], word);
    }
}

// Busy: waits while a block that was sent is not free yet. NoSpace: waits while a sent block waits
// for a position; kept blocks don't count, as readers may keep them for as long as they live. The
// failure is final otherwise.
Result<Block> WriterCore::allocate(std::uint64_t length, const Wait& wait) noexcept {
    if (!segment->check_place()) return segment->why_foreign();
    constexpr std::size_t kLooks = 16;  // then all, if that is not enough
    recycle(kLooks);
    Result<Block> block = blocks.allocate(length);
    if (block) return block;
    if (block.code() == ErrorCode::NoSpace && reap_readers()) return death_notice();
    if (recycle()) block = blocks.allocate(length);
    const auto is_settled = [&] {
        if (block) return true;
        return block.code() == ErrorCode::Busy ? !blocks.has_sent() : blocks.next_end() == 0;
    };
    if (is_settled()) return block;
    std::uint64_t looked = sleeps;
    const std::uint64_t needed = blocks.next_end();
    const Status waited = wait_for_readers(needed, needed, wait, [&] {
        const bool has_freed = recycle();
        // 0 once only kept blocks are left: blocked_by() then names the readers that keep them.
        store_relaxed(view.state().needed, blocks.next_end());
        // The file system does not signal that it has room again: one try after every sleep.
        const bool may_have_room =
            std::exchange(looked, sleeps) != sleeps && block.code() != ErrorCode::Busy;
        if (!has_freed && !may_have_room) return false;
        block = blocks.allocate(length);
        return is_settled();
    });
    if (waited) return block;
    if (block.code() != ErrorCode::NoSpace || waited.code() != ErrorCode::Timeout) return waited;
    return Status(waited.code(),
                  std::string(waited.message()) + "; " + std::string(block.status().message()));
}

void WriterCore::publish_block(Block block, const Room& room, std::uint64_t length,
                               Format format) noexcept {
    const auto tag = static_cast<std::uint16_t>(messages & layout::kTagMask);
    const layout::BlockRecord record{block.first, layout::block_check(block.first, length, tag),
                                     length};
    std::memcpy(payload_at(room), &record, sizeof record);
    PENSTOCK_CRASH_POINT("broadcast.send.described");
    RecordHeader header;
    header.length = sizeof record;
    header.kind = RecordKind::Block;
    header.skip = static_cast<std::uint8_t>(room.skip);
    header.format = static_cast<std::uint8_t>(format);
    header.tag = tag;
    blocks.send(block, end_of(room));
    note_large();
    add_as_sole_writer(view.state().large_messages, 1);
    publish(room, header, length);
}

// Ends the loan without a message. Its memory is trimmed later, like that of a message.
void WriterCore::end_loan() noexcept {
    loan_open = false;
    set_usable();
    if (loan_block && !segment->is_foreign()) {
        blocks.give_back(*loan_block);
        note_large();
    }
    loan_block.reset();
    if (closed) segment->detach();  // only the loan kept it mapped
}

void WriterCore::note_large() noexcept {
    last_large = os::monotonic_ns();
    may_trim = true;
}

void WriterCore::trim_when_idle() noexcept {
    if (!may_trim) return;
    const std::int64_t now = os::monotonic_ns();
    if (now - last_large < kIdleBeforeTrim || !segment->check_place()) return;
    last_large = now;  // the next look comes as much later
    recycle();
    may_trim = !blocks.trim() || blocks.has_sent();  // theirs is trimmed when they are free
}

void WriterCore::end_stream() noexcept {
    // pairs with: the acquires in ReaderCore::wait_for_more() and end_of_stream()
    store_release(view.state().closed, 1);
    PENSTOCK_CRASH_POINT("broadcast.close.marked");
    data.notify();
}

bool WriterCore::is_stream_over() const noexcept {
    return load_acquire(view.state().closed) != 0;
}

void WriterCore::close() noexcept {
    withdraw();
    leave();
}

void WriterCore::leave() noexcept {
    if (closed || (segment->is_foreign() && !segment->is_lost())) return;
    closed = true;
    set_usable();
    if (!segment->check_place()) {  // lost: to other processes this writer is dead
        if (!loan_open) segment->detach();
        return;
    }
    clear_blocked();
    end_stream();
    recycle();
    blocks.trim();  // no other process does while readers keep the segment
    membership.leave();
    if (!loan_open) segment->detach();
}

Status WriterCore::send(std::span<const std::byte> message, const Wait& wait,
                        Format format) noexcept {
    if (!is_usable(message.size())) [[unlikely]]
        return why_unusable(message.size());
    if (message.size() > longest_inline) return send_large(message, wait, format);
    // Aligned, the copy touches fewer cache lines, and a waiting reader takes fewer of them away.
    constexpr std::uint64_t kWorthAligning = 256;
    const Record record{message.size(), message.size() >= kWorthAligning ? layout::kPayloadAlignment
                                                                         : std::uint64_t{8}};
    Room room = measure(record);
    if (end_of(room) > unlooked) [[unlikely]] {
        if (Status waited = make_room(room, record, wait); !waited) return waited;
    }
    if (!message.empty()) std::memcpy(payload_at(room), message.data(), message.size());
    PENSTOCK_CRASH_POINT("broadcast.send.copied");
    publish_inline(room, message.size(), format);
    return Status::ok();
}

Status WriterCore::send_large(std::span<const std::byte> message, const Wait& wait,
                              Format format) noexcept {
    Result<std::span<std::byte>> large = loan(message.size(), wait);
    if (!large) return large.status();
    std::memcpy(large->data(), message.data(), message.size());
    PENSTOCK_CRASH_POINT("broadcast.send.copied_large");
    return commit(message.size(), format);
}

// What the ring has to hold for a loan of that size. The record of a large one only names its
// block.
WriterCore::Record WriterCore::record_of_loan(std::uint64_t size) const noexcept {
    if (size <= longest_inline) return {size, layout::kPayloadAlignment};
    return {sizeof(layout::BlockRecord), alignof(layout::BlockRecord)};
}

Result<std::span<std::byte>> WriterCore::loan(std::size_t size, const Wait& wait) noexcept {
    if (!is_usable(size)) return why_unusable(size);
    const Record record = record_of_loan(size);
    Room room = measure(record);
    if (end_of(room) > unlooked) {
        if (Status waited = make_room(room, record, wait); !waited) return waited;
    }
    std::byte* at = payload_at(room);
    loan_block.reset();
    if (size > longest_inline) {
        Result<Block> block = allocate(size, wait);
        if (!block) return block.status();
        loan_block = *block;
        at = ring + view.shape().block_offset(block->first);
    }
    PENSTOCK_CRASH_POINT("broadcast.loan.made");
    loan_room = room;
    loan_open = true;
    set_usable();
    return std::span(at, size);
}

Status WriterCore::commit(std::size_t size, Format format) noexcept {
    if (segment->is_foreign() && !segment->is_lost()) return segment->why_foreign();
    if (closed) {
        end_loan();
        return Status::closed_here("the writer was closed; the loan was not sent");
    }
    if (segment->is_lost()) {
        end_loan();
        return segment->why_foreign();
    }
    loan_open = false;
    set_usable();
    if (loan_block) {
        publish_block(*std::exchange(loan_block, std::nullopt), loan_room, size, format);
    } else {
        publish_inline(loan_room, size, format);
    }
    return Status::ok();
}

bool WriterCore::has_room(std::size_t size) noexcept {
    if (!is_usable(size)) return true;  // send() and loan() fail at once, without a wait
    const std::uint64_t end = end_of(measure(record_of_loan(size)));
    if (end > limit) raise_limit(find_slowest());
    return end <= limit;
}

bool WriterCore::has_all_readers() const noexcept {
    for (unsigned rank = 0; rank < view.shape().readers; ++rank) {
        if (load_acquire(view.reader(rank).gate) != ReaderLine::kActive) return false;
    }
    return true;
}

Status WriterCore::wait_ready(const Wait& wait) noexcept {
    if (!is_usable(0)) return why_unusable(0);
    const auto all_active = [this] { return has_all_readers(); };
    // An active gate may be a dead reader's: only the kernel's lock tells.
    const auto any_dead = [this] { return is_to_end_wait() || reap_readers(); };
    Peers joiners = peers();
    joiners.slices = Slices::Long;  // a reader notifies when its gate is active
    for (;;) {
        WaitEnd end = wait_until(space, spin, wait, sleeps, all_active, any_dead, joiners);
        if (end == WaitEnd::Ready && !any_dead()) {
            if (has_all_readers()) return Status::ok();
            end = end_of_wait(wait);
            if (end == WaitEnd::Ready) continue;
        }
        if (segment->is_foreign()) return segment->why_foreign();
        if (closing.is_cancelled() || end == WaitEnd::Cancelled) {
            return {ErrorCode::Cancelled, "waiting for readers was cancelled"};
        }
        return end == WaitEnd::Timeout ? explain_missing() : death_notice();
    }
}

Status WriterCore::explain_missing() const noexcept {
    std::string missing;
    for (const BroadcastReaderState& reader : readers()) {
        if (reader.life == BroadcastReaderState::Life::Active) continue;
        missing += (missing.empty() ? "" : ", ") + std::to_string(reader.rank);
    }
    return {ErrorCode::Timeout, "not every reader of " + quoted(segment->name()) +
                                    " has attached: nobody is at rank " + missing};
}

std::vector<BroadcastReaderState> WriterCore::readers() const {
    std::vector<BroadcastReaderState> all;
    for (unsigned rank = 0; rank < view.shape().readers; ++rank) {
        all.push_back(describe_reader(view, segment->participants(), rank));
    }
    return all;
}

BroadcastStats WriterCore::stats() const {
    BroadcastStats stats = read_stats(view);
    stats.reader_deaths = reader_deaths(segment->participants(), view.shape());
    read_segment_stats(stats, segment->header(), segment->participants(), segment->file());
    set_wait_costs(stats, segment->participants().wait_costs(layout::kWriterSlot));
    stats.held_bytes = load_relaxed(view.state().held_bytes);
    return stats;
}

}  // namespace penstock::detail

// A participant's work: joining, putting, taking, waiting, reaping, leaving.
#include "queue/core.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "os/clock.hpp"
#include "queue/dead_letters.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

using layout::QueueSlot;
using layout::SlotState;
constexpr std::int64_t kIdleBeforeTrim = 2'000'000'000;  // ns since a block was last freed

std::string other_application(const QueueCore& core, std::uint64_t wanted) {
    const std::string found = quoted(core.segment->name()) + " is a queue of " +
                              application_text(core.view.shape().application);
    if (wanted == 0) {
        return found + ", whose layer keeps accounts of its own; attach with that";
    }
    return found + ", and one of " + application_text(wanted) + " was asked for; use another name";
}

Arena arena_of(const QueueView& view, Segment& segment) noexcept {
    const QueueShape& shape = view.shape();
    return {shape.arena, view.arena_control(), segment.payload() + shape.cells_bytes(),
            segment.file(), segment.payload_offset() + shape.cells_bytes()};
}

}  // namespace

Status damaged(const Segment& segment) noexcept {
    return {ErrorCode::Corrupt,
            "the slots of " + quoted(segment.name()) + " contradict themselves"};
}

std::shared_ptr<QueueCore> QueueCore::create(const std::string& name, const QueueOptions& options,
                                             const Prepare& prepare) {
    const QueueShape shape = queue_shape_of(options);
    SegmentPlan plan = plan_of(shape);
    plan.waiting = options.waiting;
    plan.replaces_owner = options.replaces_owner;
    // All other words are zero in a fresh Queue, which is their initial value.
    auto fresh = Segment::create(name, plan, options.memory, [&](Segment& segment) {
        Membership::found(segment, 0);
        const QueueView view(shape, segment.control());
        if (shape.is_reserved) arena_of(view, segment).mark_reserved();
        if (prepare) prepare(view);
    });
    auto core = std::make_shared<QueueCore>(std::move(fresh), QueueRole::Any);
    core->membership.adopt(0);
    core->is_creator = true;
    core->enter(*core->segment, 0);
    return core;
}

std::shared_ptr<QueueCore> QueueCore::attach(std::unique_ptr<Segment> segment, QueueRole role,
                                             std::uint64_t application) {
    auto core = std::make_shared<QueueCore>(std::move(segment), role);
    if (core->view.shape().application != application) {
        throw Error(ErrorCode::Incompatible, other_application(*core, application));
    }
    core->join();
    if (role == QueueRole::Producer) core->become_producer();
    core->reap();
    return core;
}

QueueCore::QueueCore(std::unique_ptr<Segment> joined, QueueRole wanted)
    : segment(std::move(joined)), role(wanted) {
    const QueueShape shape = queue_shape_of(segment->header());
    view = QueueView(shape, segment->control());
    membership = Membership(*segment, shape.participants);
    arena = arena_of(view, *segment);
    data = Signal(view.data_word(), segment->has_asymmetric_fence());
    space = Signal(view.space_word(), segment->has_asymmetric_fence());
    arena.announce_room_on(space);
    turn = Signal(view.turn_word(), segment->has_asymmetric_fence());
    take_slot(0);
    longest = std::max(shape.cell_bytes, arena.range_bytes());
}

void QueueCore::take_slot(unsigned slot) noexcept {
    self = slot;
    ring = SlotRing(view, self);
    line = WaitingLine(view, self, turn);
    put_spin = segment->sending_budget(self);
    take_spin = turn_spin = segment->receiving_budget(self);
}

void QueueCore::join() {
    take_slot(membership.claim_any());
    membership.inherit([this](unsigned dead) { take_over(dead); });
    membership.enter();
    data.notify();  // so that waiting consumers and producers watch this participant, too
    space.notify();
    enter(*segment, self);
}

QueueCore::~QueueCore() {
    withdraw();
    if (!segment->check_place()) return;
    vacate();
}

// Gives back what deliveries and loans hold; the objects that remain can be read, and change
// nothing.
void QueueCore::depart() noexcept {
    if (!segment->check_place()) return;
    end_on_leaving();
    take_over(self);
    vacate();
    segment->disown();
}

void QueueCore::vacate() noexcept {
    if (membership.is_member()) {
        line.clear(self);
        store_seq_cst(own().role, 0);
    }
    // A queue with accepted messages keeps its name, for later consumers.
    membership.leave([this] { return is_drained(); });
}

bool QueueCore::is_drained() const noexcept {
    const QueueStats stats = read_queue_stats(view);
    return stats.queued + stats.in_flight + stats.dead_letters == 0;
}

// The reason for a false is_able_to_put().
Status QueueCore::why_unable_to_put(std::uint64_t size) const noexcept {
    if (segment->is_foreign()) return segment->why_foreign();
    if (role == QueueRole::Consumer) {
        return {ErrorCode::InvalidArgument, "this handle attached to " + quoted(segment->name()) +
                                                " as a consumer; attach without that role to put"};
    }
    if (load_acquire(view.state().closed) != 0) {
        return {ErrorCode::Closed,
                quoted(segment->name()) + " has ended; nothing more is accepted"};
    }
    return {ErrorCode::TooLarge, "a message of " + std::to_string(size) +
                                     " bytes can never fit: " + quoted(segment->name()) +
                                     " takes up to " + std::to_string(longest) +
                                     "; create it with a larger capacity, or put it in parts"};
}

// Writes the message into a slot that this participant has claimed.
inline void QueueCore::fill(std::uint64_t ticket, const Message& message,
                            std::int64_t now) noexcept {
    QueueSlot& slot = ring.slot_of(ticket);
    if (message.block != 0) {
        store_relaxed(slot.block, message.block);
        PENSTOCK_CRASH_POINT("queue.put.named");
        arena.hand_over(decode_block(message.block), self, layout::kQueueOwner);
    } else if (!message.bytes.empty()) {
        std::memcpy(cell(ring.index_of(ticket)), message.bytes.data(), message.bytes.size());
    }
    store_relaxed(slot.description,
                  layout::encode_description(
                      {message.bytes.size(), static_cast<std::uint8_t>(message.format), self}));
    store_relaxed(slot.sequence, ticket);
    store_relaxed(slot.tag, message.tag);
    store_relaxed(slot.order, message.order);
    store_relaxed(slot.accepted_at, now);
    PENSTOCK_CRASH_POINT("queue.put.written");
}

// One claim, and the message published in it.
inline QueueCore::Attempt QueueCore::attempt_put(const Message& message,
                                                 std::int64_t now) noexcept {
    const SlotRing::Look look = ring.claim(tail);
    if (look == SlotRing::Look::Nothing) return Attempt::Full;
    if (look == SlotRing::Look::Damaged) return Attempt::Damaged;
    const std::uint64_t ticket = tail - 1;
    // Checked after the claim: a message accepted before the end is found after it, and none is
    // accepted later.
    // pairs with: the store in end(); both sequentially consistent, as is the claim
    if (load_seq_cst(view.state().closed) != 0) [[unlikely]] {
        ring.abandon(ticket);
        return Attempt::Ended;
    }
    fill(ticket, message, now);
    if (ring.publish(ticket)) [[likely]] {
        os::prefetch_for_write(&view.slot(ring.index_after(ticket, kAhead)));
        os::prefetch_for_write(cell(ring.index_after(ticket, kAhead)));
        return Attempt::Accepted;
    }
    // This participant owns nothing in the slot any more; it may belong to another by now.
    if (segment->is_foreign()) return Attempt::Foreign;
    // Overtaken: other producers have passed this slot. The next claim is behind them.
    if (message.block != 0) {
        arena.hand_over(decode_block(message.block), layout::kQueueOwner, self);
        PENSTOCK_CRASH_POINT("queue.put.taken_back");
        store_relaxed(ring.slot_of(ticket).block, 0);
    }
    ring.abandon(ticket);
    PENSTOCK_CRASH_POINT("queue.put.abandoned");
    return Attempt::Overtaken;
}

inline void QueueCore::note_accepted(std::uint64_t messages, std::uint64_t bytes,
                                     std::int64_t now) noexcept {
    add_as_sole_writer(own().accepted, messages);
    add_as_sole_writer(own().accepted_bytes, bytes);
    look_around(now);
}

// True: accepted, or `failure` says why it never will be. False: the queue is full.
inline bool QueueCore::try_put(const Message& message, Status& failure) noexcept {
    // Each attempt that is overtaken takes as long as a consumer's patience.
    constexpr unsigned kMaxAttempts = 10'000;
    std::int64_t now = 0;
    Attempt last = Attempt::Overtaken;
    for (unsigned count = 0; last == Attempt::Overtaken && count < kMaxAttempts; ++count) {
        now = os::coarse_ns();  // anew: an overtaken producer may have been stopped for long
        last = attempt_put(message, now);
    }
    if (last == Attempt::Accepted) [[likely]] {
        note_accepted(1, message.bytes.size(), now);
        return true;
    }
    if (last == Attempt::Full) return false;
    const bool is_over = last == Attempt::Ended || last == Attempt::Foreign;
    failure = is_over ? why_unable_to_put(0) : damaged(*segment);
    return true;
}

bool QueueCore::put_at_once(const Message& message) noexcept {
    const std::uint64_t size = message.bytes.size();
    if (size > view.shape().cell_bytes || !is_able_to_put(0)) return false;
    become_producer();
    const std::int64_t now = os::coarse_ns();
    if (attempt_put(message, now) != Attempt::Accepted) return false;
    note_accepted(1, size, now);
    return true;
}

// Once for all messages of a run: the checks before a claim, the clock, the counters.
std::size_t QueueCore::put_run(Messages messages, Format format) noexcept {
    constexpr std::size_t kMaxRun = 64;  // so that the clock and the counters are little behind
    const std::uint64_t longest_in_cell = view.shape().cell_bytes;
    if (messages.empty() || messages[0].size() > longest_in_cell || !is_able_to_put(0)) return 0;
    become_producer();
    const std::int64_t now = os::coarse_ns();
    const std::size_t most = std::min(messages.size(), kMaxRun);
    std::uint64_t bytes = 0;
    std::size_t put = 0;
    for (; put < most; ++put) {
        const std::span<const std::byte> message = messages[put];
        if (message.size() > longest_in_cell || segment->is_foreign()) break;
        if (attempt_put({message, 0, format}, now) != Attempt::Accepted) break;
        bytes += message.size();
    }
    if (put > 0) note_accepted(put, bytes, now);
    return put;
}

Status QueueCore::put(const Message& message, const Wait& wait, bool notifies) noexcept {
    become_producer();
    Status failure;
    const auto is_settled = [&] { return try_put(message, failure); };
    if (!is_settled()) [[unlikely]] {
        // Reading the slot that becomes free next would take its line away from the consumer at
        // work on it. So a spinning producer reads a slot further on: when that is free, several
        // are. Only while spinning: the look before a sleep must be exact.
        const std::uint64_t further = view.shape().slots / 16;
        const std::int64_t spin_ends =
            wait.deadline.is_try() ? 0 : os::monotonic_ns() + put_spin.nanoseconds();
        const WaitEnd end = wait_for(Side::Producer, space, put_spin, wait, [&] {
            if (!ring.has_room(tail + further) && os::monotonic_ns() < spin_ends) return false;
            if (is_ended()) failure = why_unable_to_put(0);  // the end wakes waiters for room
            return !failure || is_settled();
        });
        if (end == WaitEnd::Timeout) {
            return {ErrorCode::Timeout, quoted(segment->name()) + " is full: " +
                                            slots_in_use(view) + "; nothing was put"};
        }
        if (end != WaitEnd::Ready) return cancelled("putting was cancelled; nothing was put");
    }
    if (!failure) return failure;
    if (notifies) data.notify();
    return Status::ok();
}

Status QueueCore::put_bytes(const Message& message, const Wait& wait, bool notifies) noexcept {
    const std::span<const std::byte> bytes = message.bytes;
    if (!is_able_to_put(bytes.size())) [[unlikely]]
        return why_unable_to_put(bytes.size());
    if (bytes.size() <= view.shape().cell_bytes) return put(message, wait, notifies);
    Result<BlockId> block = allocate(bytes.size(), wait);
    if (!block) return block.status();
    std::memcpy(arena.data(*block), bytes.data(), bytes.size());
    PENSTOCK_CRASH_POINT("queue.put.copied");
    Message placed = message;
    placed.block = encode_block(*block);
    Status accepted = put(placed, wait, notifies);
    if (!accepted) drop_block(placed.block);
    return accepted;
}

Result<BlockId> QueueCore::allocate(std::uint64_t size, const Wait& wait) noexcept {
    // From this size on the copy takes so long that a janitor could reap this participant
    // meanwhile: see Segment::check_place.
    constexpr std::uint64_t kLong = std::uint64_t{256} << 10U;
    if (size >= kLong && !segment->check_place()) return segment->why_foreign();
    become_producer();
    Result<BlockId> block = arena.allocate(size, self, first_granule());
    const auto is_settled = [&] {
        if (is_ended()) {
            block = why_unable_to_put(0);
        } else {
            block = arena.allocate(size, self, next_granule);
        }
        return block.code() != ErrorCode::Busy;
    };
    if (block.code() == ErrorCode::Busy) {
        const WaitEnd end = wait_for(Side::Producer, space, put_spin, wait, is_settled);
        if (end == WaitEnd::Timeout) {
            return Status(ErrorCode::Timeout, "no room for " + std::to_string(size) + " bytes in " +
                                                  quoted(segment->name()) + ": " +
                                                  std::to_string(arena.allocated_bytes()) + " of " +
                                                  std::to_string(arena.range_bytes()) +
                                                  bytes_in_use(view) + "; nothing was put");
        }
        if (end != WaitEnd::Ready) return cancelled("putting was cancelled; nothing was put");
    }
    if (block) {
        const std::uint64_t granule = view.shape().arena.granule_bytes;
        next_granule = static_cast<std::uint32_t>(block->granule + (size + granule - 1) / granule);
    }
    if (block.code() == ErrorCode::System && !segment->check_place()) return segment->why_foreign();
    if (block.code() == ErrorCode::NoSpace) {
        return Status(ErrorCode::NoSpace,
                      std::string(block.status().message()) + segment->space_sentence());
    }
    return block;
}

// Where to look for a block. With little queued, the lowest memory is soon free again, and still in
// a cache; behind a long queue the search from there would meet only used blocks.
std::uint32_t QueueCore::first_granule() const noexcept {
    constexpr std::uint64_t kShallow = 64;  // tickets
    const std::uint64_t head_ticket = load_relaxed(view.head().ticket);
    return tail < head_ticket + kShallow ? 0 : next_granule;
}

void QueueCore::drop_block(std::uint64_t block) noexcept {
    if (segment->is_foreign()) return;
    arena.free(decode_block(block), self);
    store_relaxed(last_freed, os::coarse_ns());
    space.notify();
}

Status QueueCore::wait_room(std::uint64_t size, const Wait& wait) noexcept {
    if (!is_able_to_put(size)) return why_unable_to_put(size);
    if (size > view.shape().cell_bytes) {
        const Result<BlockId> block = allocate(size, wait);
        if (!block) return block.status();
        drop_block(encode_block(*block));
    }
    const WaitEnd end = wait_for(Side::Producer, space, put_spin, wait,
                                 [this] { return ring.has_room(tail) || is_ended(); });
    if (end == WaitEnd::Ready) return Status::ok();
    if (end == WaitEnd::Timeout) {
        return {ErrorCode::Timeout, "no free slot came: " + slots_in_use(view)};
    }
    return cancelled("waiting for room was cancelled");
}

// The Status of a wait that ended neither with success nor with a timeout.
Status QueueCore::cancelled(const char* sentence) const noexcept {
    if (segment->is_foreign()) return segment->why_foreign();
    return {ErrorCode::Cancelled, sentence};
}

// Not if this participant lost its slot: the request there may be another's by now.
void QueueCore::leave_line() noexcept {
    if (!segment->is_foreign()) line.leave();
}

Status QueueCore::wait_ready(std::uint64_t least, const Wait& wait) noexcept {
    if (segment->is_foreign()) return segment->why_foreign();
    const auto is_there = [&] {
        return least <= 1 ? ring.is_ready(head) || is_ended() : may_have(least);
    };
    line.arrive(least > 1);
    bool has_to_queue = !wait.deadline.is_try() && line.is_occupied();
    if (!has_to_queue) {
        const WaitEnd end = wait_for(Side::Consumer, data, take_spin, wait, [&] {
            has_to_queue = !wait.deadline.is_try() && line.may_be_occupied();
            return has_to_queue || is_there();
        });
        if (!has_to_queue) return explain_no_message(end, least);
    }
    const WaitEnd end = wait_turn(least, wait, is_there);
    leave_line();
    return explain_no_message(end, least);
}

// The Status of a wait for messages.
Status QueueCore::explain_no_message(WaitEnd end, std::uint64_t least) const noexcept {
    if (segment->is_foreign()) return segment->why_foreign();
    if (end == WaitEnd::Ready) return Status::ok();
    if (end == WaitEnd::Timeout && least > 1) {
        return {ErrorCode::Timeout, "there are no " + std::to_string(least) + " messages in " +
                                        quoted(segment->name()) +
                                        " for this request; nothing was taken"};
    }
    if (end == WaitEnd::Timeout) {
        return {ErrorCode::Timeout, "no message came from " + quoted(segment->name())};
    }
    return cancelled("waiting for a message was cancelled; nothing was taken");
}

inline SlotRing::Look QueueCore::try_take(std::uint64_t& index) noexcept {
    if (ring.may_have_returned() && ring.take_returned(index)) return SlotRing::Look::Got;
    return take_next(index);
}

inline SlotRing::Look QueueCore::take_next(std::uint64_t& index) noexcept {
    const SlotRing::Look look = ring.take(head, index);
    if (look == SlotRing::Look::Got) prefetch_after_take();
    return look;
}

// As in a reader of a Broadcast: a consumer as fast as its producer would take each slot's line
// away while the producer fills the next. Batches of one message are a conversation, where latency
// matters: no pause. If longer pauses do not bring longer batches, the producer is waiting for this
// consumer (a window of requests): so a short batch earns only a short pause. A pause must also end
// before a short queue is full.
void QueueCore::back_off_while_streaming() noexcept {
    constexpr std::int64_t kSure = 64 * kPauseUnit;  // short enough to pay with any batch
    constexpr std::int64_t kMax = 512 * kPauseUnit;
    constexpr std::int64_t kForMessage = 4 * kPauseUnit;
    const auto slots = static_cast<std::int64_t>(view.shape().slots);
    const std::int64_t most = std::clamp(slots / 8 * kPauseUnit, kSure, kMax);
    const std::uint64_t taken = load_relaxed(own().taken);
    const std::uint64_t batch = taken - std::exchange(last_empty, taken);
    if (batch <= 1) {
        streaming_pause = 0;
    } else if (batch < static_cast<std::uint64_t>(most / kPauseUnit)) {
        // a longer batch needs no longer pause
        const std::int64_t earned =
            std::clamp(kForMessage * static_cast<std::int64_t>(batch), kSure, most);
        streaming_pause = std::min(streaming_pause * 2 + kPauseUnit, earned);
    }
    os::spin_for(streaming_pause);
}

Status QueueCore::take_or_wait(std::uint64_t& index, const Wait& wait) noexcept {
    if (segment->is_foreign()) return segment->why_foreign();
    const bool may_wait = !wait.deadline.is_try();
    SlotRing::Look look = SlotRing::Look::Nothing;
    bool has_to_queue = may_wait && line.may_be_occupied() && line.is_occupied();
    if (!has_to_queue) [[likely]] {
        look = try_take(index);
        if (look == SlotRing::Look::Nothing && may_wait) {
            back_off_while_streaming();
            look = try_take(index);
        }
    }
    bool has_ended = false;
    if (look == SlotRing::Look::Nothing) {
        line.arrive(false);
        WaitEnd end = WaitEnd::Ready;
        if (!has_to_queue) {
            end = wait_for(Side::Consumer, data, take_spin, wait, [&] {
                // Requests that come from here on go after this one, and must be able to see it.
                has_to_queue = may_wait && line.may_be_occupied();
                if (has_to_queue) return true;
                has_ended = has_ended_before_look();
                look = try_take(index);
                return look != SlotRing::Look::Nothing || has_ended;
            });
        }
        if (has_to_queue) end = take_in_turn(look, index, has_ended, wait);
        if (end != WaitEnd::Ready) return explain_no_message(end);
    }
    // the stream has ended, but the dead may have held messages
    if (look == SlotRing::Look::Nothing) {
        reap_and_wait();
        look = try_take(index);
    }
    if (look == SlotRing::Look::Damaged) return damaged(*segment);
    if (look == SlotRing::Look::Nothing) {
        return everything_was_taken();
    }
    note_taken(index);
    return Status::ok();
}

Status QueueCore::everything_was_taken() const noexcept {
    return {ErrorCode::Closed, quoted(segment->name()) + " has ended and everything was taken" +
                                   dead_letters_left(view)};
}

WaitEnd QueueCore::take_in_turn(SlotRing::Look& look, std::uint64_t& index, bool& has_ended,
                                const Wait& wait) noexcept {
    look = SlotRing::Look::Nothing;
    WaitEnd end = WaitEnd::Ready;
    while (end == WaitEnd::Ready && look == SlotRing::Look::Nothing && !has_ended) {
        end = wait_turn(1, wait, [this] { return ring.is_ready(head) || is_ended(); });
        if (end != WaitEnd::Ready) break;
        has_ended = has_ended_before_look();
        look = try_take(index);
        if (look == SlotRing::Look::Nothing && !has_ended) {
            end = closing.is_cancelled() ? WaitEnd::Cancelled : end_of_wait(wait);
        }
    }
    leave_line();
    if (end != WaitEnd::Timeout) return end;
    // A wait yields no less than a try: the last look ignores the line.
    look = try_take(index);
    return look == SlotRing::Look::Nothing ? end : WaitEnd::Ready;
}

SlotRing::Look QueueCore::take_now(std::uint64_t& index) noexcept {
    const SlotRing::Look look = try_take(index);
    if (look != SlotRing::Look::Got) return look;
    note_taken(index);
    return still_has(index) ? look : SlotRing::Look::Nothing;
}

std::size_t QueueCore::take_run(std::span<std::uint64_t> indices) noexcept {
    const std::uint64_t before = head;
    std::size_t count = 0;
    bool opens_a_way = false;
    for (; count < indices.size() && !ring.may_have_returned(); ++count) {
        if (take_next(indices[count]) != SlotRing::Look::Got) break;
        opens_a_way = ring.opens_a_way(indices[count]) || opens_a_way;
        if (!still_has(indices[count])) break;
    }
    if (opens_a_way) space.notify();
    if (count == 0) return 0;
    add_as_sole_writer(own().taken, count);
    if (head / kLookClockEvery != before / kLookClockEvery) look_around(os::coarse_ns());
    return count;
}

// A janitor that found this participant dead and has passed this slot already would not return it.
bool QueueCore::take_none(std::uint64_t index) noexcept {
    ring.untake(index);
    data.notify();
    return false;
}

bool QueueCore::has_ended_before_look() const noexcept {
    const bool has_ended = is_ended();
    // pairs with: the claim before the load in attempt_put(), both sequentially consistent
    if (has_ended) os::full_fence();
    return has_ended;
}

void QueueCore::acknowledge_at_once(std::uint64_t index) noexcept {
    add_as_sole_writer(own().got, 1);
    finish(index);
}

void QueueCore::acknowledge(std::uint64_t index) noexcept {
    if (segment->is_foreign()) return;
    fetch_add_relaxed(own().acknowledged, 1);
    finish(index);
}

void QueueCore::finish(std::uint64_t index) noexcept {
    const bool has_block = load_relaxed(view.slot(index).block) != 0;
    ring.acknowledge(index, arena);
    if (has_block) store_relaxed(last_freed, os::coarse_ns());
    space.notify();
}

void QueueCore::settle(std::uint64_t index) noexcept {
    if (segment->is_foreign()) return;
    ring.settle(index);
    fetch_add_relaxed(own().acknowledged, 1);
}

void QueueCore::free(std::uint64_t index) noexcept {
    if (segment->is_foreign()) return;
    const bool has_block = load_relaxed(view.slot(index).block) != 0;
    ring.free(index, arena);
    if (has_block) store_relaxed(last_freed, os::coarse_ns());
    space.notify();
}

void QueueCore::untake(std::uint64_t index) noexcept {
    if (segment->is_foreign()) return;
    ring.untake(index);
    data.notify();
}

void QueueCore::nack(std::uint64_t index) noexcept {
    if (segment->is_foreign()) return;
    ring.nack(index);
    fetch_add_relaxed(own().nacked, 1);
    data.notify();
}

// A death is no error for a Queue's participants: the dead one's messages are redelivered.
bool QueueCore::reap() noexcept {
    const std::lock_guard lock(janitor);
    store_relaxed(looked_at, os::coarse_ns());
    if (!segment->check_place()) return false;
    return membership.reap_all([this](unsigned dead) { take_over(dead); }) != 0;
}

// Before a call reports that nothing is left: a janitor may have messages of the dead in its hands.
void QueueCore::reap_and_wait() noexcept {
    const std::lock_guard lock(janitor);
    if (!segment->check_place()) return;
    membership.reap_all_and_wait([this](unsigned dead) { take_over(dead); });
}

// Gives what that participant holds back to the queue, and notifies waiters before the slot is
// retired: if this process dies here, the next janitor notifies them again. The caller has the
// slot's lock. Repeatable.
void QueueCore::take_over(unsigned participant) noexcept {
    store_seq_cst(view.participant(participant).role, 0);  // first: see end_on_leaving()
    line.clear(participant);
    ring.clear(participant, arena);
    PENSTOCK_CRASH_POINT("queue.janitor.cleared");
    arena.reap(participant);
    PENSTOCK_CRASH_POINT("queue.janitor.reaped");
    data.notify();
    space.notify();
}

void QueueCore::trim_when_idle() noexcept {
    const std::int64_t last = load_relaxed(last_freed);
    if (last == 0 || os::coarse_ns() - last < kIdleBeforeTrim) return;
    store_relaxed(last_freed, 0);
    if (view.shape().is_reserved) return;
    arena.trim(self, 0);
    space.notify();  // an allocator may have found granules taken that were being trimmed
}

bool QueueCore::is_ended() const noexcept {
    return load_seq_cst(view.state().closed) != 0;
}

void QueueCore::end() noexcept {
    if (segment->is_foreign()) return;
    // pairs with: the load in attempt_put()
    store_seq_cst(view.state().closed, 1);
    PENSTOCK_CRASH_POINT("queue.end.marked");
    os::full_fence();  // orders the store before the look at the waiters
    data.wake();
    space.wake();
}

bool QueueCore::reopen() noexcept {
    if (segment->is_foreign() || !is_ended()) return false;
    is_creator = true;
    store_seq_cst(view.state().closed, 0);  // one word, so there is no state in between
    return true;
}

// Ends the stream if the rules say so. Gives up the role before it looks at the others': of two
// producers that leave at once, at least one sees no other.
void QueueCore::end_on_leaving() noexcept {
    if (!segment->check_place()) return;
    reap();
    line.clear(self);
    const bool was_producer = is_producer;
    store_seq_cst(own().role, 0);
    PENSTOCK_CRASH_POINT("queue.close.resigned");
    if (view.shape().ends_with == EndsWith::Creator) {
        if (is_creator) end();
        return;
    }
    if (!was_producer) return;
    for (unsigned slot = 0; slot < view.shape().participants; ++slot) {
        // A dead producer whose janitor has not cleared its role yet does not count.
        const bool is_producer_there = load_seq_cst(view.participant(slot).role) != 0;
        if (is_producer_there && !segment->participants().has_janitor(slot)) return;
    }
    end();
}

}  // namespace penstock::detail

// One participant of a Queue: its slot, its producing and consuming sides, and what they share.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <span>

#include "queue/line.hpp"
#include "queue/slot_ring.hpp"
#include "segment/life/attachment.hpp"
#include "segment/life/membership.hpp"
#include "segment/waiting/signal.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {

// For layers above: the core of a handle, and the handle of a core.
struct QueueAccess {
    static const std::shared_ptr<QueueCore>& core(const Queue& queue) noexcept {
        return queue.core_;
    }
    static Queue handle(std::shared_ptr<QueueCore> core) { return Queue(std::move(core)); }
    // Takes the message that waited in this slot when its word was `seen`. Timeout: another
    // consumer has taken it. Corrupt: it contradicts itself, and is a dead letter now.
    static Result<Delivery> take_seen(const std::shared_ptr<QueueCore>& core, std::uint64_t index,
                                      std::uint64_t seen) noexcept;
};

// Slots prefetched ahead of the current one. A locked instruction lets no later load begin, so
// without this every message would wait for its cache lines.
inline constexpr unsigned kAhead = 8;

// Takes between two readings of the clock, which is cheap but not free.
inline constexpr std::uint64_t kLookClockEvery = 16;

// The Status for slots whose words are impossible.
Status damaged(const Segment& segment) noexcept;

// Shared by the handle, its deliveries and its loans; leaves the segment when the last of them is
// gone. The producing side belongs to one thread at a time, the consuming side to another; any
// thread may call settle(), free(), nack() and untake().
struct QueueCore final : Attachment {
    // Slot 0 of a fresh segment, claimed before the segment is published. `prepare` may fill the
    // application's bytes, before the publication too.
    using Prepare = std::function<void(const QueueView&)>;
    static std::shared_ptr<QueueCore> create(const std::string& name, const QueueOptions& options,
                                             const Prepare& prepare = {});
    // Joins in a free slot of an existing segment. Throws Busy; Incompatible for another
    // application's.
    static std::shared_ptr<QueueCore> attach(std::unique_ptr<Segment> segment, QueueRole role,
                                             std::uint64_t application);

    QueueCore(std::unique_ptr<Segment> joined, QueueRole role);
    QueueCore(const QueueCore&) = delete;
    QueueCore& operator=(const QueueCore&) = delete;
    ~QueueCore();

    void end_stream() noexcept override { end(); }
    [[nodiscard]] bool is_stream_over() const noexcept override { return is_ended(); }
    [[nodiscard]] bool feeds() const noexcept override { return load_seq_cst(own().role) != 0; }
    void depart() noexcept override;

    void join();
    // Makes the parts that know this participant's slot.
    void take_slot(unsigned slot) noexcept;
    [[nodiscard]] bool is_drained() const noexcept;

    // A message to put, with its bytes unless they are in a block already.
    struct Message {
        std::span<const std::byte> bytes;
        std::uint64_t block = 0;  // encode_block(), 0: copy `bytes` into the cell
        Format format = Format::Bytes;
        std::uint64_t tag = 0;
        std::uint64_t order = 0;
    };
    // The contents of a slot that this participant owns.
    struct Content {
        std::span<const std::byte> bytes;
        layout::MessageDescription description;
        bool is_sound = false;
    };

    // Producing.
    [[nodiscard]] Status why_unable_to_put(std::uint64_t size) const noexcept;
    [[nodiscard]] bool is_able_to_put(std::uint64_t size) const noexcept;
    Status put(const Message& message, const Wait& wait, bool notifies) noexcept;
    Status put_bytes(const Message& message, const Wait& wait, bool notifies) noexcept;
    // Puts messages that fit into cells, one by one and without waiting; returns how many. 0: the
    // first one needs put_bytes(), which waits, allocates, or says what is wrong.
    using Messages = std::span<const std::span<const std::byte>>;
    std::size_t put_run(Messages messages, Format format) noexcept;
    // Puts a message that fits into a cell, without waiting. False: as above.
    bool put_at_once(const Message& message) noexcept;
    bool try_put(const Message& message, Status& failure) noexcept;
    enum class Attempt : std::uint8_t { Accepted, Full, Overtaken, Ended, Foreign, Damaged };
    Attempt attempt_put(const Message& message, std::int64_t now) noexcept;
    void fill(std::uint64_t ticket, const Message& message, std::int64_t now) noexcept;
    void note_accepted(std::uint64_t messages, std::uint64_t bytes, std::int64_t now) noexcept;
    Result<BlockId> allocate(std::uint64_t size, const Wait& wait) noexcept;
    [[nodiscard]] std::uint32_t first_granule() const noexcept;
    void drop_block(std::uint64_t block) noexcept;
    Status wait_room(std::uint64_t size, const Wait& wait) noexcept;
    void become_producer() noexcept;

    // Consuming.
    Status take(std::uint64_t& index, const Wait& wait) noexcept {
        if (take_at_once(index)) [[likely]]
            return Status::ok();
        return take_or_wait(index, wait);
    }
    Status take_or_wait(std::uint64_t& index, const Wait& wait) noexcept;
    // Takes the next message if there is one, regardless of the line.
    SlotRing::Look take_now(std::uint64_t& index) noexcept;
    // Takes the next message in order if it is there, and neither a request nor a returned message
    // goes first: the likely case of take().
    bool take_at_once(std::uint64_t& index) noexcept;
    void prefetch_after_take() const noexcept;
    // Takes messages that are there, until one of them is not the next in order; returns how many.
    // Each is a first delivery.
    std::size_t take_run(std::span<std::uint64_t> indices) noexcept;
    // Whether the message is still this participant's, after a take and after a copy. False:
    // another process found this participant dead, and the message is back in the queue.
    [[nodiscard]] bool still_has(std::uint64_t index) noexcept {
        if (!segment->is_found_dead_after_reading()) [[likely]]
            return true;
        return take_none(index);
    }
    bool take_none(std::uint64_t index) noexcept;
    void note_taken(std::uint64_t index) noexcept;
    SlotRing::Look try_take(std::uint64_t& index) noexcept;
    SlotRing::Look take_next(std::uint64_t& index) noexcept;
    void back_off_while_streaming() noexcept;
    // The part of take() that waits in the line. The request has arrived.
    WaitEnd take_in_turn(SlotRing::Look& look, std::uint64_t& index, bool& has_ended,
                         const Wait& wait) noexcept;
    // Joins the line for that many, and waits until the request is first and `may` says that a try
    // is worth it: Ready. Stays in the line whatever the result; the caller leaves it.
    template <typename May>
    WaitEnd wait_turn(std::uint64_t wanted, const Wait& wait, May&& may) noexcept;
    // Whether the stream has ended. A look that follows finds everything that was accepted before
    // the end.
    [[nodiscard]] bool has_ended_before_look() const noexcept;
    // Whether a request for that many is worth a try: they are there, or no more will come.
    [[nodiscard]] bool may_have(std::uint64_t least) noexcept {
        return ring.has(head, least) || is_ended();
    }
    Status wait_ready(std::uint64_t least, const Wait& wait) noexcept;
    [[nodiscard]] Status explain_no_message(WaitEnd end, std::uint64_t least = 1) const noexcept;
    [[nodiscard]] Status everything_was_taken() const noexcept;
    [[nodiscard]] Status cancelled(const char* sentence) const noexcept;
    void leave_line() noexcept;
    [[nodiscard]] Content content(std::uint64_t index) const noexcept;
    // For the thread that took it, in the same call.
    void acknowledge_at_once(std::uint64_t index) noexcept;
    void acknowledge(std::uint64_t index) noexcept;
    void finish(std::uint64_t index) noexcept;
    void settle(std::uint64_t index) noexcept;
    void free(std::uint64_t index) noexcept;
    void nack(std::uint64_t index) noexcept;
    void untake(std::uint64_t index) noexcept;
    // Without a delivery limit the note is not needed, and takes cost less.
    void note_alone(std::uint64_t index) noexcept {
        if (view.shape().max_deliveries != 0) [[unlikely]]
            ring.note_alone(index);
    }

    // A waiting consumer whose request is in the line also tends it, every kSlice; other consumers
    // are notified of each message. A producer is not notified of every change: not of a slot that
    // an overtaken producer gave up, for example.
    enum class Side : std::uint8_t { Producer, Consumer, InLine };
    // Short on both sides while memory is to be trimmed soon.
    [[nodiscard]] Slices slices_of(Side side) const noexcept {
        if (side == Side::InLine || load_relaxed(last_freed) != 0) return Slices::Short;
        return side == Side::Consumer ? Slices::Long : Slices::Growing;
    }
    template <typename Ready>
    WaitEnd wait_for(Side side, Signal signal, SpinBudget& spin, const Wait& wait,
                     Ready&& ready) noexcept;
    // Reaps dead participants. False: none was found dead.
    bool reap() noexcept;
    // The same, and waits for janitors at work: see Membership.
    void reap_and_wait() noexcept;
    // Calls reap() every kSlice at most: in a queue that is never empty no wait would call it.
    void look_around(std::int64_t now) noexcept {
        if (now - load_relaxed(looked_at) > kLookEvery) [[unlikely]]
            reap();
    }
    void take_over(unsigned participant) noexcept;
    void vacate() noexcept;
    void trim_when_idle() noexcept;
    void end() noexcept;
    bool reopen() noexcept;
    void end_on_leaving() noexcept;
    [[nodiscard]] bool is_ended() const noexcept;
    [[nodiscard]] std::byte* cell(std::uint64_t index) const noexcept {
        return segment->payload() + index * view.shape().cell_bytes;
    }
    [[nodiscard]] const std::byte* cell_to_read(std::uint64_t index) const noexcept {
        return segment->views() + index * view.shape().cell_bytes;
    }
    [[nodiscard]] layout::QueueParticipant& own() const noexcept { return view.participant(self); }

    std::unique_ptr<Segment> segment;
    QueueView view;
    Arena arena;
    SlotRing ring;
    Signal data;
    Signal space;
    Signal turn;
    unsigned self = 0;
    QueueRole role;
    Membership membership;
    bool is_creator = false;
    std::uint64_t longest = 0;  // longest message put so far

    // The producing side.
    alignas(layout::kApart) std::uint64_t tail = 0;
    SpinBudget put_spin;
    std::uint32_t next_granule = 0;  // end of the last block
    bool is_producer = false;

    // The consuming side.
    alignas(layout::kApart) std::uint64_t head = 0;
    WaitingLine line;
    SpinBudget take_spin;
    SpinBudget turn_spin;
    std::uint64_t last_empty = 0;                   // own().taken when the queue was last empty
    static constexpr std::int64_t kPauseUnit = 40;  // ns, shortest pause in a stream
    std::int64_t streaming_pause = 0;               // ns

    alignas(layout::kApart) std::atomic<std::int64_t> last_freed{0};  // a block; 0: nothing to trim
    static constexpr std::int64_t kLookEvery = std::chrono::nanoseconds(kSlice).count();
    std::atomic<std::int64_t> looked_at{0};
    std::mutex janitor;  // one thread at a time may join, leave or reap
    Cancel closing;
};

inline void QueueCore::become_producer() noexcept {
    if (is_producer) return;
    is_producer = true;
    store_seq_cst(own().role, 1);
}

inline bool QueueCore::is_able_to_put(std::uint64_t size) const noexcept {
    return !segment->is_foreign() && role != QueueRole::Consumer && size <= longest &&
           load_acquire(view.state().closed) == 0;
}

inline void QueueCore::prefetch_after_take() const noexcept {
    os::prefetch_for_write(&view.slot(ring.index_after(head, kAhead - 1)));
    __builtin_prefetch(cell_to_read(ring.index_after(head, kAhead - 1)));
}

inline void QueueCore::note_taken(std::uint64_t index) noexcept {
    add_as_sole_writer(own().taken, 1);
    if (ring.opens_a_way(index)) space.notify();
    if (head % kLookClockEvery == 0) look_around(os::coarse_ns());
}

inline bool QueueCore::take_at_once(std::uint64_t& index) noexcept {
    if (segment->is_foreign()) return false;  // first: a forked child has no mapping
    const bool is_next = !line.may_be_occupied() && !ring.may_have_returned();
    if (!is_next || !ring.take_at(head, index)) return false;
    prefetch_after_take();
    note_taken(index);
    return true;
}

inline QueueCore::Content QueueCore::content(std::uint64_t index) const noexcept {
    const layout::QueueSlot& slot = view.slot(index);
    Content found;
    found.description = layout::decode_description(load_relaxed(slot.description));
    const std::uint64_t length = found.description.length;
    const std::uint64_t named = load_relaxed(slot.block);
    if (named == 0) {
        found.is_sound = length <= view.shape().cell_bytes;
        if (found.is_sound) found.bytes = {cell_to_read(index), length};
        return found;
    }
    const BlockId block = decode_block(named);
    found.is_sound = arena.is_valid(block, length);
    if (found.is_sound) found.bytes = {segment->view_of(arena.data(block)), length};
    return found;
}

template <typename Ready>
WaitEnd QueueCore::wait_for(Side side, Signal signal, SpinBudget& spin, const Wait& wait,
                            Ready&& ready) noexcept {
    fetch_add_relaxed(own().waits, 1);
    std::uint64_t sleeps = 0;
    Peers peers = segment->participants().peers(0, view.shape().participants, closing);
    const auto look = [this, side, &peers] {
        reap();
        if (segment->is_foreign()) return true;
        if (side == Side::InLine) line.tend();
        trim_when_idle();
        peers.slices = slices_of(side);
        return closing.is_cancelled();
    };
    const WaitEnd end = wait_until(signal, spin, wait, sleeps, ready, look, peers);
    if (segment->is_foreign()) return end;
    fetch_add_relaxed(own().sleeps, sleeps);
    if (end == WaitEnd::Ready) return end;
    // What a reap gave back is there only since the last look.
    return closing.is_cancelled() || !ready() ? end : WaitEnd::Ready;
}

template <typename May>
WaitEnd QueueCore::wait_turn(std::uint64_t wanted, const Wait& wait, May&& may) noexcept {
    line.join(wanted);
    for (;;) {
        WaitEnd end = WaitEnd::Ready;
        if (!line.is_first()) {
            end = wait_for(Side::InLine, turn, turn_spin, wait, [this] { return line.is_first(); });
        }
        if (end != WaitEnd::Ready) return end;
        bool is_first = true;
        const auto is_served = [&] {
            if (!may()) return false;
            is_first = line.is_first();
            return true;
        };
        end = wait_for(Side::InLine, data, take_spin, wait, is_served);
        if (end != WaitEnd::Ready || is_first) return end;
        end = closing.is_cancelled() ? WaitEnd::Cancelled : end_of_wait(wait);
        if (end != WaitEnd::Ready) return end;
    }
}

}  // namespace penstock::detail

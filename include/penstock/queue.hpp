// Many producers, many consumers: each message goes to one consumer, and to another if that one
// dies before it has acknowledged it.
//
// One thread may put while another thread takes on the same handle. Accepted means queued: a
// message is delivered even if its producer dies. Messages of one producer come in the order in
// which it put them; a message that was nacked, or held by a consumer that died, is redelivered
// before all that was not delivered yet.
//
// The stream ends with its creator's close(), or with end() by any participant; it stays open when
// all producers have left. The death of the creator does not end it: attach() and end() then.
//
// With `max_deliveries` a message that was delivered so often without an acknowledgement becomes a
// dead letter. It keeps its slot and its bytes until it is requeued or dropped. Its last delivery
// is always of this message alone: a message that reached the limit in a batch is delivered once
// more by itself, so that other messages of the batch are not blamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "penstock/error.hpp"
#include "penstock/format.hpp"
#include "penstock/segment.hpp"
#include "penstock/statistics.hpp"
#include "penstock/wait.hpp"

namespace penstock {

namespace detail {
struct QueueCore;
struct QueueAccess;
}  // namespace detail

// The close(), or ordinary exit, that ends the stream. A death by a signal never does; end()
// always.
enum class EndsWith : std::uint8_t {
    Creator,       // the creator's, even while others are attached
    LastProducer,  // the last living producer's; the creator counts as one from its first put on
};

struct QueueOptions {
    // Bytes for messages larger than `inline_bytes`, rounded up to pages. Address range: memory is
    // reserved when messages first need it, and given back when the queue has been idle; with
    // memory.populate, lock_memory or huge_pages all of it is reserved at creation and stays.
    std::uint64_t capacity = std::uint64_t{64} << 20U;
    unsigned slots = 4096;        // messages at most, queued and taken; rounded up to 2^n
    unsigned inline_bytes = 256;  // of a message that needs no block; rounded up to 64
    unsigned participants = 64;   // participants at most
    unsigned max_deliveries = 0;  // without ack before it is a dead letter; 0: no limit; at most 62
    EndsWith ends_with = EndsWith::Creator;
    WaitPolicy waiting = WaitPolicy::Balanced;
    // For a layer above with a queue of its own kind: eight letters that attach() must name too,
    // and the size of its own part of shared memory, which is zero at first.
    std::uint64_t application = 0;
    std::uint64_t application_bytes = 0;
    MemoryOptions memory = {};
    // A second user, besides this process's own, whose abandoned segment of that name may be
    // replaced.
    std::optional<std::uint32_t> replaces_owner = std::nullopt;
};

// Of a whole queue since its creation, and how it stands now.
#define PENSTOCK_QUEUE_STATISTICS(X)                                                           \
    X(std::uint64_t, accepted, Counter, "Messages put, by all producers.")                     \
    X(std::uint64_t, accepted_bytes, CountedBytes, "Bytes of the messages that were put.")     \
    X(std::uint64_t, taken, Counter, "Deliveries; a redelivered message counts again.")        \
    X(std::uint64_t, acknowledged, Counter, "Messages that were acknowledged.")                \
    X(std::uint64_t, nacked, Counter,                                                          \
      "Messages returned by nack(), or by an exception in a block.")                           \
    X(std::uint64_t, dropped, Counter,                                                         \
      "Messages dropped, by discard() and drop_dead_letters() only.")                          \
    X(std::uint64_t, queued, Gauge, "Messages that wait now, redelivered ones included.")      \
    X(std::uint64_t, in_flight, Gauge, "Messages taken and not acknowledged now.")             \
    X(std::uint64_t, dead_letters, Gauge, "Dead letters now.")                                 \
    X(std::uint64_t, queued_bytes, Bytes, "Of the messages that wait now.")                    \
    X(double, oldest, Seconds, "Time that the oldest queued message has waited.")              \
    X(std::uint64_t, slots, Gauge, "Messages at most: queued, in flight or dead letters.")     \
    X(std::uint64_t, capacity, Bytes, "Room for messages that are not stored in their slots.") \
    X(std::uint64_t, held_bytes, Bytes, "Of the capacity, in blocks.")                         \
    X(std::uint64_t, requests, Gauge,                                                          \
      "In line now: for several messages, or behind such a request.")                          \
    X(std::uint64_t, requested, Gauge,                                                         \
      "Messages that they want together; of trajectories, sequences.")                         \
    X(std::uint64_t, waits, Counter, "Calls that found no message, or no room, at once.")      \
    X(std::uint64_t, sleeps, Counter, "Sleeps of participants in the kernel.")                 \
    X(bool, closed, Gauge, "The stream has ended.")
PENSTOCK_STATISTICS(QueueStats, SegmentStats, PENSTOCK_QUEUE_STATISTICS);

// A dead letter, as it was when it was listed.
struct DeadLetter {
    std::uint64_t sequence = 0;  // position in the queue's order; identifies it in requeue and drop
    unsigned producer = 0;       // participant slot
    unsigned deliveries = 0;     // without an acknowledgement
    std::uint64_t nbytes = 0;
    Format format = Format::Bytes;
    double age = 0;  // seconds since it was accepted
};

// A message that was taken and is not acknowledged yet. Its bytes stay valid until ack() or nack(),
// which any thread may call; destruction without either nacks it. May outlive the Queue handle.
class Delivery {
public:
    Delivery(Delivery&& other) noexcept;
    Delivery& operator=(Delivery&& other) noexcept;
    ~Delivery();

    // Read-only memory, 64-byte aligned: writing to it faults.
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
    [[nodiscard]] Format format() const noexcept { return format_; }
    // Position in the queue's order: unique, and increasing for each producer.
    [[nodiscard]] std::uint64_t sequence() const noexcept { return sequence_; }
    [[nodiscard]] unsigned producer() const noexcept { return producer_; }  // participant slot
    // How often it was delivered, this time included; stays at 63.
    [[nodiscard]] unsigned deliveries() const noexcept { return deliveries_; }
    [[nodiscard]] bool is_redelivered() const noexcept { return deliveries_ > 1; }

    // Ok: everything read from bytes() so far is what was sent. WrongProcess: this participant lost
    // its slot (the process closed its descriptor), and the memory may have been reused.
    [[nodiscard]] Status check_held() const noexcept;
    void ack() noexcept;   // acknowledges the message; its memory is freed
    void nack() noexcept;  // returns the message: it will be redelivered
    // Acknowledges the message but keeps its bytes until this object is destroyed.
    void settle() noexcept;
    // Returns the message without counting this delivery: for a consumer that finds a message meant
    // for another.
    void untake() noexcept;
    // Makes the message a dead letter because its contents contradict themselves.
    void dead_letter() noexcept;
    // Returns a message that this consumer cannot decode. With a delivery limit this counts as a
    // failed delivery of this message alone; without a limit it is an untake(), because refusals
    // would never end.
    void refuse() noexcept;
    // Records that this message is the whole batch about to be handed out: see
    // Queue::take_for_batch().
    void note_alone() noexcept;
    // Whether the message reached the delivery limit within batches, and must now be delivered
    // alone.
    [[nodiscard]] bool must_come_alone() const noexcept;

    // For the library.
    Delivery(std::shared_ptr<detail::QueueCore> core, std::uint64_t index,
             std::span<const std::byte> bytes, std::uint64_t sequence, unsigned producer,
             unsigned deliveries, Format format) noexcept
        : core_(std::move(core)), index_(index), bytes_(bytes), sequence_(sequence),
          producer_(producer), deliveries_(deliveries), format_(format) {}

private:
    void release() noexcept;
    std::shared_ptr<detail::QueueCore> core_;
    std::uint64_t index_;
    std::span<const std::byte> bytes_;
    std::uint64_t sequence_;
    unsigned producer_;
    unsigned deliveries_;
    Format format_;
    bool settled_ = false;
};

// Memory for a message that is built in place. Destruction without commit discards it. A loan
// blocks no other participant, but its bytes count against the capacity.
class QueueLoan {
public:
    QueueLoan(QueueLoan&& other) noexcept;
    QueueLoan& operator=(QueueLoan&& other) noexcept;
    ~QueueLoan();

    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
    // True until it is committed, dropped or moved from; after that there is no memory to write to.
    [[nodiscard]] bool is_open() const noexcept { return core_ != nullptr; }
    // Queues the message. Timeout, Cancelled: the loan stays open, and may be committed again.
    // Closed: the loan is gone. `tag` and `order` are for the application.
    Status commit(Format format = Format::Bytes, const Wait& wait = {}, std::uint64_t tag = 0,
                  std::uint64_t order = 0) noexcept;

    // For the library.
    QueueLoan(std::shared_ptr<detail::QueueCore> core, std::uint64_t block,
              std::span<std::byte> bytes) noexcept
        : core_(std::move(core)), block_(block), bytes_(bytes) {}

private:
    void drop() noexcept;
    std::shared_ptr<detail::QueueCore> core_;
    std::uint64_t block_;
    std::span<std::byte> bytes_;
};

enum class QueueRole : std::uint8_t {
    Any,       // becomes a producer with its first put
    Producer,  // a producer from its attachment on: see EndsWith::LastProducer
    Consumer,  // maps messages read-only; put() is InvalidArgument
};

class Queue {
public:
    // Throws InvalidName, InvalidArgument, AlreadyExists (a living process has the name, or it
    // holds objects of a persistent store), NoSpace, PermissionDenied. A queue of that name whose
    // participants have all died or left is replaced and its messages are lost: replaced() says how
    // many. attach() keeps them.
    static Queue create(const std::string& name, const QueueOptions& options = {});
    // Throws NotFound, Busy (no free slot for a participant), Incompatible, Corrupt,
    // PermissionDenied. Waits for the segment to appear until `wait` ends. Messages that dead
    // participants held are available at once. Incompatible also for a queue of another
    // `application`; PermissionDenied comes at once, for a queue of a user that is neither this
    // process's own nor named by `trust`.
    static Queue attach(const std::string& name, QueueRole role = QueueRole::Any,
                        const Wait& wait = Deadline::now(), const std::string& instance = {},
                        std::uint64_t application = 0, const Trust& trust = {});

    Queue(Queue&& other) noexcept;
    Queue& operator=(Queue&& other) noexcept;
    ~Queue();

    // Copies the message into the queue. Timeout (full), Closed, Cancelled, TooLarge, NoSpace: not
    // accepted. `tag` is for the application.
    Status put(std::span<const std::byte> message, const Wait& wait = {},
               Format format = Format::Bytes, std::uint64_t tag = 0) noexcept;
    // Puts messages in order until `wait` ends, and returns how many were accepted. 0 only as a
    // failure.
    Result<std::size_t> put_many(std::span<const std::span<const std::byte>> messages,
                                 const Wait& wait = {}, Format format = Format::Bytes) noexcept;
    Result<QueueLoan> loan(std::size_t size, const Wait& wait = {}) noexcept;

    // Takes the next message. Timeout, Cancelled, Closed (ended and nothing is left), Corrupt.
    Result<Delivery> take(const Wait& wait = {}) noexcept;
    // As take(), for callers that collect a batch: a failed delivery is not counted as one of this
    // message alone. The caller calls note_alone() before it hands out a batch of one, and makes a
    // batch of one of a message that must_come_alone().
    Result<Delivery> take_for_batch(const Wait& wait = {}) noexcept;
    // Takes `least` to `most` messages, all or none: waits until `least` are there and holds none
    // of them meanwhile. Appends to `deliveries`. Requests of several consumers are served whole,
    // in the order in which they came; only a try (Deadline::now()) for a single message may
    // overtake them. A message that must come alone ends the batch before it and is a batch by
    // itself, whatever `least` is. The last batch before the end of the stream may also be smaller.
    // Timeout, Cancelled: nothing was taken, and the order is unchanged. Closed (ended and nothing
    // is left), Corrupt. InvalidArgument: `least` exceeds `most` or the number of slots.
    Status take_many(std::vector<Delivery>& deliveries, std::size_t most, const Wait& wait = {},
                     std::size_t least = 1) noexcept;
    // Takes a message, copies it and acknowledges it; returns the size. TooLarge: the message
    // stays.
    Result<std::size_t> get(std::span<std::byte> buffer, const Wait& wait = {}) noexcept;

    // Whether `least` messages beyond those that waiting requests want, or a free slot, seem to be
    // there. Makes no system call: for callers that must not enter a wait needlessly. To be called
    // by the consuming, or the producing, thread.
    [[nodiscard]] bool is_ready(std::size_t least = 1) const noexcept;
    [[nodiscard]] bool has_room() const noexcept;

    // Waits until is_ready(), or until the stream has ended, and takes nothing. Leaves the line of
    // requests when it returns.
    Status wait_ready(const Wait& wait, std::size_t least = 1) noexcept;
    // Waits until a message of that size would probably find room; puts nothing.
    Status wait_room(std::size_t size, const Wait& wait) noexcept;

    [[nodiscard]] std::uint64_t queued() const;  // messages that wait now. Any thread.
    [[nodiscard]] QueueStats stats() const;      // Any thread.

    // The dead letters, oldest first, at most `limit`. Never waits and locks nothing: a dead letter
    // that is requeued or dropped meanwhile may be missing. Any thread, as the next five. Closed.
    [[nodiscard]] Result<std::vector<DeadLetter>> dead_letters(std::size_t limit = 100) const;
    // A copy of the dead letter's bytes; the dead letter stays. NotFound: no dead letter has this
    // sequence (any more). Corrupt: it contradicts itself, so nothing can be read. Closed.
    [[nodiscard]] Result<std::vector<std::byte>> copy_dead_letter(std::uint64_t sequence) const;
    // Requeues dead letters at their old position, deliveries counted from 0; returns how many. All
    // of them, or those of `sequences` that are dead letters. Of two concurrent calls one requeues
    // a given message. Works after the end of the stream too. Closed: this handle is closed.
    Result<std::uint64_t> requeue_dead_letters() noexcept;
    Result<std::uint64_t> requeue_dead_letters(std::span<const std::uint64_t> sequences) noexcept;
    // Drops dead letters, likewise: their slots and bytes become free.
    Result<std::uint64_t> drop_dead_letters() noexcept;
    Result<std::uint64_t> drop_dead_letters(std::span<const std::uint64_t> sequences) noexcept;

    // Leaves. If `ends_with` names this handle the stream ends: consumers drain it, then get
    // Closed. The last participant removes the name if the queue is empty; a queue with messages or
    // dead letters stays, to be attached to or collected.
    void close() noexcept;
    // Ends the stream without leaving: nothing more is accepted. Any participant may call.
    void end() noexcept;
    // Reopens a stream that has ended: messages are accepted again, also from participants that are
    // still attached, and this participant's close() now ends it as the creator's would. For the
    // successor of a creator that has left. Calls that already returned Closed are not undone.
    // False: the stream had not ended.
    bool reopen() noexcept;
    // Ends the stream and drops queued messages and dead letters, so that the last participant
    // leaves nothing behind. Messages that consumers have taken stay theirs. Returns how many were
    // dropped.
    std::uint64_t discard() noexcept;
    void request_close() noexcept;  // Any thread: ends waits with Cancelled.
    [[nodiscard]] bool is_open() const noexcept;
    [[nodiscard]] const std::string& name() const noexcept;
    [[nodiscard]] std::string instance() const;
    // Data lost with the abandoned queue that create() replaced; empty after attach().
    [[nodiscard]] KeptData replaced() const;

private:
    friend struct detail::QueueAccess;
    explicit Queue(std::shared_ptr<detail::QueueCore> core);
    std::shared_ptr<detail::QueueCore> core_;  // none once it is closed, or moved from
    std::string name_;
    std::string instance_;
};

// A request that waits in line: for several messages, or behind such a request.
struct QueueRequest {
    unsigned slot = 0;            // of its participant
    std::uint64_t requested = 0;  // messages wanted; of trajectories, sequences
    bool is_passed = false;       // gave no sign of life: later requests go first until it does
};

// A Queue as `penstock info` shows it; does not attach. Throws as inspect_segment() does.
struct QueueInfo {
    SegmentSummary segment;
    QueueStats stats;
    std::vector<QueueRequest> requests;       // in the order of service
    std::vector<std::uint64_t> dead_letters;  // sequences of dead letters, oldest first, up to 100
    std::uint64_t application = 0;            // as in QueueOptions
    EndsWith ends_with = EndsWith::Creator;
};
QueueInfo inspect_queue(const std::string& name);

}  // namespace penstock

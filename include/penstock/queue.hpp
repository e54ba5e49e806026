// Many producers, many consumers: each message goes to one consumer, and comes back if that one
// dies before it has acknowledged it.
//
// One participant's handle may put from one thread and take from another at the same time.
// Accepted means queued: whatever happens to its producer, the message will be delivered. Messages
// of one producer come in the order in which it put them; one that was nacked, or held by a
// consumer that died, comes again before everything else.
//
// The stream ends with its creator's close(), or with anybody's end(): producers come and go, also
// all of them. A creator that was killed has not ended it: attach() and end() then.
//
// With a `max_deliveries` a message that was delivered so often in vain becomes a dead
// letter. It keeps its slot and its bytes until it is requeued or dropped. The last delivery before
// that is always one by itself: where the limit was reached in a batch, the message comes once more
// alone, so that the others of the batch go their way.
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

// Whose close(), or ordinary exit, ends the stream. Death by a signal never does; end() always.
enum class EndsWith : std::uint8_t {
    Creator,       // its creator's, whatever else is attached
    LastProducer,  // the last living producer's; the creator counts as one from its first put on
};

struct QueueOptions {
    // Bytes for messages larger than `inline_bytes`, rounded up to pages. Address range: memory is
    // reserved when messages first need it, and given back when the queue has been idle; with
    // memory.populate or lock_memory all at creation, for good.
    std::uint64_t capacity = std::uint64_t{64} << 20U;
    unsigned slots = 4096;        // messages at most, queued and taken; rounded up to 2^n
    unsigned inline_bytes = 256;  // of a message that needs no block; rounded up to 64
    unsigned participants = 64;   // participants at most
    unsigned max_deliveries = 0;  // a dead letter after so many deliveries; 0: never, up to 62
    EndsWith ends_with = EndsWith::Creator;
    // For a layer above with a queue of its own kind: eight letters that attach() must name too,
    // and so many bytes of shared memory for its accounts, zero at first.
    std::uint64_t application = 0;
    std::uint64_t application_bytes = 0;
    MemoryOptions memory = {};
    // A user whose abandoned segment of that name is replaced, too; otherwise one's own only.
    std::optional<std::uint32_t> replaces_owner = std::nullopt;
};

// Of a whole queue since its creation, and how it stands now.
#define PENSTOCK_QUEUE_STATISTICS(X)                                                            \
    X(std::uint64_t, accepted, Counter, "Messages put, by all producers.")                      \
    X(std::uint64_t, accepted_bytes, CountedBytes, "Bytes of the messages that were put.")      \
    X(std::uint64_t, taken, Counter, "Deliveries; a message that came again counts again.")     \
    X(std::uint64_t, acknowledged, Counter, "Messages that were acknowledged.")                 \
    X(std::uint64_t, nacked, Counter,                                                           \
      "Messages given back by hand, or by an exception in a block.")                            \
    X(std::uint64_t, dropped, Counter,                                                          \
      "Messages dropped by discard() and drop_dead_letters(); nothing else drops.")             \
    X(std::uint64_t, queued, Gauge, "Messages that wait now, those that came back among them.") \
    X(std::uint64_t, in_flight, Gauge, "Messages taken and not acknowledged now.")              \
    X(std::uint64_t, dead_letters, Gauge, "Dead letters now.")                                  \
    X(std::uint64_t, queued_bytes, Bytes, "Of the messages that wait now.")                     \
    X(double, oldest, Seconds, "Time that the oldest queued message has waited.")               \
    X(std::uint64_t, slots, Gauge, "Messages at most: queued, in flight or dead letters.")      \
    X(std::uint64_t, capacity, Bytes, "Room for messages that are not stored in their slots.")  \
    X(std::uint64_t, held_bytes, Bytes, "Of the capacity, in blocks.")                          \
    X(std::uint64_t, requests, Gauge,                                                           \
      "Requests that wait in line now: for several messages, or behind others.")                \
    X(std::uint64_t, requested, Gauge,                                                          \
      "What they want together: messages; of trajectories, sequences.")                         \
    X(std::uint64_t, waits, Counter, "Times there was no message, or no room, at once.")        \
    X(std::uint64_t, sleeps, Counter, "Sleeps of participants in the kernel for that.")         \
    X(bool, closed, Gauge, "The stream has ended.")
PENSTOCK_STATISTICS(QueueStats, SegmentStats, PENSTOCK_QUEUE_STATISTICS);

// A dead letter, as it stood at the time of the look.
struct DeadLetter {
    std::uint64_t sequence = 0;  // its place in the queue's order, and its name for the verbs
    unsigned producer = 0;       // participant slot
    unsigned deliveries = 0;     // in vain
    std::uint64_t nbytes = 0;
    Format format = Format::Bytes;
    double age = 0;  // seconds since it was accepted
};

// A message taken and not acknowledged yet. Its bytes stay until ack() or nack(), from any
// thread; destroyed without either it is nacked. Outlives the Queue handle.
class Delivery {
public:
    Delivery(Delivery&& other) noexcept;
    Delivery& operator=(Delivery&& other) noexcept;
    ~Delivery();

    // Read-only memory, 64-byte aligned: writing to it faults.
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
    [[nodiscard]] Format format() const noexcept { return format_; }
    // The message's place in the queue's order: unique, and increasing for each producer.
    [[nodiscard]] std::uint64_t sequence() const noexcept { return sequence_; }
    [[nodiscard]] unsigned producer() const noexcept { return producer_; }  // participant slot
    // How often it was delivered, this time included; stays at 63.
    [[nodiscard]] unsigned deliveries() const noexcept { return deliveries_; }
    [[nodiscard]] bool is_redelivered() const noexcept { return deliveries_ > 1; }

    // Ok: what was read of it before is what was sent. WrongProcess: this handle lost its place
    // (its descriptor was closed by this process), and the memory may have been another's.
    [[nodiscard]] Status check_held() const noexcept;
    void ack() noexcept;   // It is done with, and gone.
    void nack() noexcept;  // It will be delivered again, marked as redelivered.
    // It is done with and will not come again, but the bytes stay until this object goes.
    void settle() noexcept;
    // As if it had never been taken: this delivery does not count. For a consumer that finds a
    // message meant for another.
    void untake() noexcept;
    // It contradicts itself: a dead letter, until it is requeued or dropped.
    void dead_letter() noexcept;
    // It can't be read here, whatever was delivered with it. Where there is a delivery limit that
    // is a delivery in vain, by itself; without one, untake(): there would be no end to it else.
    void refuse() noexcept;
    // A batch is about to be handed out, and this is all of it: see Queue::take_for_batch().
    void note_alone() noexcept;
    // It reached the delivery limit in company, and must be handed out by itself now.
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

// Memory for a message that is being made in place. Dropped without commit, it was never there.
// Holding it blocks no other participant; it takes its bytes of the capacity.
class QueueLoan {
public:
    QueueLoan(QueueLoan&& other) noexcept;
    QueueLoan& operator=(QueueLoan&& other) noexcept;
    ~QueueLoan();

    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
    // Until it was committed, dropped or moved from; nothing to write to then.
    [[nodiscard]] bool is_open() const noexcept { return core_ != nullptr; }
    // Queues it. Timeout, Cancelled: the loan stays, and may be committed again. Closed: it is
    // gone. `tag` and `order` are the application's.
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
    Any,       // a producer from its first put on
    Producer,  // a producer from the beginning: see EndsWith::LastProducer
    Consumer,  // maps messages read-only; put() is InvalidArgument
};

class Queue {
public:
    // Throws InvalidName, InvalidArgument, AlreadyExists (a living process has it, or it keeps the
    // objects of a persistent store), NoSpace, PermissionDenied. A queue of that name whose
    // participants have all died or left is replaced, with the messages in it: replaced() says how
    // many. attach() keeps them.
    static Queue create(const std::string& name, const QueueOptions& options = {});
    // Throws NotFound, Busy (all places taken), Incompatible, Corrupt, PermissionDenied. Waits for
    // the segment to appear until `wait` ends. What dead participants held is available at once.
    // Incompatible also for a queue of another `application`; PermissionDenied, at once, for one of
    // another user than this process's own and the one that `trust` names.
    static Queue attach(const std::string& name, QueueRole role = QueueRole::Any,
                        const Wait& wait = Deadline::now(), const std::string& instance = {},
                        std::uint64_t application = 0, const Trust& trust = {});

    Queue(Queue&& other) noexcept;
    Queue& operator=(Queue&& other) noexcept;
    ~Queue();

    // Copies the message in. Timeout (full), Closed, Cancelled, TooLarge, NoSpace: not accepted.
    // `tag` is the application's word for its accounts.
    Status put(std::span<const std::byte> message, const Wait& wait = {},
               Format format = Format::Bytes, std::uint64_t tag = 0) noexcept;
    // Puts as many as it can until `wait` ends; how many were accepted, the first ones. 0 only as a
    // failure.
    Result<std::size_t> put_many(std::span<const std::span<const std::byte>> messages,
                                 const Wait& wait = {}, Format format = Format::Bytes) noexcept;
    Result<QueueLoan> loan(std::size_t size, const Wait& wait = {}) noexcept;

    // The next message, by itself. Timeout, Cancelled, Closed (ended and nothing is left), Corrupt.
    Result<Delivery> take(const Wait& wait = {}) noexcept;
    // For callers that collect a batch: as take(), but a delivery that ends in vain is none that
    // its message alone can have been the reason for. A batch of one says note_alone(); one that
    // must_come_alone() is a batch of one.
    Result<Delivery> take_for_batch(const Wait& wait = {}) noexcept;
    // `least` to `most` messages, all together: waits until `least` are there and holds none of
    // them meanwhile. Appends. Requests of several consumers are served whole, in the order in
    // which they came; only a try (Deadline::now()) for a single message takes what is there before
    // them. A batch ends before a message that must come alone, and such a one is a batch by
    // itself, whatever `least` is. After the end of the stream the last batch may be smaller too.
    // Timeout, Cancelled: nothing was taken, and the order is what it was. Closed (ended and
    // nothing is left), Corrupt. InvalidArgument: `least` is more than `most`, or than the queue
    // has slots.
    Status take_many(std::vector<Delivery>& deliveries, std::size_t most, const Wait& wait = {},
                     std::size_t least = 1) noexcept;
    // Takes, copies and acknowledges; the size. TooLarge: the message stays.
    Result<std::size_t> get(std::span<std::byte> buffer, const Wait& wait = {}) noexcept;

    // Whether `least` messages that no other request waits for, or a free slot, seem to be there
    // now. No system call: for callers to whom even an unneeded wait is dear. The consuming, or the
    // producing, thread.
    [[nodiscard]] bool is_ready(std::size_t least = 1) const noexcept;
    [[nodiscard]] bool has_room() const noexcept;

    // Waits until is_ready(), or until the stream has ended, and takes nothing. Its place in the
    // line of requests ends with it.
    Status wait_ready(const Wait& wait, std::size_t least = 1) noexcept;
    // Waits until a message of that size would probably find room, and puts nothing.
    Status wait_room(std::size_t size, const Wait& wait) noexcept;

    [[nodiscard]] std::uint64_t queued() const;  // messages that wait now. Any thread.
    [[nodiscard]] QueueStats stats() const;      // Any thread.

    // The dead letters, oldest first, at most `limit`. Holds nothing and never waits: one that
    // is requeued or dropped meanwhile may be missing. Any thread, as the next five. Closed.
    [[nodiscard]] Result<std::vector<DeadLetter>> dead_letters(std::size_t limit = 100) const;
    // A copy of its bytes; it stays. NotFound: it is no dead letter (any more). Corrupt: it
    // contradicts itself, and there is nothing to be read. Closed.
    [[nodiscard]] Result<std::vector<std::byte>> copy_dead_letter(std::uint64_t sequence) const;
    // Delivered anew, in their old place in the order and with deliveries counted from 0; how many.
    // All, or those of the `sequences` that are dead letters. Of two that ask for the same one does
    // it. Also after the end of the stream. Closed: this handle is.
    Result<std::uint64_t> requeue_dead_letters() noexcept;
    Result<std::uint64_t> requeue_dead_letters(std::span<const std::uint64_t> sequences) noexcept;
    // Thrown away, likewise: their slots and bytes are free.
    Result<std::uint64_t> drop_dead_letters() noexcept;
    Result<std::uint64_t> drop_dead_letters(std::span<const std::uint64_t> sequences) noexcept;

    // Leaves. Where `ends_with` names this handle it ends the stream: consumers drain it, then get
    // Closed. The name goes with the last participant if the queue is empty; with messages or dead
    // letters in it the queue stays, to be attached to or collected.
    void close() noexcept;
    // Ends the stream without leaving: nothing more is accepted. By any participant.
    void end() noexcept;
    // Goes on with a stream that has ended: from now on messages are accepted, from whoever is
    // still attached too, and this participant ends it as its creator would. For one that takes the
    // place of a creator that has left. Who has seen the end by then has seen it. False: it had not
    // ended.
    bool reopen() noexcept;
    // Ends the stream and throws away what is queued, and the dead letters, so that the last to
    // leave leaves nothing. What others have taken is theirs. Returns how many were dropped.
    std::uint64_t discard() noexcept;
    void request_close() noexcept;  // Any thread: ends waits with Cancelled.
    [[nodiscard]] bool is_open() const noexcept;
    [[nodiscard]] const std::string& name() const noexcept;
    [[nodiscard]] std::string instance() const;
    // What was lost with the abandoned queue that create() replaced; nothing of attach().
    [[nodiscard]] KeptData replaced() const;

private:
    friend struct detail::QueueAccess;
    explicit Queue(std::shared_ptr<detail::QueueCore> core);
    std::shared_ptr<detail::QueueCore> core_;  // none once it is closed, or moved from
    std::string name_;
    std::string instance_;
};

// A request that waits in line, for several messages or behind others.
struct QueueRequest {
    unsigned slot = 0;            // of its participant
    std::uint64_t requested = 0;  // messages; of trajectories, sequences
    bool is_passed = false;       // it gave no sign of life: others go first until it does
};

// A Queue as `penstock info` shows it; attaches nowhere. Throws as inspect_segment().
struct QueueInfo {
    SegmentSummary segment;
    QueueStats stats;
    std::vector<QueueRequest> requests;       // in the order in which they will be served
    std::vector<std::uint64_t> dead_letters;  // sequences of dead letters, oldest first, up to 100
    std::uint64_t application = 0;            // as in QueueOptions
    EndsWith ends_with = EndsWith::Creator;
};
QueueInfo inspect_queue(const std::string& name);

}  // namespace penstock

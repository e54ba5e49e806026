// Many producers, many consumers: each message goes to one consumer, and comes back if that one
// dies before it has acknowledged it.
//
// One participant's handle may put from one thread and take from another at the same time.
// Accepted means queued: whatever happens to its producer, the message will be delivered. Messages
// of one producer come in the order in which it put them; one that was given back, or held by a
// consumer that died, comes again before everything else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "penstock/error.hpp"
#include "penstock/format.hpp"
#include "penstock/segment.hpp"
#include "penstock/wait.hpp"

namespace penstock {

namespace detail {
struct QueueCore;
struct QueueAccess;
}  // namespace detail

struct QueueOptions {
    // Bytes for messages larger than `inline_bytes`, rounded up to 4 KiB. Address range: memory is
    // reserved when messages first need it, and given back when the queue has been idle.
    std::uint64_t capacity = std::uint64_t{64} << 20U;
    unsigned slots = 4096;        // messages at most, queued and taken; rounded up to 2^n
    unsigned inline_bytes = 256;  // of a message that needs no block; rounded up to 64
    unsigned members = 64;        // participants at most
    unsigned poison_limit = 0;    // set a message aside after so many deliveries; 0: never
    // For a layer above with a queue of its own kind: eight letters that attach() must name too,
    // and so many bytes of shared memory for its accounts, zero at first.
    std::uint64_t application = 0;
    std::uint64_t application_bytes = 0;
    MemoryOptions memory = {};
};

struct QueueStats {
    std::uint64_t accepted = 0;  // messages, by everybody, ever
    std::uint64_t accepted_bytes = 0;
    std::uint64_t taken = 0;  // deliveries
    std::uint64_t acknowledged = 0;
    std::uint64_t given_back = 0;  // by hand
    std::uint64_t dropped = 0;     // by discard()
    std::uint64_t queued = 0;      // messages that wait now, redelivered ones among them
    std::uint64_t in_flight = 0;   // taken and not acknowledged now
    std::uint64_t poisoned = 0;    // set aside now
    std::uint64_t queued_bytes = 0;
    double oldest = 0;  // seconds that the oldest queued message has waited
    std::uint64_t slots = 0;
    std::uint64_t capacity = 0;
    std::uint64_t held_bytes = 0;  // of capacity, in blocks
    std::uint64_t reserved_bytes = 0;
    std::uint64_t deaths = 0;  // participants found dead
    std::uint64_t waits = 0;   // how often there was no message, or no room, at once
    std::uint64_t sleeps = 0;  // how often somebody slept in the kernel for that
    bool closed = false;
};

// A message taken and not acknowledged yet. Its bytes stay until ack() or give_back(), from any
// thread; destroyed without either it is given back. Outlives the Queue handle.
class Delivery {
public:
    Delivery(Delivery&& other) noexcept;
    Delivery& operator=(Delivery&& other) noexcept;
    ~Delivery();

    // Read-only, 64-byte aligned.
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
    [[nodiscard]] Format format() const noexcept { return format_; }
    // The message's place in the queue's order: unique, and increasing for each producer.
    [[nodiscard]] std::uint64_t sequence() const noexcept { return sequence_; }
    [[nodiscard]] unsigned producer() const noexcept { return producer_; }  // participant slot
    // How often it was delivered, this time included; stays at 63.
    [[nodiscard]] unsigned deliveries() const noexcept { return deliveries_; }
    [[nodiscard]] bool is_redelivered() const noexcept { return deliveries_ > 1; }

    void ack() noexcept;        // It is done with, and gone.
    void give_back() noexcept;  // Somebody else may have it, as redelivered.
    // It is done with and will not come again, but the bytes stay until this object goes.
    void settle() noexcept;
    // As if it had never been taken: this delivery does not count. For who finds that it is not
    // for him.
    void untake() noexcept;
    // It contradicts itself: nobody gets it any more, and `penstock info` shows it.
    void set_aside() noexcept;

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
// Holding it blocks nobody; it takes its bytes of the capacity.
class QueueLoan {
public:
    QueueLoan(QueueLoan&& other) noexcept;
    QueueLoan& operator=(QueueLoan&& other) noexcept;
    ~QueueLoan();

    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
    // Queues it. Timeout, Cancelled: the loan stays, and may be committed again. Closed: it is
    // gone.
    Status commit(Format format = Format::Bytes, const Wait& wait = {},
                  std::uint64_t tag = 0) noexcept;

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
    Producer,  // a producer from the beginning: the stream does not end without its close()
    Consumer,  // maps messages read-only; put() is InvalidArgument
};

class Queue {
public:
    // Throws InvalidName, InvalidArgument, AlreadyExists (somebody living has it), NoSpace,
    // PermissionDenied. A queue whose participants are all dead is replaced, with what is in it.
    static Queue create(const std::string& name, const QueueOptions& options = {});
    // Throws NotFound, Busy (all places taken), Incompatible, Corrupt, PermissionDenied. Waits for
    // the segment to appear until `wait` ends. What dead participants held is available at once.
    // Incompatible also for a queue of another `application`.
    static Queue attach(const std::string& name, QueueRole role = QueueRole::Any,
                        const Wait& wait = Deadline::now(), const std::string& instance = {},
                        std::uint64_t application = 0);

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

    // The next message. Timeout, Cancelled, Closed (ended and nothing is left), Corrupt.
    Result<Delivery> take(const Wait& wait = {}) noexcept;
    // At least one and at most `most` messages: waits for the first only. Appends.
    Status take_many(std::vector<Delivery>& deliveries, std::size_t most,
                     const Wait& wait = {}) noexcept;
    // Takes, copies and acknowledges; the size. TooLarge: the message stays.
    Result<std::size_t> get(std::span<std::byte> buffer, const Wait& wait = {}) noexcept;

    // Whether a message, or a free slot, seems to be there now. No system call: for callers to
    // whom even an unneeded wait is dear. The consuming, or the producing, thread.
    [[nodiscard]] bool is_ready() const noexcept;
    [[nodiscard]] bool has_room() const noexcept;

    // Waits until is_ready(), or until the stream has ended, and takes nothing.
    Status wait_ready(const Wait& wait) noexcept;
    // Waits until a message of that size would probably find room, and puts nothing.
    Status wait_room(std::size_t size, const Wait& wait) noexcept;

    [[nodiscard]] std::uint64_t queued() const;  // messages that wait now. Any thread.
    [[nodiscard]] QueueStats stats() const;      // Any thread.

    // Leaves. By the creator, or by the last living producer, it also ends the stream: consumers
    // drain it, then get Closed. The name goes with the last participant if the queue is empty;
    // with messages in it the queue stays, to be attached to or collected.
    void close() noexcept;
    // Ends the stream without leaving: nothing more is accepted.
    void end() noexcept;
    // Ends the stream and throws away what is queued, so that the last to leave leaves nothing.
    // What others have taken is theirs. Returns how many were dropped.
    std::uint64_t discard() noexcept;
    void request_close() noexcept;  // Any thread: ends waits with Cancelled.
    [[nodiscard]] bool is_open() const noexcept;
    [[nodiscard]] const std::string& name() const noexcept;
    [[nodiscard]] std::string instance() const;

private:
    friend struct detail::QueueAccess;
    explicit Queue(std::shared_ptr<detail::QueueCore> core) noexcept;
    std::shared_ptr<detail::QueueCore> core_;
};

// A Queue as `penstock info` shows it; attaches nowhere. Throws as inspect_segment().
struct QueueInfo {
    SegmentSummary segment;
    QueueStats stats;
    std::vector<std::uint64_t> poisoned;  // sequence numbers, up to 100
    std::uint64_t application = 0;        // as created; see QueueOptions
};
QueueInfo inspect_queue(const std::string& name);

}  // namespace penstock

// Broadcast: one writer, many readers; every reader gets every message, whole and in order.
// A byte ring in shared memory with one writer position and one position per reader
// (single-cursor broadcast after the LMAX Disruptor and Aeron); see docs/protocols.md.
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

// Reaction of the writer to a reader's death: report it to the caller once (PeerDied), or only
// count it. In both cases the dead reader no longer blocks the writer, and a replacement may attach
// at its rank.
enum class OnReaderDeath : std::uint8_t { Raise = 0, Drop = 1 };

struct BroadcastOptions {
    unsigned readers = 1;                              // ranks 0 .. readers-1, at most 256
    std::uint64_t capacity = std::uint64_t{4} << 20U;  // ring bytes; rounded up to a power of two
    std::uint64_t large = std::uint64_t{2} << 30U;     // address range for messages that are larger
                                                    // than capacity/4; takes memory only when used
    OnReaderDeath on_reader_death = OnReaderDeath::Raise;
    WaitPolicy waiting = WaitPolicy::Balanced;
    MemoryOptions memory = {};
    // A user whose abandoned segment of that name may be replaced, besides this process's own.
    std::optional<std::uint32_t> replaces_owner = std::nullopt;
};

// One rank, as the writer or `penstock info` sees it.
struct BroadcastReaderState {
    enum class Life : std::uint8_t {
        Expected,  // not attached yet; messages wait for it
        Active,
        Vacant,  // closed or died; does not gate the writer until a replacement attaches
    };
    unsigned rank = 0;
    Life life = Life::Expected;
    bool alive = false;
    bool stopped = false;
    std::uint32_t pid = 0;
    std::string process;
    std::uint64_t messages = 0;      // released so far, since its start position
    std::uint64_t lag_messages = 0;  // published and not yet released by it
    std::uint64_t lag_bytes = 0;
    double blocking_for =
        0;  // seconds since the writer was blocked, if this reader blocks it; else 0
    // Of a dead reader, as in Participant.
    std::optional<int> exit_code = std::nullopt;
    std::optional<int> signal = std::nullopt;
    std::string how_it_died = {};

    // "reader 2 (pid 4711, worker.py), stopped, 12 messages behind, blocking for 0.3 s"
    [[nodiscard]] std::string describe() const;
};

// Statistics of one handle, or of a whole Broadcast when seen from outside.
#define PENSTOCK_BROADCAST_STATISTICS(X)                                                          \
    X(std::uint64_t, messages, Counter, "Messages sent; of a reader: received.")                  \
    X(std::uint64_t, bytes, CountedBytes, "Bytes of the payload of all messages that were sent.") \
    X(std::uint64_t, large_messages, Counter, "Messages sent through blocks.")                    \
    X(std::uint64_t, waits, Counter, "Calls that found no message, or no room, at once.")         \
    X(std::uint64_t, sleeps, Counter, "Sleeps in the kernel.")                                    \
    X(std::uint64_t, reader_deaths, Counter, "Readers found dead.")                               \
    X(std::uint64_t, capacity, Bytes, "Size of the ring.")                                        \
    X(std::uint64_t, used_bytes, Bytes,                                                           \
      "Of the ring, up to the reader furthest behind; of a reader: its own.")                     \
    X(std::uint64_t, held_bytes, Bytes, "Of large messages that are not free yet; of a reader: 0.")
PENSTOCK_STATISTICS(BroadcastStats, SegmentStats, PENSTOCK_BROADCAST_STATISTICS);

namespace detail {
struct WriterCore;
class ReaderCore;
}  // namespace detail

// Room for one message in shared memory, filled in place and then committed. Owned by the writer's
// thread; a writer has at most one open loan, and must outlive it (either may be moved meanwhile).
// Destruction without commit sends nothing. The bytes are 64-byte aligned.
class BroadcastLoan {
public:
    BroadcastLoan(BroadcastLoan&& other) noexcept;
    BroadcastLoan& operator=(BroadcastLoan&& other) noexcept;
    ~BroadcastLoan();

    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
    // Offset of bytes() in the segment's file, for callers that map it a second time.
    [[nodiscard]] std::uint64_t file_offset() const noexcept;
    // Sends the bytes. Never waits.
    Status commit(Format format = Format::Bytes) noexcept;

private:
    friend class BroadcastWriter;
    BroadcastLoan(detail::WriterCore* core, std::span<std::byte> bytes) noexcept
        : core_(core), bytes_(bytes) {}
    void drop() noexcept;

    detail::WriterCore* core_;
    std::span<std::byte> bytes_;
};

// The sending side; there is one per segment, and it creates the segment. Not thread-safe: one
// thread at a time, except that any thread may call blocked_by(), readers(), stats() and
// request_close(), as long as no other thread is in close(). In a forked child every call returns
// WrongProcess and the destructor does nothing.
class BroadcastWriter {
public:
    // Creates the segment and publishes it complete. Throws InvalidName, InvalidArgument,
    // AlreadyExists (naming the living holder), NoSpace (naming the remedy), PermissionDenied. A
    // segment of that name whose participants are all dead is replaced, unless it keeps data of a
    // queue or a store (AlreadyExists). An empty name makes an anonymous segment (memfd): pass its
    // descriptor() to the readers.
    static BroadcastWriter create(const std::string& name, const BroadcastOptions& options = {});

    BroadcastWriter(BroadcastWriter&& other) noexcept;
    BroadcastWriter& operator=(BroadcastWriter&& other) noexcept;
    ~BroadcastWriter();

    // Copies `message` into the ring, or into a block if it is larger than capacity/4, and
    // publishes it. Waits while readers leave no room. Timeout, PeerDied, Cancelled, TooLarge,
    // NoSpace, Closed, Busy (a loan is open): nothing was sent.
    Status send(std::span<const std::byte> message, const Wait& wait = {},
                Format format = Format::Bytes) noexcept;

    // Room for `size` bytes, to be written in place. Waits and fails as send() does.
    Result<BroadcastLoan> loan(std::size_t size, const Wait& wait = {}) noexcept;

    // Whether send() or loan() of that size would find room in the ring without waiting (a large
    // one may still wait for a block). Makes no system call: for callers that must not enter a wait
    // needlessly, such as holders of Python's GIL.
    [[nodiscard]] bool has_room(std::size_t size) noexcept;

    // Waits until every rank has a living reader.
    Status wait_ready(const Wait& wait = {}) noexcept;

    // The readers that keep the writer from going on: those behind the position that it waits for,
    // or that keep blocks. Also after a wait that failed, until the next success; empty otherwise.
    // Any thread.
    [[nodiscard]] std::vector<BroadcastReaderState> blocked_by() const;
    [[nodiscard]] std::vector<BroadcastReaderState> readers() const;  // every rank. Any thread.
    [[nodiscard]] BroadcastStats stats() const;                       // Any thread.

    // Ends the stream: readers receive what was sent, then get Closed. The name goes with the last
    // participant, and with it messages for ranks that no reader has attached to: call wait_ready()
    // before the first message, or stay until readers() shows no lag. Memory and descriptors are
    // given back; an open loan keeps them until it ends, and is not sent. Later calls return
    // Closed.
    void close() noexcept;
    // Ends waits of other threads on this handle with Cancelled; the owning thread then calls
    // close().
    void request_close() noexcept;

    [[nodiscard]] bool is_open() const noexcept;
    [[nodiscard]] const std::string& name() const noexcept;
    [[nodiscard]] std::string instance() const;  // tells this segment from others of its name
    // Descriptor of the segment to pass on (SCM_RIGHTS, inheritance); carries no lock. Borrowed; -1
    // after close().
    [[nodiscard]] int descriptor() const noexcept;

private:
    explicit BroadcastWriter(std::unique_ptr<detail::WriterCore> core) noexcept;
    [[nodiscard]] detail::WriterCore& core_or_throw() const;
    std::unique_ptr<detail::WriterCore> core_;  // null once moved from
};

// One received message, read in place. Its bytes stay valid while it is held, and the reader may go
// on receiving. Release (or destroy) it to give the room back, from any thread, in any order. At
// most 4096 that take room in the ring may be held at once; see keep(). May outlive the reader
// handle: the mapping stays until the last message is released.
class BroadcastMessage {
public:
    BroadcastMessage(BroadcastMessage&& other) noexcept;
    BroadcastMessage& operator=(BroadcastMessage&& other) noexcept;
    ~BroadcastMessage();

    // Read-only memory: writing to it faults. 64-byte aligned if sent by loan() or larger than
    // capacity/4, 8-byte aligned otherwise.
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
    [[nodiscard]] Format format() const noexcept { return format_; }
    [[nodiscard]] std::uint64_t sequence() const noexcept { return sequence_; }  // 0, 1, 2...

    void release() noexcept;
    // Ok: everything read from bytes() so far is what was sent. WrongProcess: this participant lost
    // its slot (the process closed its descriptor), and the memory may have been reused.
    [[nodiscard]] Status check_held() const noexcept;
    // For a message that is held for long: if it lies in a block (larger than capacity/4), the
    // block stays and the ring no longer waits for it. No effect on a message that lies in the
    // ring.
    void keep() noexcept;

    // For the library only: messages come from BroadcastReader::recv().
    BroadcastMessage(detail::ReaderCore* core, std::span<const std::byte> bytes,
                     std::uint64_t sequence, std::uint32_t entry, std::uint32_t block,
                     Format format) noexcept
        : core_(core), bytes_(bytes), sequence_(sequence), entry_(entry), block_(block),
          format_(format) {}

private:
    detail::ReaderCore* core_;
    std::span<const std::byte> bytes_;
    std::uint64_t sequence_;
    std::uint32_t entry_;
    std::uint32_t block_;
    Format format_;
    bool kept_ = false;
};

// The receiving side: the reader of one rank. Not thread-safe: one thread at a time, except stats()
// and request_close(). In a forked child every call returns WrongProcess.
class BroadcastReader {
public:
    // Attaches as the reader of `rank`. Throws NotFound, Busy (the rank has a living reader, which
    // is named), InvalidArgument (no such rank), Incompatible, Corrupt, PermissionDenied, PeerDied
    // or Closed (the writer is gone and nothing is left to read). Waits for the segment to appear
    // until `wait` ends. The first reader of a rank gets every message; a replacement starts with
    // the next message sent. A non-empty `instance` selects one segment: another one of the same
    // name counts as NotFound. PermissionDenied comes at once, for a segment of a user that is
    // neither this process's own nor named by `trust`.
    static BroadcastReader attach(const std::string& name, unsigned rank,
                                  const Wait& wait = Deadline::now(),
                                  const std::string& instance = {}, const Trust& trust = {});
    // Likewise, by a descriptor of the segment (memfd, or passed over a Unix socket). An anonymous
    // segment must be sealed against shrinking, as create() does.
    static BroadcastReader attach(int descriptor, unsigned rank, const Trust& trust = {});

    BroadcastReader(BroadcastReader&& other) noexcept;
    BroadcastReader& operator=(BroadcastReader&& other) noexcept;
    ~BroadcastReader();

    // The next message, in place. Timeout, Cancelled, Closed (drained after close()),
    // PeerDied (drained after the writer's death), Corrupt, Busy (4096 messages are held).
    Result<BroadcastMessage> recv(const Wait& wait = {}) noexcept;

    // Whether a message is there now. One load: for callers that must not enter a wait needlessly.
    [[nodiscard]] bool is_ready() const noexcept;

    // Copies the next message into `buffer` and returns its size. TooLarge: the message stays; the
    // sentence and next_size() give its size.
    Result<std::size_t> recv_into(std::span<std::byte> buffer, const Wait& wait = {}) noexcept;
    // The size of the next message, which is not consumed. Waits and fails as recv() does.
    Result<std::size_t> next_size(const Wait& wait = {}) noexcept;

    [[nodiscard]] BroadcastStats stats() const;  // Any thread.
    [[nodiscard]] unsigned rank() const noexcept;

    // The rank becomes free when the last BroadcastMessage is released. Until then messages that
    // lie in the ring still gate the writer; messages in blocks do not.
    void close() noexcept;
    void request_close() noexcept;  // Any thread: ends waits with Cancelled.
    [[nodiscard]] bool is_open() const noexcept;
    [[nodiscard]] const std::string& name() const noexcept;
    [[nodiscard]] std::string instance() const;
    [[nodiscard]] int descriptor() const noexcept;

private:
    static Status closed_handle() noexcept;
    explicit BroadcastReader(detail::ReaderCore* core);
    detail::ReaderCore* core_;  // null once closed or moved from
    unsigned rank_ = 0;
    std::string name_;
    std::string instance_;
};

// A Broadcast as `penstock info` shows it; does not attach. Throws as inspect_segment() does.
struct BroadcastInfo {
    SegmentSummary segment;
    BroadcastStats stats;
    std::vector<BroadcastReaderState> readers;
    bool closed = false;
    double writer_blocked_for = 0;  // seconds
};
BroadcastInfo inspect_broadcast(const std::string& name);

}  // namespace penstock

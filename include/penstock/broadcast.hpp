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
#include "penstock/wait.hpp"

namespace penstock {

// What the writer does about a reader that died: tell its caller once (PeerDied), or only count it.
// Either way the dead reader blocks the writer no more, and a replacement may attach at its rank.
enum class OnReaderDeath : std::uint8_t { Raise = 0, Drop = 1 };

struct BroadcastOptions {
    unsigned readers = 1;                              // ranks 0 .. readers-1, at most 256
    std::uint64_t capacity = std::uint64_t{4} << 20U;  // ring bytes; rounded up to a power of two
    std::uint64_t large = std::uint64_t{2} << 30U;     // address range for messages that are larger
                                                    // than capacity/4; takes memory only when used
    OnReaderDeath on_reader_death = OnReaderDeath::Raise;
    MemoryOptions memory = {};
    // A user whose abandoned segment of that name is replaced, too; otherwise one's own only.
    std::optional<std::uint32_t> replaces_owner = std::nullopt;
};

// One rank as the writer, or `penstock info`, sees it.
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
    std::uint64_t messages = 0;      // received so far, since its start position
    std::uint64_t lag_messages = 0;  // published and not yet released by it
    std::uint64_t lag_bytes = 0;
    double blocking_for = 0;  // seconds the writer has waited for it; 0 when it does not

    // "reader 2 (pid 4711, worker.py), stopped, 12 messages behind, blocking for 0.3 s"
    [[nodiscard]] std::string describe() const;
};

struct BroadcastStats {
    std::uint64_t messages = 0;
    std::uint64_t bytes = 0;
    std::uint64_t large_messages = 0;  // writer: went through an arena block
    std::uint64_t waits = 0;           // times this handle found nothing (or no room) at once
    std::uint64_t sleeps = 0;          // times it slept in the kernel
    std::uint64_t reader_deaths = 0;   // writer
    std::uint64_t capacity = 0;
    std::uint64_t used_bytes = 0;      // of the ring, by the reader furthest behind
    std::uint64_t reserved_bytes = 0;  // memory the segment takes now
    std::uint64_t held_bytes = 0;      // writer: of large messages, not free yet
};

namespace detail {
struct WriterCore;
class ReaderCore;
}  // namespace detail

// Room for one message inside the shared memory, to be filled in place and then committed.
// Owned by the writer's thread; a writer has one open loan at a time, and outlives it (it may be
// moved meanwhile). Destroying it uncommitted sends nothing. The bytes are 64-byte aligned.
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

// The sending side. One per segment; it creates the segment. Not thread-safe: one thread at a time,
// except blocked_by(), readers(), stats() and request_close(), which any thread may call while no
// other is in close().
// In a forked child every call returns WrongProcess and the destructor does nothing.
class BroadcastWriter {
public:
    // Creates the segment and publishes it whole, or throws: InvalidName, InvalidArgument,
    // AlreadyExists (naming the living holder), NoSpace (naming the remedy), PermissionDenied.
    // A name whose holders are all dead is replaced, unless it keeps data of a queue or a store
    // (AlreadyExists). An empty name makes an anonymous segment
    // (memfd): hand its descriptor() to the readers.
    static BroadcastWriter create(const std::string& name, const BroadcastOptions& options = {});

    BroadcastWriter(BroadcastWriter&& other) noexcept;
    BroadcastWriter& operator=(BroadcastWriter&& other) noexcept;
    ~BroadcastWriter();

    // Copies `message` into the ring and publishes it. Waits while the slowest reader leaves no
    // room. Timeout, PeerDied, Cancelled, TooLarge, NoSpace: nothing was sent.
    Status send(std::span<const std::byte> message, const Wait& wait = {},
                Format format = Format::Bytes) noexcept;

    // Room for `size` bytes, to be written in place. Same errors as send; Busy while another loan
    // is open.
    Result<BroadcastLoan> loan(std::size_t size, const Wait& wait = {}) noexcept;

    // Whether send() or loan() of that size would find room in the ring without waiting. No system
    // call: for callers to whom even an unneeded wait is dear, such as holders of Python's GIL.
    [[nodiscard]] bool has_room(std::size_t size) noexcept;

    // Waits until every rank has a living reader.
    Status wait_ready(const Wait& wait = {}) noexcept;

    // The readers that the next message of one full ring would wait for: those furthest behind
    // while the writer is blocked, none otherwise. Any thread.
    [[nodiscard]] std::vector<BroadcastReaderState> blocked_by() const;
    [[nodiscard]] std::vector<BroadcastReaderState> readers() const;  // every rank. Any thread.
    [[nodiscard]] BroadcastStats stats() const;                       // Any thread.

    // Readers drain what was sent, then get Closed. The name goes with the last participant, and
    // with it what was kept for ranks without a reader so far: call wait_ready() before the
    // first message, or stay until readers() shows no lag. Gives memory and descriptors back; an
    // open loan keeps them until it ends, and is not sent. What is asked afterwards is Closed.
    void close() noexcept;
    // Ends waits of another thread on this handle with Cancelled; close() follows on that thread.
    void request_close() noexcept;

    [[nodiscard]] bool is_open() const noexcept;
    [[nodiscard]] const std::string& name() const noexcept;
    [[nodiscard]] std::string instance() const;  // tells this segment from others of its name
    // Of the segment, for handing over (SCM_RIGHTS, inheritance); carries no lock. Borrowed; -1
    // when closed.
    [[nodiscard]] int descriptor() const noexcept;

private:
    explicit BroadcastWriter(std::unique_ptr<detail::WriterCore> core) noexcept;
    [[nodiscard]] detail::WriterCore& core_or_throw() const;
    std::unique_ptr<detail::WriterCore> core_;  // none once it is moved from
};

// One received message, read in place. Holding it keeps its bytes; the reader may go on receiving.
// Release (or destroy) it to give the room back, from any thread, in any order. At most 4096 may
// be held at once. Outlives the reader handle: the mapping stays until the last one is released.
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
    // Ok: what was read of it before is what was sent. WrongProcess: this handle lost its place
    // (its descriptor was closed by this process), and the memory may have been another's.
    [[nodiscard]] Status check_held() const noexcept;
    // For a message that will be held for long: lets the ring flow on where the bytes lie in a
    // block of their own (larger than capacity/4); the block stays. Otherwise changes nothing.
    void keep() noexcept;

    // For the library: messages come from BroadcastReader::recv().
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

// One receiving side: the reader of one rank. Not thread-safe: one thread at a time, except
// stats() and request_close(). In a forked child every call returns WrongProcess.
class BroadcastReader {
public:
    // Attaches as the reader of `rank`, or throws: NotFound, Busy (the rank has a living reader,
    // named), InvalidArgument (no such rank), Incompatible, Corrupt, PermissionDenied, PeerDied or
    // Closed (the writer is gone and nothing is left to read). Waits for the segment to appear
    // until `wait` ends. The first reader of a rank gets every message; a replacement starts
    // with the next one sent. `instance`, if not empty, is the only one that will do: another
    // segment under the same name is as good as none. PermissionDenied, at once, for a segment of
    // another user than this process's own and the one that `trust` names.
    static BroadcastReader attach(const std::string& name, unsigned rank,
                                  const Wait& wait = Deadline::now(),
                                  const std::string& instance = {}, const Trust& trust = {});
    // The same through a descriptor of the segment (memfd, or handed over a Unix socket). An
    // anonymous one must be sealed against shrinking, as those that create() makes are.
    static BroadcastReader attach(int descriptor, unsigned rank, const Trust& trust = {});

    BroadcastReader(BroadcastReader&& other) noexcept;
    BroadcastReader& operator=(BroadcastReader&& other) noexcept;
    ~BroadcastReader();

    // The next message, in place. Timeout, Cancelled, Closed (drained after close()),
    // PeerDied (drained after the writer's death), Corrupt, Busy (4096 messages are held).
    Result<BroadcastMessage> recv(const Wait& wait = {}) noexcept;

    // Whether a message is there now. One load: for callers to whom even an unneeded wait is dear.
    [[nodiscard]] bool is_ready() const noexcept;

    // The next message, copied into `buffer`; its size. TooLarge: the message stays, its size is
    // in the sentence and in next_size().
    Result<std::size_t> recv_into(std::span<std::byte> buffer, const Wait& wait = {}) noexcept;
    // Waits like recv and gives the next message's size without consuming it.
    Result<std::size_t> next_size(const Wait& wait = {}) noexcept;

    [[nodiscard]] BroadcastStats stats() const;  // Any thread.
    [[nodiscard]] unsigned rank() const noexcept;

    // The rank becomes free once the last BroadcastMessage is released; until then a message that
    // lies in the ring goes on gating the writer, one in a block of its own does not.
    void close() noexcept;
    void request_close() noexcept;  // Any thread: ends waits with Cancelled.
    [[nodiscard]] bool is_open() const noexcept;
    [[nodiscard]] const std::string& name() const noexcept;
    [[nodiscard]] std::string instance() const;
    [[nodiscard]] int descriptor() const noexcept;

private:
    static Status closed_handle() noexcept;
    explicit BroadcastReader(detail::ReaderCore* core);
    detail::ReaderCore* core_;  // none once it is closed, or moved from
    unsigned rank_ = 0;
    std::string name_;
    std::string instance_;
};

// A Broadcast as `penstock info` shows it; attaches nowhere. Throws as inspect_segment().
struct BroadcastInfo {
    SegmentSummary segment;
    BroadcastStats stats;
    std::vector<BroadcastReaderState> readers;
    bool closed = false;
    double writer_blocked_for = 0;  // seconds
};
BroadcastInfo inspect_broadcast(const std::string& name);

}  // namespace penstock

// Named immutable objects in shared memory: reserve, write, commit; look up, read in place,
// release; evicted when memory is needed.
//
// Every process writes and reads by itself: there is no server, and look-ups take no lock. An
// object is visible whole or not at all. Reservations and pins last until they are released or
// their process dies; other participants reap the dead when they need the room or the key. No
// timeout ends them, except a reservation's own `expires_after`.
//
// Outcomes of a call, and their error codes:
//   hit        a value
//   miss       NotFound        there is no such object; no sentence, because it is not an error
//   exists     AlreadyExists   it was committed before
//   staged     Busy            a living process writes it: peer() is its slot, message() its name
//   no space   NoSpace         pinned and staged objects leave no room now
//   too large  TooLarge        it could never fit
//   expired    Expired         the reservation or the reference is no longer valid
//
// A store may have a second tier (second_tier.hpp). Calls that take a Wait may then ask its server.
// The tier's timeouts bound that; the end of the Wait ends it within 80 ms, as Timeout or
// Cancelled. Deadline::now() asks no server. Without a second tier only wait(), attach() and
// populate() use their Wait.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/error.hpp"
#include "penstock/format.hpp"
#include "penstock/second_tier.hpp"
#include "penstock/segment.hpp"
#include "penstock/statistics.hpp"
#include "penstock/wait.hpp"

namespace penstock {

namespace detail {
class SecondTier;
struct StoreCore;
}  // namespace detail

// Eviction algorithm; pinned, staged and retained objects are never evicted.
enum class Eviction : std::uint32_t {
    // The oldest object that was not read since the hand last passed it (Y. Zhang et al., "SIEVE is
    // simpler than LRU", NSDI 2024). Costs a reader one bit.
    Sieve = 0,
    Fifo = 1,  // the oldest object
    Lru = 2,   // the object not read for longest; a read moves it in the order
    None = 3,  // no eviction: a writer that finds no room gets NoSpace
};
std::string_view to_string(Eviction eviction) noexcept;

struct StoreOptions {
    // Bytes for objects, with keys and metadata; rounded up to 64 KiB. Address range: memory is
    // reserved when objects first need it, and given back by trim().
    std::uint64_t capacity = std::uint64_t{256} << 20U;
    std::uint64_t objects = 0;   // at most, approximately; 0: one for each 16 KiB, at least 1024
    unsigned participants = 64;  // participants at most
    Eviction eviction = Eviction::Sieve;
    // Unit that sizes are rounded up to, at least 64; 0: 64 up to 16 MiB, then 512, and so on, so
    // that the heap's control words stay below 32 MiB.
    std::uint64_t granule = 0;
    // The store stays, with its objects, when the last participant leaves.
    bool persistent = false;
    WaitPolicy waiting = WaitPolicy::Balanced;
    MemoryOptions memory = {};
    // A second user, besides this process's own, whose abandoned segment of that name may be
    // replaced.
    std::optional<std::uint32_t> replaces_owner = std::nullopt;
    std::optional<SecondTierOptions> second_tier = std::nullopt;  // of this handle
};

struct ReserveOptions {
    std::span<const std::byte> meta = {};  // stored beside the object; up to 16 MiB
    std::uint64_t alignment = 64;          // of the object's bytes, a power of two up to 2 MiB
    unsigned weight = 0;  // times that SIEVE's hand passes it in addition; up to 100
    Format format = Format::Bytes;
    // Lifetime of the reservation; after it the commit is refused (Expired) and the key is free.
    // The memory stays the writer's until commit() or abort().
    std::optional<std::chrono::nanoseconds> expires_after = std::nullopt;
};

// Permanent name of one object: a later object of the same key has another StoreRef. May be sent to
// other processes.
struct StoreRef {
    std::uint32_t entry = 0;
    std::uint64_t incarnation = 0;
};

// Location of a reservation's bytes in the segment's file, for callers that map them at an address
// of their own.
struct StorePlace {
    // The store's descriptor, while the reservation is open; -1 also if the program has closed it.
    int descriptor = -1;
    std::uint64_t offset = 0;
    // The pages are locked, or pinned for a device, so their mapping must not be moved.
    bool is_fixed = false;
};

// A pinned object: not evicted until release(). Any thread; may outlive the Store handle.
class StoreObject {
public:
    StoreObject(StoreObject&& other) noexcept;
    StoreObject& operator=(StoreObject&& other) noexcept;
    ~StoreObject();

    // Read-only memory: writing to it faults.
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
    [[nodiscard]] std::span<const std::byte> meta() const noexcept { return meta_; }
    [[nodiscard]] Format format() const noexcept { return format_; }
    [[nodiscard]] StoreRef ref() const noexcept { return ref_; }
    // Offset of bytes() in the segment's file, /dev/shm/penstock.NAME. Another process that has
    // opened or mapped the file may read the object there, as long as this pin is held; after that
    // the memory may be reused. It must not write there. 0: released, or in a forked child.
    [[nodiscard]] std::uint64_t offset() const noexcept;
    [[nodiscard]] bool is_open() const noexcept { return core_ != nullptr; }
    // Ok: everything read from bytes() so far is the object's. WrongProcess: this participant lost
    // its slot (the process closed its descriptor), and the memory may have been reused.
    [[nodiscard]] Status check_held() const noexcept;
    void release() noexcept;  // idempotent
    // A second pin on the same object: no look-up, and not counted as a read.
    [[nodiscard]] StoreObject share() const noexcept;

    // Internal.
    StoreObject(std::shared_ptr<detail::StoreCore> core, StoreRef ref,
                std::span<const std::byte> bytes, std::span<const std::byte> meta,
                Format format) noexcept
        : core_(std::move(core)), ref_(ref), bytes_(bytes), meta_(meta), format_(format) {}

private:
    std::shared_ptr<detail::StoreCore> core_;
    StoreRef ref_;
    std::span<const std::byte> bytes_;
    std::span<const std::byte> meta_;
    Format format_;
};

// An object that is not visible yet. Destruction without commit discards it. Any thread, one at a
// time; may outlive the Store handle.
class StoreReservation {
public:
    StoreReservation(StoreReservation&& other) noexcept;
    StoreReservation& operator=(StoreReservation&& other) noexcept;
    ~StoreReservation();

    // Memory to write into, until commit() or abort(). Uninitialised.
    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
    // Empty after commit() or abort(), and in a forked child.
    [[nodiscard]] StoreRef ref() const noexcept;
    // Offset of bytes() in the segment's file, /dev/shm/penstock.NAME. Another process that has
    // opened or mapped the file may write the object there until commit() or abort(), or until this
    // process dies; after that the memory may be reused. Neither commit() nor resize() changes it.
    // 0: after commit() or abort(), and in a forked child.
    [[nodiscard]] std::uint64_t offset() const noexcept;
    [[nodiscard]] bool is_open() const noexcept { return core_ != nullptr; }
    [[nodiscard]] StorePlace place() const noexcept;  // descriptor -1 after commit() or abort()
    // False: committed or aborted, or the store was left or lost; nothing can be committed.
    [[nodiscard]] bool is_usable() const noexcept;
    [[nodiscard]] bool is_fixed() const noexcept;  // see StorePlace

    // Makes the object visible. Expired: clear() or the deadline came first, and the reservation is
    // gone. With WriteThrough also the errors of a server: the object is then in the first tier,
    // and the second may lack it. Closed, by Self: the same, because finish() came before the
    // commit.
    Status commit(const Wait& wait = {}) noexcept;
    // As above. `pinned` is set if the first tier has the object, whatever the status; the object
    // can't be evicted before it is pinned.
    Status commit(std::optional<StoreObject>& pinned, const Wait& wait = {}) noexcept;
    // True: the commit also writes to a second tier, and may wait for it.
    [[nodiscard]] bool is_tiered() const noexcept { return tier_ != nullptr; }
    void abort() noexcept;
    // Shortens the object, or lengthens it where free memory follows it; never moves it. NoSpace:
    // it could not grow, and nothing has changed.
    Status resize(std::uint64_t nbytes) noexcept;

    // Internal.
    StoreReservation(std::shared_ptr<detail::StoreCore> core,
                     std::shared_ptr<detail::SecondTier> tier, std::uint32_t entry,
                     std::span<std::byte> bytes) noexcept;

private:
    std::shared_ptr<detail::StoreCore> core_;
    std::shared_ptr<detail::SecondTier> tier_;  // null: no second tier
    std::uint32_t entry_;
    std::span<std::byte> bytes_;
};

// Statistics of a whole store: counters since its creation, and its present state.
#define PENSTOCK_STORE_STATISTICS(X)                                                             \
    X(std::uint64_t, capacity, Bytes, "Room for objects, with their keys and metadata.")         \
    X(std::uint64_t, used_bytes, Bytes, "The sum of the five from object_bytes on.")             \
    X(std::uint64_t, free_bytes, Bytes, "The rest of the capacity, to the byte.")                \
    X(std::uint64_t, object_bytes, Bytes, "Of resident objects: data, metadata and keys.")       \
    X(std::uint64_t, staged_bytes, Bytes, "The same of staged objects.")                         \
    X(std::uint64_t, doomed_bytes, Bytes,                                                        \
      "The same of removed objects that are still being read.")                                  \
    X(std::uint64_t, padding_bytes, Bytes, "Lost to alignment and granules.")                    \
    X(std::uint64_t, other_bytes, Bytes, "Being freed, or being given back to the system.")      \
    X(std::uint64_t, largest_free, Bytes, "The longest free piece.")                             \
    X(std::uint64_t, objects, Gauge, "Resident objects.")                                        \
    X(std::uint64_t, staged, Gauge, "Objects that are being written (staged).")                  \
    X(std::uint64_t, doomed, Gauge, "Removed objects that are still being read.")                \
    X(std::uint64_t, in_use, Gauge, "Objects that are being read now.")                          \
    X(std::uint64_t, retained, Gauge, "Objects that retain() keeps.")                            \
    X(std::uint64_t, most_objects, Gauge, "Objects that there is room for in the index, about.") \
    X(std::uint64_t, hits, Counter, "Look-ups that found their object, of all participants.")    \
    X(std::uint64_t, misses, Counter, "Look-ups that found nothing, of all participants.")       \
    X(std::uint64_t, committed, Counter, "Objects that were committed.")                         \
    X(std::uint64_t, committed_bytes, CountedBytes, "Bytes of the objects that were committed.") \
    X(std::uint64_t, evicted, Counter, "Objects that were evicted.")                             \
    X(std::uint64_t, evicted_bytes, CountedBytes, "Bytes of the objects that were evicted.")     \
    X(std::uint64_t, deleted, Counter, "Objects that were deleted.")                             \
    X(std::uint64_t, aborted, Counter, "Reservations that were aborted.")                        \
    X(std::uint64_t, expired, Counter, "Reservations whose time was over before their commit.")  \
    X(std::uint64_t, refused, Counter, "Reservations refused for lack of room.")                 \
    X(Eviction, eviction, Word, "What is evicted when room is wanted.")                          \
    X(std::optional<TierStats>, second_tier, Part, "Of the handle that was asked, if it has one.")
PENSTOCK_STATISTICS(StoreStats, SegmentStats, PENSTOCK_STORE_STATISTICS);

// One key of reserve_many().
struct StoreRequest {
    std::string_view key;
    std::uint64_t nbytes = 0;
};

// The state of a key, for callers that do not want the object.
struct StoreLook {
    // Remote: only the second tier has it.
    enum class State : std::uint8_t { Miss, Hit, Staged, Remote } state = State::Miss;
    int staged_by = -1;  // slot of the writing participant
    std::uint64_t nbytes = 0;
    bool is_retained = false;  // by retain()
};

// One participant's handle. Thread-safe. Keys are 1 to 4096 bytes. It belongs to its process: in a
// forked child every call returns WrongProcess. With a second tier it has threads of its own.
class Store {
public:
    // Throws InvalidName, InvalidArgument, AlreadyExists (a living process has it, or it is
    // abandoned and keeps data: a persistent store with objects, a queue with messages), NoSpace or
    // PermissionDenied. The servers of a second tier are tried first, once: if one refuses the user
    // or the password, PermissionDenied is thrown and no store is made; an unreachable server is an
    // outage, which may end. `memory.wait` may end the trial before the tier's timeouts.
    static Store create(const std::string& name, const StoreOptions& options = {});
    // Waits until `wait` ends for the name to appear. Throws NotFound, Busy (no free slot for a
    // participant), Incompatible, Corrupt or PermissionDenied, the latter at once, for a store of a
    // user that is neither this process's own nor named by `trust`. For a second tier it throws
    // what create() throws.
    static Store attach(const std::string& name, const Wait& wait = Deadline::now(),
                        const std::string& instance = {}, const Trust& trust = {},
                        const std::optional<SecondTierOptions>& second_tier = std::nullopt);

    Store(Store&& other) noexcept;
    Store& operator=(Store&& other) noexcept;
    ~Store();

    // Room for an object of `nbytes`. Evicts other objects within the call where necessary.
    Result<StoreReservation> reserve(std::string_view key, std::uint64_t nbytes,
                                     const ReserveOptions& options = {}) noexcept;
    // reserve(), copy, commit().
    Status put(std::string_view key, std::span<const std::byte> value,
               const ReserveOptions& options = {}, const Wait& wait = {}) noexcept;

    // Failures of a second tier are NotFound: an outage, a damaged value, or no room in the first
    // tier. stats() gives the reason. The head of an object takes at most one request_timeout, its
    // parts 2 + nbytes / part_bytes of them, beside connect_timeout for a new connection.
    // Concurrent misses of one key share one fetch (single-flight). Busy: this thread leads a fetch
    // already, and this call comes from its `check` or from its Wait. `check`, if given, may refuse
    // a value from the second tier.
    Result<StoreObject> get(std::string_view key, const Wait& wait = {},
                            const FetchCheck* check = nullptr) noexcept;
    // The object that `ref` names, in the first tier, or NotFound; never a later object of its key.
    Result<StoreObject> get(const StoreRef& ref) noexcept;
    // Waits until the key is resident, then as get(). A second tier is asked again after pauses
    // that grow from 10 ms to 1 s. Timeout, Cancelled, Closed.
    Result<StoreObject> wait(std::string_view key, const Wait& wait,
                             const FetchCheck* check = nullptr) noexcept;
    // True: the first tier has the object, or the second its head. Counts as no read.
    [[nodiscard]] bool contains(std::string_view key, const Wait& wait = {}) noexcept;
    [[nodiscard]] StoreLook look(std::string_view key, const Wait& wait = {}) noexcept;

    // Batches: one outcome for each key, in order. With `prefix` they stop at the first failure,
    // which is then the last outcome. Once `wait` has ended, all keys that follow get its error.
    std::vector<Result<StoreReservation>> reserve_many(std::span<const StoreRequest> requests,
                                                       const ReserveOptions& options = {},
                                                       bool prefix = false);
    std::vector<Result<StoreObject>> get_many(std::span<const std::string_view> keys,
                                              bool prefix = false, const Wait& wait = {},
                                              const FetchCheck* check = nullptr);

    // Removes the object from both tiers: look-ups miss it, present readers keep it, and a fetch of
    // this handle that is under way discards it. NotFound. Errors of a server: the first tier no
    // longer has it, but the second may. The removal of its parts ends after eight
    // request_timeouts: further parts stay in the second tier, without the head.
    Status remove(std::string_view key, const Wait& wait = {}) noexcept;
    // Counts as a read of the object, in both tiers, with all its parts. False: there is none.
    bool touch(std::string_view key, const Wait& wait = {}) noexcept;
    // Keeps the object from eviction until release(), also after this process has died. Calls are
    // counted. retain(), release(), clear() and trim() act on the first tier.
    Status retain(std::string_view key) noexcept;
    Status release(std::string_view key) noexcept;
    // Removes all objects, and refuses the commit of staged ones. Returns how many there were.
    std::uint64_t clear() noexcept;
    // Gives free memory beyond `keep_bytes` back to the system; returns how much. No effect on a
    // store whose memory was reserved at creation (populate, lock_memory, huge_pages).
    std::uint64_t trim(std::uint64_t keep_bytes = 0) noexcept;
    // Maps the store's present memory into this process's page tables, so that first accesses to a
    // page cost what later ones do; no other process can do this for it. Maps all of a store
    // created with populate, lock_memory or huge_pages, and of others the memory in use. Timeout,
    // Cancelled: what was mapped so far stays mapped. NoSpace, InvalidArgument (before Linux 5.14).
    // Any thread, while others use the store.
    Status populate(const Wait& wait = {}) noexcept;
    // Makes the store persistent, as at creation: it stays when the last participant leaves, and
    // create() does not replace it while it holds objects.
    Status persist() noexcept;
    [[nodiscard]] bool is_persistent() const noexcept;
    // Pins the store's memory for the GPU, so that copies to and from a device need no staging;
    // lasts until this handle and its objects are gone. Needs a store created with populate,
    // lock_memory or huge_pages. Throws InvalidArgument; NotFound without a CUDA device.
    void register_cuda();
    // Keys of the present objects, in no order; each once, also if both tiers have it. Throws the
    // error of the second tier if its answer is incomplete.
    [[nodiscard]] std::vector<std::string> keys(const Wait& wait = {}) const;
    [[nodiscard]] StoreStats stats() const;  // reads every entry
    // Reaps dead participants now, instead of when room is needed.
    void reap_dead() noexcept;

    [[nodiscard]] std::string name() const;
    [[nodiscard]] std::string instance() const;
    [[nodiscard]] std::uint64_t capacity() const noexcept;
    [[nodiscard]] bool is_open() const noexcept { return core_ != nullptr; }
    [[nodiscard]] bool is_tiered() const noexcept { return tier_ != nullptr; }

    // Waits until all objects put before are in the second tier or dropped. is_nothing(): all were
    // written; always so without a second tier.
    Unwritten flush(const Wait& wait = {}) noexcept;
    // flush(), then leaves the second tier and drops pending writes; the result is final. The first
    // tier stays usable. Any thread, also while others use the handle: their present and later
    // requests to a server are Cancelled.
    Unwritten finish(const Wait& wait = {}) noexcept;
    // finish(), then leaves the store. Pinned objects and reservations stay valid until they are
    // released, committed or aborted; their commit reaches only the first tier. No other thread may
    // use the handle meanwhile.
    Unwritten close(const Wait& wait = {}) noexcept;
    // Ends the waits of other threads with Cancelled, and the requests of the second tier: pending
    // writes are dropped. Any thread.
    void request_close() noexcept;

private:
    explicit Store(std::shared_ptr<detail::StoreCore> core);
    void stand_before(std::shared_ptr<detail::SecondTier> tier);
    [[nodiscard]] bool asks(const Wait& wait) const noexcept {
        return tier_ != nullptr && !wait.deadline.is_try();
    }

    std::shared_ptr<detail::StoreCore> core_;  // null: closed, or moved from
    std::shared_ptr<detail::SecondTier> tier_;
    std::string name_;
    std::string instance_;
};

struct StoreInfo {
    SegmentSummary segment;
    StoreStats stats;
};

// Inspection of a store without attaching. Throws NotFound, Incompatible, Corrupt,
// PermissionDenied.
StoreInfo inspect_store(const std::string& name);

}  // namespace penstock

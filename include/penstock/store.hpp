// Named immutable objects in shared memory: reserve, write, commit; look up, read in place,
// release; evicted when memory is wanted.
//
// Every process writes and reads by itself: there is no server, and looking up takes no lock. An
// object is there whole or not at all. A reservation and a pin live as long as they are held, or
// as long as their process: death gives them back at once, lateness never does.
//
// What a call answers, and how it says so:
//   hit        a value
//   miss       NotFound        there is no such object; without a sentence, because it is no fault
//   exists     AlreadyExists   it was committed before
//   staged     Busy            a living process writes it: peer() is its slot, message() its name
//   no space   NoSpace         what is pinned and staged leaves no room now
//   too large  TooLarge        it could never fit
//   expired    Expired         the reservation or the reference is not good any more
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
#include "penstock/segment.hpp"
#include "penstock/statistics.hpp"
#include "penstock/wait.hpp"

namespace penstock {

namespace detail {
struct StoreCore;
}  // namespace detail

// Which object to evict when memory is wanted; never one that is pinned, staged or kept.
enum class Eviction : std::uint32_t {
    // The oldest that was not read since the hand last passed it (Y. Zhang et al., "SIEVE is
    // simpler
    // than LRU", NSDI 2024). Costs a reader one bit.
    Sieve = 0,
    Fifo = 1,  // the oldest
    Lru = 2,   // the one that was not read for longest; readers move what they read
    None = 3,  // never: a writer that finds no room gets NoSpace
};
std::string_view to_string(Eviction eviction) noexcept;

struct StoreOptions {
    // Bytes for objects, with keys and metadata; rounded up to 64 KiB. Address range: memory is
    // reserved when objects first need it, and given back by trim().
    std::uint64_t capacity = std::uint64_t{256} << 20U;
    std::uint64_t objects = 0;   // at most, about; 0: one for each 16 KiB, 1024 at least
    unsigned participants = 64;  // participants at most
    Eviction eviction = Eviction::Sieve;
    // What sizes are rounded up to, 64 or more; 0: 64 up to 16 MiB, then 512, and so on so that the
    // accounts of the heap stay below 32 MiB.
    std::uint64_t granule = 0;
    // Stays, with its objects, when the last participant has left in good order.
    bool persistent = false;
    MemoryOptions memory = {};
    // A user whose abandoned segment of that name is replaced, too; otherwise one's own only.
    std::optional<std::uint32_t> replaces_owner = std::nullopt;
};

struct ReserveOptions {
    std::span<const std::byte> meta = {};  // stored beside the object; up to 16 MiB
    std::uint64_t alignment = 64;          // of the object's bytes, a power of two up to 2 MiB
    unsigned weight = 0;                   // how often more the hand passes it by; up to 100
    Format format = Format::Bytes;
    // The commit is refused (Expired) from then on, and the key is free for others. The memory
    // stays the writer's until it lets go.
    std::optional<std::chrono::nanoseconds> expires_after = std::nullopt;
};

// Names one object for ever: another of the same key has another. To be sent to other processes.
struct StoreRef {
    std::uint32_t entry = 0;
    std::uint64_t incarnation = 0;
};

// Where the bytes of a reservation lie in the segment's file, for callers that map them for a
// writer at addresses of its own.
struct StorePlace {
    // The store's, while the reservation is open; -1 also where the program has closed it.
    int descriptor = -1;
    std::uint64_t offset = 0;
    // The pages are locked, or pinned for a device: their mapping must stay as it is.
    bool is_fixed = false;
};

// A pinned object: it stays, and is not evicted, until release(). Any thread; outlives the Store
// handle.
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
    // Where bytes() begins in the segment's file, /dev/shm/penstock.NAME: another process that has
    // opened or mapped the file may read the object there for as long as this pin is held, and no
    // longer: then it may be another object's memory. It must not be written. 0: it was released,
    // and in a forked child.
    [[nodiscard]] std::uint64_t offset() const noexcept;
    [[nodiscard]] bool is_open() const noexcept { return core_ != nullptr; }
    // Ok: what was read of it before is what was sent. WrongProcess: this handle lost its place
    // (its descriptor was closed by this process), and the memory may have been another's.
    [[nodiscard]] Status check_held() const noexcept;
    void release() noexcept;  // the second time it does nothing
    // Another pin on the same object, for a holder of its own: no look-up, and not counted as read.
    [[nodiscard]] StoreObject share() const noexcept;

    // For the library.
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

// An object that is not visible yet. Dropped without commit it was never there. Any thread, one at
// a time; outlives the Store handle.
class StoreReservation {
public:
    StoreReservation(StoreReservation&& other) noexcept;
    StoreReservation& operator=(StoreReservation&& other) noexcept;
    ~StoreReservation();

    // To write into, until commit() or abort(). Uninitialised.
    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
    // Of nothing, once it is over, and in a forked child.
    [[nodiscard]] StoreRef ref() const noexcept;
    // Where bytes() begins in the segment's file, /dev/shm/penstock.NAME: another process that has
    // opened or mapped the file may write the object there, until commit() or abort(), or until
    // this process dies: then it may be another object's memory. Neither commit() nor resize()
    // moves it. 0: it is over, and in a forked child.
    [[nodiscard]] std::uint64_t offset() const noexcept;
    [[nodiscard]] bool is_open() const noexcept { return core_ != nullptr; }
    [[nodiscard]] StorePlace place() const noexcept;  // without a descriptor once it is over
    // False: it is over, or its store was left, or lost; nothing can be committed.
    [[nodiscard]] bool is_usable() const noexcept;
    [[nodiscard]] bool is_fixed() const noexcept;  // see StorePlace

    // Makes it visible. Expired: clear() or its deadline came first; it is gone.
    Status commit() noexcept;
    // The same, and keeps it pinned from the first moment on.
    Result<StoreObject> commit_pinned() noexcept;
    void abort() noexcept;
    // Shorter, always; longer where room follows it, and nothing moves: NoSpace otherwise, with
    // everything as before. bytes() changes its length and not its place.
    Status resize(std::uint64_t nbytes) noexcept;

    // For the library.
    StoreReservation(std::shared_ptr<detail::StoreCore> core, std::uint32_t entry,
                     std::span<std::byte> bytes) noexcept;

private:
    std::shared_ptr<detail::StoreCore> core_;
    std::uint32_t entry_;
    std::span<std::byte> bytes_;
};

// Of a whole store since its creation, and how it stands now.
#define PENSTOCK_STORE_STATISTICS(X)                                                             \
    X(std::uint64_t, capacity, Bytes, "Room for objects, with their keys and metadata.")         \
    X(std::uint64_t, used_bytes, Bytes, "The sum of the five from object_bytes on.")             \
    X(std::uint64_t, free_bytes, Bytes, "The rest of the capacity, to the byte.")                \
    X(std::uint64_t, object_bytes, Bytes,                                                        \
      "Of the objects that are there: data, metadata and keys.")                                 \
    X(std::uint64_t, staged_bytes, Bytes, "The same of objects that are being written.")         \
    X(std::uint64_t, doomed_bytes, Bytes,                                                        \
      "The same of objects that were deleted and are still being read.")                         \
    X(std::uint64_t, padding_bytes, Bytes, "To alignment and granule.")                          \
    X(std::uint64_t, other_bytes, Bytes, "On its way to be free, or back to the system.")        \
    X(std::uint64_t, largest_free, Bytes, "The longest free piece.")                             \
    X(std::uint64_t, objects, Gauge, "Objects that are there.")                                  \
    X(std::uint64_t, staged, Gauge, "Objects that are being written.")                           \
    X(std::uint64_t, doomed, Gauge, "Objects that were deleted and are still being read.")       \
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
    X(std::uint64_t, refused, Counter, "Reservations refused for want of room.")                 \
    X(Eviction, eviction, Word, "What is evicted when room is wanted.")
PENSTOCK_STATISTICS(StoreStats, SegmentStats, PENSTOCK_STORE_STATISTICS);

// One key of reserve_many().
struct StoreRequest {
    std::string_view key;
    std::uint64_t nbytes = 0;
};

// The state of a key, for callers that do not want the object.
struct StoreLook {
    enum class State : std::uint8_t { Miss, Hit, Staged } state = State::Miss;
    int staged_by = -1;  // a participant's place
    std::uint64_t nbytes = 0;
    bool is_retained = false;  // by retain()
};

// One participant's handle. Any thread may use it. Keys are 1 to 4096 bytes. It belongs to its
// process: in a forked child every call says WrongProcess.
class Store {
public:
    // Throws InvalidName, InvalidArgument, AlreadyExists (a living process has it, or it is
    // abandoned and keeps data: a persistent store with objects, a queue with messages), NoSpace or
    // PermissionDenied.
    static Store create(const std::string& name, const StoreOptions& options = {});
    // Waits until `wait` ends for the name to appear. Throws NotFound, Busy (every place is taken),
    // Incompatible, Corrupt or PermissionDenied: that at once, for a store of another user than
    // this process's own and the one that `trust` names.
    static Store attach(const std::string& name, const Wait& wait = Deadline::now(),
                        const std::string& instance = {}, const Trust& trust = {});

    Store(Store&& other) noexcept;
    Store& operator=(Store&& other) noexcept;
    ~Store();

    // Room for an object of so many bytes. Evicts others in line where that is needed.
    Result<StoreReservation> reserve(std::string_view key, std::uint64_t nbytes,
                                     const ReserveOptions& options = {}) noexcept;
    // reserve(), copy, commit().
    Status put(std::string_view key, std::span<const std::byte> value,
               const ReserveOptions& options = {}) noexcept;

    Result<StoreObject> get(std::string_view key) noexcept;
    // The very object, or NotFound: never another.
    Result<StoreObject> get(const StoreRef& ref) noexcept;
    // get(), as soon as it is there. Timeout, Cancelled, Closed.
    Result<StoreObject> wait(std::string_view key, const Wait& wait) noexcept;
    [[nodiscard]] bool contains(std::string_view key) noexcept;
    [[nodiscard]] StoreLook look(std::string_view key) noexcept;

    // Batches: an outcome for each key, in order. With `prefix` they stop at the first that is not
    // to be had, which is the last outcome then.
    std::vector<Result<StoreReservation>> reserve_many(std::span<const StoreRequest> requests,
                                                       const ReserveOptions& options = {},
                                                       bool prefix = false);
    std::vector<Result<StoreObject>> get_many(std::span<const std::string_view> keys,
                                              bool prefix = false);

    // Look-ups miss it from now on; readers that hold it may go on. NotFound.
    Status remove(std::string_view key) noexcept;
    // Counts as read. False: it is not there.
    bool touch(std::string_view key) noexcept;
    // Not evicted until release(), also after this process has died. Calls add up.
    Status retain(std::string_view key) noexcept;
    Status release(std::string_view key) noexcept;
    // Removes everything, and refuses the commit of what is being written. How many there were.
    std::uint64_t clear() noexcept;
    // Gives the memory of free room back to the system, all but so much; what it gave back. Nothing
    // of a store whose memory was reserved at creation (populate, lock_memory, huge_pages).
    std::uint64_t trim(std::uint64_t keep_bytes = 0) noexcept;
    // Maps the memory that the store has now into this process, which other processes can't do for
    // it: the first store and the first read of each page then cost what later ones do. All of a
    // store that was created with populate, lock_memory or huge_pages; of another what is in use.
    // Timeout, Cancelled: what was mapped until then stays so. NoSpace, InvalidArgument (before
    // Linux 5.14). Any thread, while others use the store.
    Status populate(const Wait& wait = {}) noexcept;
    // From now on the store stays when the last participant leaves, as if it had been created
    // `persistent`; create() does not replace it while objects are in it.
    Status persist() noexcept;
    [[nodiscard]] bool is_persistent() const noexcept;
    // Pins the store's memory for the GPU: copies between it and a device need no staging then.
    // Until this handle, and what it gave, is gone. Needs a store that was created with populate,
    // lock_memory or huge_pages. Throws InvalidArgument; NotFound, where there is no CUDA device.
    void register_cuda();
    // What is there at this moment, in no order.
    [[nodiscard]] std::vector<std::string> keys() const;
    [[nodiscard]] StoreStats stats() const;  // looks at everything
    // Takes back what the dead held, now rather than when room is wanted.
    void reap_dead() noexcept;

    [[nodiscard]] std::string name() const;
    [[nodiscard]] std::string instance() const;
    [[nodiscard]] std::uint64_t capacity() const noexcept;
    [[nodiscard]] bool is_open() const noexcept { return core_ != nullptr; }

    // Leaves. Objects that are pinned, and reservations, stay until they are let go.
    void close() noexcept;
    // Ends the waits of other threads; they return Cancelled. Any thread.
    void request_close() noexcept;

private:
    explicit Store(std::shared_ptr<detail::StoreCore> core);
    std::shared_ptr<detail::StoreCore> core_;  // none once it is closed, or moved from
    std::string name_;
    std::string instance_;
};

struct StoreInfo {
    SegmentSummary segment;
    StoreStats stats;
};

// One store from outside. Throws NotFound, Incompatible, Corrupt, PermissionDenied.
StoreInfo inspect_store(const std::string& name);

}  // namespace penstock

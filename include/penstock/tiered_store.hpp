// A Store with a second tier behind it, Redis or Valkey, for what does not fit one machine or is
// wanted by several.
//
// The first tier is a Store as always: what is there is found there, and no server is asked. What
// is not there is fetched from the second tier into a reservation of the first, and committed. What
// is put goes to the second tier at once, later, or not at all, by policy. A server that is gone or
// hangs turns look-ups into misses and is counted; it never makes the first tier wait.
// docs/second_tier.md says what is promised and what is not.
//
// Beside what Store answers, calls that speak to a server answer
//   Timeout            it did not answer in time
//   PeerDied           it cannot be reached, or could not be a moment ago and is not asked now
//   PermissionDenied   it does not accept the password
//   System             it answered with an error, which the sentence quotes
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/store.hpp"

namespace penstock {

namespace detail {
class TierCore;
}  // namespace detail

enum class TierPolicy : std::uint32_t {
    WriteBack = 0,     // put() returns when the first tier has it; threads write it to the second
    WriteThrough = 1,  // put() returns when both have it, or says that the second has not
    ReadOnly = 2,      // nothing is written to the second tier, or removed there
};
std::string_view to_string(TierPolicy policy) noexcept;

// What put() does when max_inflight_bytes are waiting already.
enum class WhenFull : std::uint32_t {
    Drop = 0,  // the second tier does without the object, at once; counted
    Wait = 1,  // for room, for at most full_timeout; then the same. Never while a server is away.
};
std::string_view to_string(WhenFull when_full) noexcept;

struct TieredOptions {
    // redis://[user:password@]host[:port][/db] or unix:[//user:password@]/path[?db=N]; "%40" stands
    // for "@".
    // One; or with `cluster` several, each of which knows the others.
    std::vector<std::string> urls;
    bool cluster = false;
    // Before every key in the second tier; the same in all processes that share objects.
    std::string prefix = "penstock:";
    TierPolicy policy = TierPolicy::WriteBack;

    std::chrono::nanoseconds connect_timeout = std::chrono::seconds(1);
    // For one request and its answer: at most part_bytes and 64 KiB.
    std::chrono::nanoseconds request_timeout = std::chrono::seconds(2);
    // A server that failed is tried again by a thread after this long, doubling up to `retry_most`.
    std::chrono::nanoseconds retry_first = std::chrono::milliseconds(50);
    std::chrono::nanoseconds retry_most = std::chrono::seconds(5);

    // Objects that wait to be written back stay pinned in the first tier: at most so many bytes of
    // them, and never more than half of its capacity.
    std::uint64_t max_inflight_bytes = std::uint64_t{256} << 20U;
    WhenFull when_full = WhenFull::Drop;
    std::chrono::nanoseconds full_timeout = std::chrono::seconds(1);
    unsigned writers = 1;  // threads that write back, 1 to 64

    // Larger objects lie in the second tier in parts of this size, 4 KiB to 512 MiB.
    std::uint64_t part_bytes = std::uint64_t{64} << 20U;
    // How long the second tier keeps an object; for ever, as far as it goes, if not said.
    std::optional<std::chrono::milliseconds> ttl = std::nullopt;
    // What is found damaged is deleted there, and not only missed.
    bool delete_corrupt = false;
};

enum class CircuitState : std::uint32_t {
    Closed = 0,   // every server is asked
    Partial = 1,  // of a cluster, some are not
    Open = 2,     // none is asked: all failed, and are tried again now and then
};
std::string_view to_string(CircuitState state) noexcept;

// Of this handle, since it was made.
struct TierStats {
    std::uint64_t hits = 0;      // fetched from the second tier
    std::uint64_t misses = 0;    // the second tier was asked and had it not, or not soundly
    std::uint64_t skipped = 0;   // not asked: the circuit was open
    std::uint64_t shared = 0;    // gets that waited for another thread's fetch of the same key
    std::uint64_t errors = 0;    // requests that failed, other than by time
    std::uint64_t timeouts = 0;  // requests that failed by time
    std::uint64_t corrupt = 0;   // values that were not what was written
    // Values that are sound and can't be read here: of another version of the layout, or such that
    // the reader's FetchCheck says so.
    std::uint64_t incompatible = 0;
    // Values that the first tier has no room for: larger than it, or all else there is in use.
    std::uint64_t no_room = 0;
    std::uint64_t fetched_bytes = 0;  // data and metadata of `hits`
    std::uint64_t written = 0;        // objects written to the second tier
    std::uint64_t written_bytes = 0;
    std::uint64_t dropped = 0;  // objects that were put and that the second tier does without
    std::uint64_t dropped_bytes = 0;
    std::uint64_t inflight = 0;  // objects that wait to be written back, or are being
    std::uint64_t inflight_bytes = 0;
    std::uint64_t servers = 0;       // that are known
    std::uint64_t servers_away = 0;  // of them, by their circuits
    CircuitState circuit = CircuitState::Closed;
    // Of the last that `errors`, `timeouts`, `corrupt`, `incompatible` or `no_room` counted. What a
    // server said is quoted: 200 bytes of it, made printable.
    std::string last_error;
};

// A value from the second tier that has come whole, before others of this machine see it.
struct FetchedValue {
    std::span<const std::byte> bytes;  // in shared memory, 64-byte aligned
    std::span<const std::byte> meta;
    Format format = Format::Bytes;
};

// What its reader says of it. Not Accept: a miss, counted as `incompatible` or `corrupt`.
struct FetchResult {
    enum class Kind : std::uint8_t {
        Accept,
        Incompatible,  // sound, and not for this reader
        Corrupt,       // not what a writer writes; deleted where `delete_corrupt` says so
    } kind = Kind::Accept;
    std::string sentence;
};
// Called on the thread that fetches. Throws nothing.
using FetchCheck = std::function<FetchResult(const FetchedValue&)>;

// What the second tier has not got of what was put; or has got, without our knowing.
struct Unwritten {
    std::uint64_t waiting = 0;  // still under way when the time was over
    std::uint64_t waiting_bytes = 0;
    std::uint64_t dropped = 0;  // given up since the last report, for room or after failures
    std::uint64_t dropped_bytes = 0;

    [[nodiscard]] bool is_nothing() const noexcept { return waiting == 0 && dropped == 0; }
};

// An object that is not visible yet: a StoreReservation whose commit goes on to the second tier.
// Any thread, one at a time; outlives the handle.
class TieredReservation {
public:
    TieredReservation(TieredReservation&& other) noexcept;
    TieredReservation& operator=(TieredReservation&& other) noexcept;
    ~TieredReservation();

    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return first_.bytes(); }
    [[nodiscard]] StoreRef ref() const noexcept { return first_.ref(); }
    [[nodiscard]] std::uint64_t offset() const noexcept { return first_.offset(); }
    [[nodiscard]] bool is_open() const noexcept { return first_.is_open(); }
    [[nodiscard]] StorePlace place() const noexcept { return first_.place(); }
    [[nodiscard]] bool is_usable() const noexcept { return first_.is_usable(); }
    [[nodiscard]] bool is_fixed() const noexcept { return first_.is_fixed(); }

    // Expired: as with Store. By WriteThrough also what speaks of a server: the object is in the
    // first tier then, and not in the second. `wait` may end what is asked of a server before its
    // timeouts do: Timeout or Cancelled.
    Status commit(const Wait& wait = {}) noexcept;
    // The same, and keeps the object pinned where the first tier has got it, whatever is returned.
    Status commit(std::optional<StoreObject>& pinned, const Wait& wait = {}) noexcept;
    void abort() noexcept { first_.abort(); }
    Status resize(std::uint64_t nbytes) noexcept { return first_.resize(nbytes); }

    // For the library.
    TieredReservation(std::shared_ptr<detail::TierCore> core, std::string key,
                      StoreReservation first) noexcept;

private:
    std::shared_ptr<detail::TierCore> core_;
    std::string key_;
    StoreReservation first_;
};

// One participant's handle. Any thread may use it. Has threads of its own; in a forked child every
// call says WrongProcess.
class TieredStore {
public:
    // Takes the handle over; if it throws, `first` is the caller's as before. Tries the server
    // once: PermissionDenied if it refuses us; a server that is not there is an outage, which may
    // end. Throws InvalidArgument, also where the library was built without Redis.
    TieredStore(Store&& first, const TieredOptions& options);

    TieredStore(TieredStore&& other) noexcept;
    TieredStore& operator=(TieredStore&& other) noexcept;
    ~TieredStore();  // close(), without waiting

    Result<TieredReservation> reserve(std::string_view key, std::uint64_t nbytes,
                                      const ReserveOptions& options = {}) noexcept;
    // What asks a server takes at most the timeouts; `wait` may end it before, within 80 ms: with
    // Timeout or Cancelled.

    // reserve(), copy, commit().
    Status put(std::string_view key, std::span<const std::byte> value,
               const ReserveOptions& options = {}, const Wait& wait = {}) noexcept;
    // From the first tier; or through it, from the second. Whatever is wrong with the second tier,
    // or with its value, is NotFound: an outage, damage, or an object for which the first tier has
    // no room. stats() says what it was. An object takes at most request_timeout for each begun
    // part_bytes of it, and one more. Threads that miss one key together share one fetch.
    Result<StoreObject> get(std::string_view key, const Wait& wait = {}) noexcept;
    // The same for a caller that has just missed it in first(). `check` may refuse what comes.
    Result<StoreObject> fetch(std::string_view key, const Wait& wait = {},
                              const FetchCheck& check = {}) noexcept;
    // In the first tier, or by its name in the second.
    [[nodiscard]] bool contains(std::string_view key, const Wait& wait = {}) noexcept;
    // From both. NotFound: neither had it. A server's failure: the first tier has it no more, and
    // the second perhaps still has. Parts of an object that has very many may stay, without its
    // head: they are removed for eight request_timeouts at most.
    Status remove(std::string_view key, const Wait& wait = {}) noexcept;

    // Waits until all that was put before is written, or given up. Nothing was, if is_nothing().
    Unwritten flush(const Wait& wait = {}) noexcept;
    // flush(), then the threads end and what still waits is given up; what it returns is final. The
    // first tier goes on. Any thread, while others use the handle: what they ask of a server from
    // then on, or are asking, is Cancelled.
    Unwritten finish(const Wait& wait = {}) noexcept;
    // finish(), and leaves the first tier when the last reservation is gone, whose commit reaches
    // only that. The handle must not be in use elsewhere meanwhile.
    Unwritten close(const Wait& wait = {}) noexcept;
    // Ends what waits for a server, in other threads, within 80 ms: they return Cancelled, and what
    // waits to be written is given up. Any thread.
    void request_close() noexcept;

    [[nodiscard]] TierStats stats() const;
    // The first tier, for all else; a closed handle's is closed.
    [[nodiscard]] Store& first() noexcept;
    [[nodiscard]] bool is_open() const noexcept { return core_ != nullptr; }

private:
    std::shared_ptr<detail::TierCore> core_;  // none once it is closed, or moved from
    Store none_;                              // closed: first() then
};

}  // namespace penstock

// Second tier of a Store: Redis or Valkey, for objects that do not fit one machine or are used by
// several.
//
// Look-ups that hit the first tier, shared memory, ask no server. Misses read through: the object
// is fetched into a reservation of the first tier and committed there. Writes are write-back,
// write-through or none, by policy. An outage turns misses of the first tier into misses of the
// store, and is counted. docs/second_tier.md lists what is promised and what is not.
//
// Error codes of calls that contact a server, in addition to those of Store:
//   Timeout            no answer in time
//   PeerDied           the server can't be reached, or its circuit breaker is open
//   PermissionDenied   the server refuses the credentials, or these the command
//   System             the server answered with an error, which the sentence quotes
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/format.hpp"
#include "penstock/statistics.hpp"

namespace penstock {

enum class TierPolicy : std::uint32_t {
    WriteBack = 0,     // put() returns once the first tier has it; threads write it to the second
    WriteThrough = 1,  // put() returns once both tiers have it, or an error if the second has not
    ReadOnly = 2,      // the second tier is never written to, and nothing is removed there
};
std::string_view to_string(TierPolicy policy) noexcept;

// Reaction of put() when max_inflight_bytes are waiting already.
enum class WhenFull : std::uint32_t {
    Drop = 0,  // the object is not written to the second tier, and counted as dropped
    Wait = 1,  // put() waits for room, at most full_timeout and not during an outage; then Drop
};
std::string_view to_string(WhenFull when_full) noexcept;

struct SecondTierOptions {
    // redis://[user:password@]host[:port][/db] or unix:[//user:password@]/path[?db=N]; "%40" stands
    // for "@". A cluster: redis+cluster://[user:password@]host[:port][,host[:port]...], which names
    // some of its servers. The master of a service of Sentinels: redis+sentinel://[user:password@]
    // host[:port][,host[:port]...]/service[/db], which names Sentinels; user and password are the
    // master's. "valkey" may replace "redis". A cluster, and Sentinels, may have several URLs.
    std::vector<std::string> urls;
    // Prefix of every key in the second tier; the same in all processes that share objects.
    std::string prefix = "penstock:";
    TierPolicy policy = TierPolicy::WriteBack;

    std::chrono::nanoseconds connect_timeout = std::chrono::seconds(1);
    // For one request with its answer: one part, or a head with its metadata, at most.
    std::chrono::nanoseconds request_timeout = std::chrono::seconds(2);
    // Pause before a thread tries a failed server again; doubles up to `retry_most`.
    std::chrono::nanoseconds retry_first = std::chrono::milliseconds(50);
    std::chrono::nanoseconds retry_most = std::chrono::seconds(5);

    // Bound of the objects that wait to be written back, which stay pinned in the first tier; never
    // more than half of its capacity.
    std::uint64_t max_inflight_bytes = std::uint64_t{256} << 20U;
    WhenFull when_full = WhenFull::Drop;
    std::chrono::nanoseconds full_timeout = std::chrono::seconds(1);
    unsigned writers = 1;  // threads of the write-back, 1 to 64

    // Size of a part, 4 KiB to 512 MiB. Data of more than 16 MiB, or of more than this and 64 KiB,
    // is written in parts.
    std::uint64_t part_bytes = std::uint64_t{64} << 20U;
    // Lifetime of an object in the second tier; none: until the server evicts it.
    std::optional<std::chrono::milliseconds> ttl = std::nullopt;
    // Damaged values are deleted there, unless the policy is ReadOnly, and not only missed.
    bool delete_corrupt = false;
    // create() and attach() try the servers. If false, they wait for no server and refuse no
    // password: the first call that needs a server connects.
    bool has_trial = true;
};

enum class CircuitState : std::uint32_t {
    Closed = 0,   // all servers are asked
    Partial = 1,  // of a cluster: some servers are not asked
    Open = 2,     // no server is asked: all failed, and are retried after pauses
};
std::string_view to_string(CircuitState state) noexcept;

// Statistics of one handle since it was made. `last_error` may quote a server: at most 200 bytes,
// made printable.
#define PENSTOCK_TIER_STATISTICS(X)                                                                \
    X(std::uint64_t, hits, Counter, "Fetched from the second tier.")                               \
    X(std::uint64_t, misses, Counter, "Asked, and the second tier had no value that can be read.") \
    X(std::uint64_t, skipped, Counter, "Not asked: the circuit was open.")                         \
    X(std::uint64_t, shared, Counter,                                                              \
      "Gets that waited for another thread's fetch of the same key.")                              \
    X(std::uint64_t, errors, Counter, "Requests that failed, other than by timeout.")              \
    X(std::uint64_t, timeouts, Counter, "Requests that timed out.")                                \
    X(std::uint64_t, corrupt, Counter, "Values that differ from what was written.")                \
    X(std::uint64_t, incompatible, Counter,                                                        \
      "Sound values that can't be read here: of another version, or refused by the reader.")       \
    X(std::uint64_t, no_room, Counter,                                                             \
      "Values larger than the first tier, or than what is not in use there.")                      \
    X(std::uint64_t, fetched_bytes, CountedBytes, "Data and metadata of the hits.")                \
    X(std::uint64_t, written, Counter, "Objects written to the second tier.")                      \
    X(std::uint64_t, written_bytes, CountedBytes, "Data and metadata of the objects written.")     \
    X(std::uint64_t, dropped, Counter,                                                             \
      "Objects that were put and not written to the second tier.")                                 \
    X(std::uint64_t, dropped_bytes, CountedBytes, "Data and metadata of the objects dropped.")     \
    X(std::uint64_t, inflight, Gauge,                                                              \
      "Objects that wait to be written back, or are being written.")                               \
    X(std::uint64_t, inflight_bytes, Bytes, "Data and metadata of the objects in flight.")         \
    X(std::uint64_t, servers, Gauge, "Known servers.")                                             \
    X(std::uint64_t, servers_away, Gauge, "Of the known servers, those whose circuit is open.")    \
    X(CircuitState, circuit, Word,                                                                 \
      "Closed: every server is asked; partial: of a cluster, some are not; open: none is.")        \
    X(std::string, last_error, Part,                                                               \
      "Why the last of errors, timeouts, corrupt, incompatible or no_room was counted.")
PENSTOCK_STATISTICS(TierStats, Statistics, PENSTOCK_TIER_STATISTICS);

// A complete value from the second tier, not yet visible to other readers of this machine.
struct FetchedValue {
    std::span<const std::byte> bytes;  // in shared memory, 64-byte aligned
    std::span<const std::byte> meta;
    Format format = Format::Bytes;
};

// Result of a FetchCheck. Incompatible and Corrupt are misses, counted under that name.
struct FetchResult {
    enum class Kind : std::uint8_t {
        Accept,
        Incompatible,  // sound, but this reader can't use it
        Corrupt,       // no writer produces it; deleted if `delete_corrupt` is set
        Cancelled,     // the reader was interrupted: get() returns Cancelled
    } kind = Kind::Accept;
    std::string sentence;
};
// Check of a fetched value, called on the thread that fetches. Must not throw.
using FetchCheck = std::function<FetchResult(const FetchedValue&)>;

// Objects that were put and not acknowledged by the second tier. A request that timed out may still
// have been executed there.
struct Unwritten {
    std::uint64_t waiting = 0;  // not written yet when the wait ended
    std::uint64_t waiting_bytes = 0;
    std::uint64_t dropped = 0;  // given up since the last report: no room, or failures
    std::uint64_t dropped_bytes = 0;

    [[nodiscard]] bool is_nothing() const noexcept { return waiting == 0 && dropped == 0; }
};

}  // namespace penstock

// What may stand behind a Store: a second tier, Redis or Valkey, for what does not fit one machine
// or is wanted by several.
//
// What the first tier, shared memory, has is found there, and no server is asked. What it has not
// is fetched from the second into a reservation of the first, and committed. What is put goes to
// the second tier at once, later, or not at all, by policy. A server that is gone or hangs turns
// look-ups into misses and is counted; it never makes the first tier wait. docs/second_tier.md says
// what is promised and what is not.
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
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/format.hpp"
#include "penstock/statistics.hpp"

namespace penstock {

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

struct SecondTierOptions {
    // redis://[user:password@]host[:port][/db] or unix:[//user:password@]/path[?db=N]; "%40" stands
    // for "@". A cluster: redis+cluster://[user:password@]host[:port][,host[:port]...], which names
    // some of its servers. What Sentinels watch over: redis+sentinel://[user:password@]host[:port]
    // [,host[:port]...]/service[/db], which names Sentinels; user and password are the servers'.
    // "valkey" stands for "redis" everywhere. Of a cluster and of Sentinels there may be several
    // URLs.
    std::vector<std::string> urls;
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
    // Whether the servers are tried when it is opened. If not, that waits for none and refuses no
    // password: the first call that needs a server meets it.
    bool has_trial = true;
};

enum class CircuitState : std::uint32_t {
    Closed = 0,   // every server is asked
    Partial = 1,  // of a cluster, some are not
    Open = 2,     // none is asked: all failed, and are tried again now and then
};
std::string_view to_string(CircuitState state) noexcept;

// Of one handle of a store, since it was made. `last_error` quotes a server: 200 bytes of it, made
// printable.
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

// A value from the second tier that has come whole, before others of this machine see it.
struct FetchedValue {
    std::span<const std::byte> bytes;  // in shared memory, 64-byte aligned
    std::span<const std::byte> meta;
    Format format = Format::Bytes;
};

// What its reader says of it. Incompatible and Corrupt: a miss, counted so.
struct FetchResult {
    enum class Kind : std::uint8_t {
        Accept,
        Incompatible,  // sound, and not for this reader
        Corrupt,       // not what a writer writes; deleted where `delete_corrupt` says so
        Cancelled,     // the reader was called off: get() is Cancelled
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

}  // namespace penstock

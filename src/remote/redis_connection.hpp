// Connection to a Redis or Valkey server: a request, then its answer, by a deadline.
//
// hiredis connects, and parses answers other than values; this class moves the bytes. The reads and
// writes of hiredis have a timeout per system call instead of per request, raise SIGPIPE when the
// server has gone, and copy the data; here values go straight from and into shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "penstock/wait.hpp"
#include "remote/endpoint.hpp"
#include "remote/value_format.hpp"

namespace penstock::detail {

// Answer of a server. A value.
struct RedisReply {
    enum class Kind : std::uint8_t { Nil, Line, Error, Integer, Bytes, Array };
    Kind kind = Kind::Nil;
    long long integer = 0;
    std::string text;  // of Line, Error and Bytes; empty if the bytes went to a ValueSink
    std::vector<RedisReply> elements;
};

enum class RedisFault : std::uint8_t {
    None,
    Away,       // not asked: its circuit is open
    Timeout,    // no answer in time
    Lost,       // the connection could not be made, or broke
    Refused,    // credentials, permissions or database were not accepted
    Garbled,    // the answer violates the protocol, or is larger than allowed
    Said,       // the server answered with another error
    Misfit,     // a value of another length than expected
    Cancelled,  // the tier is closing, or the caller's Wait ended
};

struct RedisOutcome {
    RedisFault fault = RedisFault::None;
    RedisReply reply;
    std::string sentence;  // of a fault

    [[nodiscard]] bool is_answered() const noexcept { return fault == RedisFault::None; }
};

// Where a value that the server has announced is stored.
struct ValueRoom {
    // Misfit or Cancelled: the value is not received, and the connection is of no further use.
    RedisFault fault = RedisFault::None;
    std::uint64_t skipped = 0;         // its first bytes, which are not stored; at most those seen
    std::span<std::byte> memory = {};  // for the bytes after these
    std::span<std::byte> tail = {};    // for the rest
};

// Destination of the value that answers a request. Called on the thread of the request.
class ValueSink {
public:
    ValueSink() = default;
    ValueSink(const ValueSink&) = delete;
    ValueSink& operator=(const ValueSink&) = delete;
    virtual ~ValueSink() = default;

    // Bytes to receive before the length is known; more are copied from the connection's buffer.
    [[nodiscard]] virtual std::size_t first_read() const noexcept = 0;
    // Bytes that begin() must see of a value of `bytes` bytes, at most kSeenMost; it may see more.
    [[nodiscard]] virtual std::size_t seen_of(std::uint64_t bytes) const noexcept = 0;
    // Called once a value of `bytes` bytes is announced, so that no memory is taken for a value
    // that does not exist; called again by another attempt. `seen` is valid during the call.
    virtual ValueRoom begin(std::uint64_t bytes, std::span<const std::byte> seen) = 0;

    static constexpr std::size_t kSeenMost = std::size_t{127} << 10U;
};

// Provides memory for a value of the expected length; nullopt: the value is not wanted any more.
using MakeRoom = std::function<std::optional<std::span<std::byte>>()>;

// A value of exactly `bytes` bytes, received into memory that is asked for once it is announced.
class ExactSink final : public ValueSink {
public:
    ExactSink(std::uint64_t bytes, MakeRoom make_room)
        : bytes_(bytes), make_room_(std::move(make_room)) {}

    [[nodiscard]] std::size_t first_read() const noexcept override { return kLengthLine; }
    [[nodiscard]] std::size_t seen_of(std::uint64_t /*bytes*/) const noexcept override { return 0; }
    ValueRoom begin(std::uint64_t bytes, std::span<const std::byte> /*seen*/) override {
        if (bytes != bytes_) return {RedisFault::Misfit};
        const std::optional<std::span<std::byte>> room = make_room_();
        if (!room) return {RedisFault::Cancelled};
        return {RedisFault::None, 0, *room, {}};
    }

private:
    static constexpr std::size_t kLengthLine = 32;

    const std::uint64_t bytes_;
    const MakeRoom make_room_;
};

struct RedisRequest {
    std::vector<std::string_view> words;
    // Last word of the request, if is_storing, in two pieces; not copied.
    std::span<const std::byte> lead = {};
    std::span<const std::byte> value = {};
    bool is_storing = false;
    // The last word also ends with the seal of `value`, which is computed while `value` is sent.
    bool is_sealed = false;
    // Destination of an answer that is a value; null: the reply.
    ValueSink* sink = nullptr;
    // Checksum of what goes to the sink's memory; rewound by each attempt. Or null.
    RunningChecksum* sum = nullptr;
    // Largest answer without a sink; a longer value is a Misfit.
    std::uint64_t most_bytes = std::uint64_t{1} << 20U;
    // Wait that may end the request before its timeout, as Cancelled, which is no outage; or null.
    const Wait* caller = nullptr;
};

// True: the library was built with hiredis. Otherwise every connection fails as Lost.
[[nodiscard]] bool has_redis() noexcept;

// One thread at a time. Unusable after a fault of exchange().
class RedisConnection {
public:
    // Connects, then sends AUTH and SELECT where needed. Null: `outcome` has the fault. `cancel`
    // must outlive the connection.
    static std::unique_ptr<RedisConnection> open(const Endpoint& endpoint, Deadline deadline,
                                                 const Cancel& cancel, RedisOutcome& outcome,
                                                 const Wait* caller = nullptr);
    RedisConnection(const RedisConnection&) = delete;
    RedisConnection& operator=(const RedisConnection&) = delete;
    ~RedisConnection();

    RedisOutcome exchange(const RedisRequest& request, Deadline deadline);

private:
    struct Link;
    explicit RedisConnection(std::unique_ptr<Link> link) noexcept;
    std::unique_ptr<Link> link_;
};

}  // namespace penstock::detail

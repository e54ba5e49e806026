// Connection to a Redis or Valkey server: a request, then its answer, by a deadline.
//
// hiredis connects and parses answers; this class moves the bytes. The reads and writes of hiredis
// have a timeout per system call instead of per request, raise SIGPIPE when the server has gone,
// and copy the data; here large values go straight from and into shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/wait.hpp"
#include "remote/endpoint.hpp"

namespace penstock::detail {

// Answer of a server. A value.
struct RedisReply {
    enum class Kind : std::uint8_t { Nil, Line, Error, Integer, Bytes, Array };
    Kind kind = Kind::Nil;
    long long integer = 0;
    std::string
        text;  // of Line, Error and Bytes; empty when the bytes went into RedisRequest::into
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

// Provides memory for a value of the expected length; nullopt: the value is not wanted any more.
using MakeRoom = std::function<std::optional<std::span<std::byte>>()>;

struct RedisRequest {
    std::vector<std::string_view> words;
    // Last word of the request, if is_storing; not copied.
    std::span<const std::byte> value = {};
    bool is_storing = false;
    // Destination of an answer of exactly this size; empty: the reply.
    std::span<std::byte> into = {};
    // Alternative to `into`: called only when the server has announced `room_bytes` bytes, so that
    // no memory is taken for a value that does not exist. May be called again by another attempt.
    const MakeRoom* make_room = nullptr;
    std::uint64_t room_bytes = 0;
    // Largest answer if there is neither; a longer value is a Misfit.
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

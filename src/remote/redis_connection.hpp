// One connection to a Redis or Valkey server: a request, then its answer, by a deadline.
//
// hiredis connects and understands answers; the bytes are moved here. Its own reads and writes have
// a timeout for each system call and not for the request, die of SIGPIPE when the server has gone,
// and copy what they move: here large values go straight from and into shared memory.
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

// What a server said. A value.
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
    Refused,    // it does not know us, or not by this password
    Garbled,    // what came is not the protocol, or more than was allowed
    Said,       // it answered with an error
    Misfit,     // a value of another length than is wanted
    Cancelled,  // we are closing, or whoever asked waits no longer
};

struct RedisOutcome {
    RedisFault fault = RedisFault::None;
    RedisReply reply;
    std::string sentence;  // of a fault

    [[nodiscard]] bool is_answered() const noexcept { return fault == RedisFault::None; }
};

// Memory for a value of the length that was asked for. Nothing: it is not wanted any more.
using MakeRoom = std::function<std::optional<std::span<std::byte>>()>;

struct RedisRequest {
    std::vector<std::string_view> words;
    // The last word, if is_storing; not copied.
    std::span<const std::byte> value = {};
    bool is_storing = false;
    // Where an answer of just so many bytes goes; empty: into the reply.
    std::span<std::byte> into = {};
    // Instead of `into`, asked when the server has announced `room_bytes` bytes, and not before: no
    // room is made for what it has not got. May be asked again, by another attempt; not kept.
    const MakeRoom* make_room = nullptr;
    std::uint64_t room_bytes = 0;
    // Of an answer otherwise; a longer value is a Misfit.
    std::uint64_t most_bytes = std::uint64_t{1} << 20U;
    // May end it before its time; null: nothing may. Cancelled then, and no outage.
    const Wait* caller = nullptr;
};

// Whether this library was built with hiredis; if not, nothing here can be called but this.
[[nodiscard]] bool has_redis() noexcept;

// One thread at a time. After any fault it is of no more use.
class RedisConnection {
public:
    // Connects and introduces itself. Null: `outcome` says why not. `cancel` must outlive it.
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

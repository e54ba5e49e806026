// Requests to one server, and the transitions of its circuit.
#include "remote/redis_node.hpp"

#include <utility>

#include "remote/patience.hpp"
#include "remote/shown.hpp"
#include "remote/slots.hpp"

namespace penstock::detail {

namespace {

bool starts_with_any(std::string_view text, std::initializer_list<std::string_view> starts) {
    for (const std::string_view start : starts) {
        if (text.starts_with(start)) return true;
    }
    return false;
}

// Fault of an error reply; None for a redirection.
RedisFault fault_of(std::string_view error) {
    if (starts_with_any(error, {"NOAUTH", "WRONGPASS", "NOPERM"})) return RedisFault::Refused;
    // The server runs but can't serve: an outage.
    if (starts_with_any(error, {"LOADING", "CLUSTERDOWN", "MASTERDOWN"})) return RedisFault::Lost;
    return parse_redirect(error) ? RedisFault::None : RedisFault::Said;
}

// Faults that open the circuit: the next request would probably fail too, and as slowly.
bool is_outage(RedisFault fault) noexcept {
    return fault == RedisFault::Timeout || fault == RedisFault::Lost ||
           fault == RedisFault::Garbled;
}

// True: the answer was read to its end, so the connection can carry another request.
bool is_reusable(RedisFault fault, RedisReply::Kind kind) noexcept {
    return fault == RedisFault::None || fault == RedisFault::Said ||
           (fault == RedisFault::Refused && kind == RedisReply::Kind::Error);
}

}  // namespace

RedisNode::RedisNode(Endpoint endpoint, const RedisTiming& timing, const Cancel& cancel)
    : endpoint_(std::move(endpoint)), timing_(timing), cancel_(cancel),
      circuit_(timing.retry_first, timing.retry_most) {}

std::unique_ptr<RedisConnection> RedisNode::take_idle() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return nullptr;
    std::unique_ptr<RedisConnection> connection = std::move(idle_.back());
    idle_.pop_back();
    return connection;
}

std::unique_ptr<RedisConnection> RedisNode::connect(RedisOutcome& outcome, const Wait* caller) {
    return RedisConnection::open(endpoint_, Deadline::after(timing_.connect_timeout), cancel_,
                                 outcome, caller);
}

void RedisNode::give_back(std::unique_ptr<RedisConnection> connection) {
    constexpr std::size_t kMaxIdle = 16;
    const std::lock_guard lock(mutex_);
    if (idle_.size() < kMaxIdle) idle_.push_back(std::move(connection));
}

void RedisNode::drop_idle() {
    std::vector<std::unique_ptr<RedisConnection>> old;
    const std::lock_guard lock(mutex_);
    old.swap(idle_);
}

RedisOutcome RedisNode::talk(RedisConnection& connection, const RedisRequest& request,
                             bool is_asking) {
    const Deadline deadline = Deadline::after(timing_.request_timeout);
    if (is_asking) {
        RedisOutcome asked = connection.exchange({{"ASKING"}}, deadline);
        if (!asked.is_answered()) return asked;
    }
    RedisOutcome outcome = connection.exchange(request, deadline);
    if (outcome.is_answered() && outcome.reply.kind == RedisReply::Kind::Error) {
        outcome.fault = fault_of(outcome.reply.text);
        if (!outcome.is_answered()) {
            outcome.sentence =
                "the server at " + endpoint_.title() + " says: " + shown_text(outcome.reply.text);
        }
    }
    return outcome;
}

RedisOutcome RedisNode::exchange(const RedisRequest& request, bool is_asking) {
    for (bool is_last = false;; is_last = true) {
        // Checked here too, because a prompt answer involves no wait that would notice it.
        if (cancel_.is_cancelled()) {
            return {RedisFault::Cancelled, {}, "the second tier is being closed"};
        }
        // Checked here too: a series of short requests may never wait long enough to notice it.
        if (request.caller != nullptr && has_ended_by_now(*request.caller)) {
            return {RedisFault::Cancelled, {}, "there was no time left to ask the second tier"};
        }
        if (!circuit_.is_closed()) {
            return {RedisFault::Away, {}, "the server at " + endpoint_.title() + " is away"};
        }
        RedisOutcome outcome;
        std::unique_ptr<RedisConnection> connection = is_last ? nullptr : take_idle();
        const bool was_idle = connection != nullptr;
        if (!was_idle) connection = connect(outcome, request.caller);
        const bool is_connected = connection != nullptr;
        if (is_connected) outcome = talk(*connection, request, is_asking);
        if (outcome.is_answered()) circuit_.succeed();
        if (is_connected && is_reusable(outcome.fault, outcome.reply.kind)) {
            give_back(std::move(connection));
            return outcome;
        }
        if (outcome.fault == RedisFault::Lost && was_idle) {
            // The idle connection may date from before a restart of the server: try a new one.
            drop_idle();
            continue;
        }
        if (is_outage(outcome.fault) || (outcome.fault == RedisFault::Refused && !is_connected)) {
            circuit_.trip(Clock::now());
            drop_idle();
        }
        return outcome;
    }
}

RedisOutcome RedisNode::attempt(const Wait* caller) {
    RedisOutcome outcome;
    std::unique_ptr<RedisConnection> connection = connect(outcome, caller);
    RedisRequest request{{"PING"}};
    request.caller = caller;
    if (connection != nullptr) outcome = talk(*connection, request, false);
    if (outcome.is_answered()) {
        circuit_.close();
        give_back(std::move(connection));
    } else {
        circuit_.stay_open(Clock::now());
    }
    return outcome;
}

}  // namespace penstock::detail

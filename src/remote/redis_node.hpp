// One server: its circuit breaker and its pool of idle connections.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <vector>

#include "remote/circuit.hpp"
#include "remote/endpoint.hpp"
#include "remote/redis_connection.hpp"

namespace penstock::detail {

struct RedisTiming {
    std::chrono::nanoseconds connect_timeout;
    std::chrono::nanoseconds request_timeout;
    std::chrono::nanoseconds retry_first;
    std::chrono::nanoseconds retry_most;
};

// Any thread. Each concurrent request has a connection of its own.
class RedisNode {
public:
    // `cancel` must outlive the node.
    RedisNode(Endpoint endpoint, const RedisTiming& timing, const Cancel& cancel);

    // Sends a request; Away at once while the circuit is open. `is_asking`: the slot is migrating
    // to this server (ASKING). Error replies are faults (Refused, Lost or Said), except
    // redirections, which are returned as replies.
    RedisOutcome exchange(const RedisRequest& request, bool is_asking = false);
    // PING on a new connection; opens or closes the circuit. For the creator and the repair thread.
    RedisOutcome attempt(const Wait* caller = nullptr);

    [[nodiscard]] const Endpoint& endpoint() const noexcept { return endpoint_; }
    [[nodiscard]] const Circuit& circuit() const noexcept { return circuit_; }

private:
    std::unique_ptr<RedisConnection> take_idle();
    std::unique_ptr<RedisConnection> connect(RedisOutcome& outcome, const Wait* caller = nullptr);
    void give_back(std::unique_ptr<RedisConnection> connection);
    void drop_idle();
    RedisOutcome talk(RedisConnection& connection, const RedisRequest& request, bool is_asking);

    const Endpoint endpoint_;
    const RedisTiming timing_;
    const Cancel& cancel_;
    Circuit circuit_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<RedisConnection>> idle_;
};

}  // namespace penstock::detail

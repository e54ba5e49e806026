// One server: its circuit, and the connections to it that nobody uses just now.
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

// Any thread. There are as many connections as threads that ask at one time.
class RedisNode {
public:
    // `cancel` must outlive it.
    RedisNode(Endpoint endpoint, const RedisTiming& timing, const Cancel& cancel);

    // Asks at once or not at all: Away while the circuit is open. `is_asking`: a slot that is on
    // its way here. Error replies come back as Said, redirections as replies.
    RedisOutcome exchange(const RedisRequest& request, bool is_asking = false);
    // Whether it answers; what the circuit then is. For the thread that tries.
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

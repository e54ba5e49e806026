// Stub for builds without hiredis: every connection fails.
#include "penstock/error.hpp"
#include "remote/redis_connection.hpp"

namespace penstock::detail {

struct RedisConnection::Link {};

bool has_redis() noexcept {
    return false;
}

RedisConnection::RedisConnection(std::unique_ptr<Link> link) noexcept : link_(std::move(link)) {}
RedisConnection::~RedisConnection() = default;

std::unique_ptr<RedisConnection> RedisConnection::open(const Endpoint& /*endpoint*/,
                                                       Deadline /*deadline*/,
                                                       const Cancel& /*cancel*/,
                                                       RedisOutcome& outcome,
                                                       const Wait* /*caller*/) {
    outcome.fault = RedisFault::Lost;
    outcome.sentence = "this library was built without Redis";
    return nullptr;
}

RedisOutcome RedisConnection::exchange(const RedisRequest& /*request*/, Deadline /*deadline*/) {
    return {RedisFault::Lost, {}, "this library was built without Redis"};
}

}  // namespace penstock::detail

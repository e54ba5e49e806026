// The server, or the servers of a cluster: which of them a key belongs to, and the thread that
// looks after those which failed.
#pragma once

#include <array>
#include <condition_variable>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#include "remote/redis_node.hpp"
#include "remote/slots.hpp"
#include "remote/tally.hpp"

namespace penstock::detail {

struct RedisSettings {
    std::vector<Endpoint> endpoints;  // at least one
    bool is_cluster = false;
    RedisTiming timing;
};

// Any thread.
class RedisServers {
public:
    // `tally` must outlive it.
    RedisServers(RedisSettings settings, TierTally& tally);
    RedisServers(const RedisServers&) = delete;
    RedisServers& operator=(const RedisServers&) = delete;
    ~RedisServers();

    // The first attempt, by the caller himself; then the thread begins.
    RedisOutcome start();
    // A request about this key (as the server knows it), wherever it is. An answer of none of these
    // kinds is Garbled.
    RedisOutcome run(std::string_view key, const RedisRequest& request,
                     std::initializer_list<RedisReply::Kind> kinds);
    // Ends requests in other threads.
    void cancel() noexcept;

    struct Health {
        std::size_t servers = 0;
        std::size_t away = 0;
    };
    [[nodiscard]] Health health() const;

private:
    using NodePtr = std::shared_ptr<RedisNode>;

    [[nodiscard]] NodePtr owner_of(unsigned slot) const;
    NodePtr follow(const Redirect& redirect, const RedisNode& from);
    std::optional<std::uint16_t> add_node(const std::string& host, std::uint16_t port);
    RedisOutcome walk(unsigned slot, const RedisRequest& request);
    void want_repair(const RedisOutcome& outcome);

    RedisOutcome learn_slots(RedisNode& node);
    bool install_slots(const RedisReply& reply, const RedisNode& from);
    bool install_range(const RedisReply& range, const RedisNode& from);
    void repair_for_ever();
    [[nodiscard]] Clock::time_point next_repair() const;  // under the mutex
    void repair(const std::vector<NodePtr>& nodes, bool wants_slots);

    const RedisSettings settings_;
    TierTally& tally_;
    Cancel cancel_;
    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<NodePtr> nodes_;  // never fewer: an index stays good
    std::array<std::uint16_t, kSlots> owners_{};
    bool wants_slots_ = false;
    bool has_news_ = false;         // since the thread last looked
    Clock::time_point slots_at_{};  // not before
    std::thread thread_;
};

}  // namespace penstock::detail

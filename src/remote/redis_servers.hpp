// Servers of a second tier: one server, a cluster, or the master that Sentinels name. Routes keys
// to servers; a repair thread retries failed servers and renews the slot map.
#pragma once

#include <array>
#include <condition_variable>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "remote/redis_node.hpp"
#include "remote/slots.hpp"
#include "remote/tally.hpp"

namespace penstock::detail {

struct RedisSettings {
    ServerList servers;
    RedisTiming timing;
};

// Any thread.
class RedisServers {
public:
    // `tally` must outlive this object.
    RedisServers(RedisSettings settings, TierTally& tally);
    RedisServers(const RedisServers&) = delete;
    RedisServers& operator=(const RedisServers&) = delete;
    ~RedisServers();

    // Tries the servers once, unless `trial` is null; `trial` may end the attempt. Then starts the
    // repair thread, unless the outcome is Refused.
    RedisOutcome start(const Wait* trial);
    // Sends a request to the server of `key` (a server's key, with its prefix) and follows
    // redirections. An answer of none of `kinds` is Garbled.
    RedisOutcome run(std::string_view key, const RedisRequest& request,
                     std::initializer_list<RedisReply::Kind> kinds);
    // Lists the names that match `pattern`, on all masters; some may come twice. After a fault the
    // list is incomplete.
    RedisOutcome list_names(const std::string& pattern, const Wait& wait,
                            std::vector<std::string>& names);
    // True: all names of one request must be in one slot.
    [[nodiscard]] bool is_cluster() const noexcept {
        return settings_.servers.topology == Topology::Cluster;
    }
    // Ends the requests of all threads, now and in future.
    void cancel() noexcept;

    struct Health {
        std::size_t servers = 0;
        std::size_t away = 0;
    };
    [[nodiscard]] Health health() const;

private:
    RedisOutcome attempt(const Wait* caller);
    using NodePtr = std::shared_ptr<RedisNode>;

    // True: the servers of keys are learnt from the servers, and may change.
    [[nodiscard]] bool has_map() const noexcept {
        return settings_.servers.topology != Topology::Single;
    }
    [[nodiscard]] bool has_sentinels() const noexcept {
        return settings_.servers.topology == Topology::Sentinel;
    }
    [[nodiscard]] NodePtr owner_of(unsigned slot) const;
    [[nodiscard]] std::vector<NodePtr> owners() const;
    NodePtr follow(const Redirect& redirect, const RedisNode& from);
    std::optional<std::uint16_t> add_node(const std::string& host, std::uint16_t port);
    RedisOutcome walk(unsigned slot, const RedisRequest& request);
    void want_repair(const RedisOutcome& outcome);

    RedisOutcome note(RedisOutcome outcome, std::initializer_list<RedisReply::Kind> kinds);
    RedisOutcome list_names(RedisNode& node, const std::string& pattern, const Wait& wait,
                            std::vector<std::string>& names);

    RedisOutcome learn_slots(RedisNode& node, const Wait* caller = nullptr);
    RedisOutcome learn_master(const Wait* caller = nullptr);
    bool install_master(const RedisReply& reply);
    bool install_slots(const RedisReply& reply, const RedisNode& from);
    bool install_range(const RedisReply& range, const RedisNode& from);
    void repair_for_ever();
    [[nodiscard]] Clock::time_point next_repair() const;  // under the mutex
    void repair(const std::vector<NodePtr>& nodes, bool wants_map);

    const RedisSettings settings_;
    TierTally& tally_;
    Cancel cancel_;
    mutable std::mutex mutex_;
    std::condition_variable wake_;
    // In a cluster it only grows, so that indices stay valid. With Sentinels: the master, once
    // known.
    std::vector<NodePtr> nodes_;
    std::array<std::uint16_t, kSlots> owners_{};
    bool wants_map_ = false;
    bool has_news_ = false;       // since the repair thread last looked
    Clock::time_point map_at_{};  // earliest time of the next renewal of the map
    std::thread thread_;
};

}  // namespace penstock::detail

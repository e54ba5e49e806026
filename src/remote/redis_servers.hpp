// The server, the servers of a cluster, or the master that Sentinels name: which of them a key
// belongs to, and the thread that looks after those which failed.
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
    // `tally` must outlive it.
    RedisServers(RedisSettings settings, TierTally& tally);
    RedisServers(const RedisServers&) = delete;
    RedisServers& operator=(const RedisServers&) = delete;
    ~RedisServers();

    // The first attempt, by the caller, which `trial` may end, or none if it is null; then the
    // thread begins.
    RedisOutcome start(const Wait* trial);
    // A request about this key (as the server knows it), wherever it is. An answer of none of these
    // kinds is Garbled.
    RedisOutcome run(std::string_view key, const RedisRequest& request,
                     std::initializer_list<RedisReply::Kind> kinds);
    // Names that match the pattern, of all masters; some may come twice. Without an answer they are
    // not all.
    RedisOutcome list_names(const std::string& pattern, const Wait& wait,
                            std::vector<std::string>& names);
    // Names of one request must lie on one server.
    [[nodiscard]] bool is_cluster() const noexcept {
        return settings_.servers.topology == Topology::Cluster;
    }
    // Ends requests in other threads.
    void cancel() noexcept;

    struct Health {
        std::size_t servers = 0;
        std::size_t away = 0;
    };
    [[nodiscard]] Health health() const;

private:
    RedisOutcome attempt(const Wait* caller);
    using NodePtr = std::shared_ptr<RedisNode>;

    // Where a key's server is, is to be learnt, and may change.
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
    // Of a cluster never fewer: an index stays good. Behind Sentinels the master, once it is known.
    std::vector<NodePtr> nodes_;
    std::array<std::uint16_t, kSlots> owners_{};
    bool wants_map_ = false;
    bool has_news_ = false;       // since the thread last looked
    Clock::time_point map_at_{};  // not before
    std::thread thread_;
};

}  // namespace penstock::detail

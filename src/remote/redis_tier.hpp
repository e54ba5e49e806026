// Second tier on Redis: read-through from the servers, and write-back or write-through to them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "os/fork.hpp"
#include "remote/backlog.hpp"
#include "remote/redis_servers.hpp"
#include "remote/remote_objects.hpp"
#include "remote/single_flight.hpp"
#include "remote/tally.hpp"
#include "store/second_tier.hpp"

namespace penstock::detail {

class RedisTier final : public SecondTier {
public:
    // `servers`: parsed from the URLs of the options.
    RedisTier(SecondTierOptions options, ServerList servers);
    ~RedisTier() override;

    RedisOutcome start(const Wait* trial) { return servers_.start(trial); }
    void stand_behind(Store first) override;

    Status write(std::string key, const std::function<Status()>& commit,
                 const std::optional<StoreObject>& object, const Wait& wait) noexcept override;
    Result<StoreObject> fetch(std::string_view key, const Wait& wait,
                              const FetchCheck* check) noexcept override;
    bool contains(std::string_view key, const Wait& wait) noexcept override;
    StoreLook look(std::string_view key, const Wait& wait) noexcept override;
    bool touch(std::string_view key, const Wait& wait) noexcept override;
    std::vector<std::string> keys(const Wait& wait) override;
    Status remove(std::string_view key, const Wait& wait) noexcept override;

    Unwritten flush(const Wait& wait) noexcept override;
    Unwritten close(const Wait& wait) noexcept override;
    void cancel() noexcept override;
    [[nodiscard]] TierStats stats() const override;

    // True in a forked child, which has no threads and must not use its parent's connections.
    [[nodiscard]] bool is_foreign() const noexcept {
        return os::fork_generation() != fork_generation_;
    }

private:
    // Fetch of one key, with the caller's Wait and check.
    struct Fetch {
        std::string_view key;
        const Wait& wait;
        const FetchCheck* check;
        SingleFlight::Flight& flight;
    };
    class Landing;  // room of a fetch in the first tier
    Status write(const Backlog::Turn& turn, const StoreObject& object, const Wait& wait) noexcept;
    Status remove_once(std::string_view key, const Wait& wait) noexcept;
    Status unlink(const Backlog::Turn& turn, const Wait& wait) noexcept;
    Result<StoreObject> lead(const Fetch& fetch) noexcept;
    Result<StoreObject> read(const Fetch& fetch) noexcept;
    Result<StoreObject> bring_in(const Fetch& fetch, const RemoteObjects::Found& found,
                                 Landing& landing) noexcept;
    Result<StoreObject> without_room(const Fetch& fetch, const ValueHead& head,
                                     const Status& refused) noexcept;
    Result<StoreObject> accept(const Fetch& fetch, const RemoteObjects::Found& found,
                               StoreReservation& reservation) noexcept;
    Status missed(const RedisOutcome& outcome, const Wait& wait) noexcept;
    Status unread(TierTally::Count& count, std::string_view key, std::string_view why) noexcept;
    Status damaged(const Fetch& fetch, std::string_view why) noexcept;
    [[nodiscard]] std::uint64_t requests_for(const ValueHead& head) const noexcept;
    [[nodiscard]] Wait bounded(const Wait& wait, std::uint64_t requests) const noexcept;
    RedisOutcome send(const std::string& key, const StoreObject& object, const Wait& wait);

    const SecondTierOptions options_;
    const std::uint64_t fork_generation_ = os::fork_generation();
    TierTally tally_;
    RedisServers servers_;
    RemoteObjects objects_;
    SingleFlight single_flight_;
    Backlog backlog_;  // last: its threads use the members above
    std::optional<Store> first_;
};

}  // namespace penstock::detail

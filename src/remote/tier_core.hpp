// What the handle of a tiered store and its reservations share: the first tier, the servers, and
// what goes on between them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "os/fork.hpp"
#include "penstock/tiered_store.hpp"
#include "remote/backlog.hpp"
#include "remote/flights.hpp"
#include "remote/redis_servers.hpp"
#include "remote/remote_objects.hpp"
#include "remote/tally.hpp"

namespace penstock::detail {

// Any thread.
class TierCore {
public:
    static std::shared_ptr<TierCore> create(Store first, const TieredOptions& options);
    TierCore(Store first, const TieredOptions& options);
    TierCore(const TierCore&) = delete;
    TierCore& operator=(const TierCore&) = delete;
    ~TierCore();

    Result<StoreReservation> reserve(std::string_view key, std::uint64_t nbytes,
                                     const ReserveOptions& options) noexcept;
    Status commit(const std::string& key, StoreReservation& reservation) noexcept;
    Result<StoreObject> get(std::string_view key) noexcept;
    bool contains(std::string_view key) noexcept;
    Status remove(std::string_view key) noexcept;

    Unwritten flush(const Wait& wait) noexcept;
    Unwritten close(const Wait& wait) noexcept;
    void cancel() noexcept;
    [[nodiscard]] TierStats stats() const;

    // In a child that was forked from our process: neither threads nor connections are its own.
    [[nodiscard]] bool is_foreign() const noexcept {
        return os::fork_generation() != fork_generation_;
    }

    Store first;

private:
    Result<StoreObject> read_through(std::string_view key) noexcept;
    Result<StoreObject> fetch(std::string_view key) noexcept;
    Result<StoreObject> bring_in(std::string_view key, const ReadHead& read) noexcept;
    Result<StoreObject> fill(std::string_view key, const ReadHead& read,
                             StoreReservation& reservation) noexcept;
    Status judge(std::string_view key, HeadVerdict verdict) noexcept;
    Status missed(const RedisOutcome& outcome) noexcept;
    Status damaged(std::string_view key) noexcept;
    RedisOutcome write(const std::string& key, const StoreObject& object);

    const TieredOptions options_;
    const std::uint64_t fork_generation_ = os::fork_generation();
    TierTally tally_;
    RedisServers servers_;
    RemoteObjects objects_;
    Flights flights_;
    Backlog backlog_;  // its threads use what stands above it
};

}  // namespace penstock::detail

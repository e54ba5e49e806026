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
    // Takes `first` over, unless it throws.
    static std::shared_ptr<TierCore> create(Store& first, const TieredOptions& options);
    TierCore(Store& store, const TieredOptions& options);
    TierCore(const TierCore&) = delete;
    TierCore& operator=(const TierCore&) = delete;
    ~TierCore();

    Result<StoreReservation> reserve(std::string_view key, std::uint64_t nbytes,
                                     const ReserveOptions& options) noexcept;
    // `pinned`: the object of the first tier, where it has come to be one.
    Status commit(const std::string& key, StoreReservation& reservation,
                  std::optional<StoreObject>& pinned, const Wait& wait) noexcept;
    Result<StoreObject> get(std::string_view key, const Wait& wait) noexcept;
    Result<StoreObject> fetch(std::string_view key, const Wait& wait,
                              const FetchCheck& check = {}) noexcept;
    bool contains(std::string_view key, const Wait& wait) noexcept;
    Status remove(std::string_view key, const Wait& wait) noexcept;

    Unwritten flush(const Wait& wait) noexcept;
    Unwritten close(const Wait& wait) noexcept;
    void cancel() noexcept;
    [[nodiscard]] TierStats stats() const;

    // In a child that was forked from our process: neither threads nor connections are its own.
    [[nodiscard]] bool is_foreign() const noexcept {
        return os::fork_generation() != fork_generation_;
    }

private:
    // A key that is being fetched: for whom, and for how long.
    struct Fetch {
        std::string_view key;
        const Wait& wait;
        const FetchCheck& check;
    };
    Result<StoreObject> lead(const Fetch& fetch, Flights::Flight& flight) noexcept;
    Result<StoreObject> read(const Fetch& fetch) noexcept;
    Result<StoreObject> bring_in(const Fetch& fetch, const ReadHead& read) noexcept;
    Result<StoreObject> without_room(const Fetch& fetch, const Status& refused) noexcept;
    Result<StoreObject> accept(const Fetch& fetch, const ReadHead& read,
                               StoreReservation& reservation) noexcept;
    Status missed(const RedisOutcome& outcome, const Wait& wait) noexcept;
    Status unread(TierTally::Count& count, std::string_view key, std::string_view why) noexcept;
    Status damaged(const Fetch& fetch, std::string_view why) noexcept;
    [[nodiscard]] Wait bounded(const Wait& wait, std::uint64_t requests) const noexcept;
    RedisOutcome write(const std::string& key, const StoreObject& object, const Wait& wait);

    const TieredOptions options_;
    const std::uint64_t fork_generation_ = os::fork_generation();
    TierTally tally_;
    RedisServers servers_;
    RemoteObjects objects_;
    Flights flights_;
    Backlog backlog_;  // its threads use what stands above it

public:
    Store first;  // the last to come, so that whoever brings it keeps it where we fail
};

}  // namespace penstock::detail

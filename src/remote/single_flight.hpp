// Single-flight: of the threads that miss one key concurrently, the leader fetches it, and the
// followers wait for its result.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>

#include "penstock/store.hpp"

namespace penstock::detail {

// Any thread.
class SingleFlight {
public:
    struct Flight {
        std::thread::id leader;
        bool has_landed = false;
        bool is_revoked = false;
        unsigned followers = 0;
        Status status;                    // of the fetch
        std::optional<StoreObject> held;  // pin for the followers, until their look-up
    };
    using FlightPtr = std::shared_ptr<Flight>;

    enum class Role : std::uint8_t {
        Leader,    // the caller must fetch, then land()
        Follower,  // the caller must await()
        Refused,   // the caller leads this or another flight: to wait could deadlock
    };
    // Joins the flight of the key, or starts one as its leader.
    std::pair<FlightPtr, Role> join(std::string_view key);
    // Keeps the flight of a key that is being removed from committing, unless it has committed.
    void revoke(std::string_view key);
    // For the leader: calls `commit`, or returns NotFound if the flight was revoked. Atomic with
    // respect to revoke().
    template <typename Commit>
    Status unless_revoked(const Flight& flight, Commit&& commit) {
        const std::lock_guard lock(mutex_);
        return flight.is_revoked ? Status(ErrorCode::NotFound) : commit();
    }
    // For the leader, after success and failure. `hold` pins the object for the followers.
    template <typename Hold>
    void land(std::string_view key, Flight& flight, Status status, Hold&& hold) {
        const std::lock_guard lock(mutex_);
        if (status && flight.followers > 0) flight.held = hold();
        flight.status = std::move(status);
        flight.has_landed = true;
        under_way_.erase(std::string(key));
        landed_.notify_all();
    }
    // For followers: waits until the flight lands, which its fetch's timeouts bound. False: `wait`
    // ended first.
    bool await(Flight& flight, const Wait& wait);

private:
    std::mutex mutex_;
    std::condition_variable landed_;
    std::unordered_map<std::string, FlightPtr> under_way_;
};

}  // namespace penstock::detail

// Fetches under way: of the threads that miss one key together, one fetches, and the others wait
// for what it brings.
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
        std::optional<StoreObject> held;  // so that it is still there when the followers look
    };
    using FlightPtr = std::shared_ptr<Flight>;

    enum class Role : std::uint8_t {
        Leader,    // it is the caller's to fetch, and to land
        Follower,  // to await
        Refused,   // another thread leads it, or this one, which leads a flight: it would wait for
                   // itself, or in a ring
    };
    // The flight for this key.
    std::pair<FlightPtr, Role> join(std::string_view key);
    // The flight of this key brings nothing any more, unless it has: the key is being removed.
    void revoke(std::string_view key);
    // What `commit` gives, for the leader; or NotFound, and it is not called. No revoke() comes in
    // between.
    template <typename Commit>
    Status unless_revoked(const Flight& flight, Commit&& commit) {
        const std::lock_guard lock(mutex_);
        return flight.is_revoked ? Status(ErrorCode::NotFound) : commit();
    }
    // For the leader, whatever came of it. `hold` pins the object once more, for the followers.
    template <typename Hold>
    void land(std::string_view key, Flight& flight, Status status, Hold&& hold) {
        const std::lock_guard lock(mutex_);
        if (status && flight.followers > 0) flight.held = hold();
        flight.status = std::move(status);
        flight.has_landed = true;
        under_way_.erase(std::string(key));
        landed_.notify_all();
    }
    // For the others. It is bounded as the fetch is, by its timeouts. False: `wait` ended before.
    bool await(Flight& flight, const Wait& wait);

private:
    std::mutex mutex_;
    std::condition_variable landed_;
    std::unordered_map<std::string, FlightPtr> under_way_;
};

}  // namespace penstock::detail

// Fetches under way: of the threads that miss one key together, one fetches, and the others wait
// for what it brings.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "penstock/store.hpp"

namespace penstock::detail {

// Any thread.
class Flights {
public:
    struct Flight {
        bool has_landed = false;
        unsigned followers = 0;
        Status status;                    // of the fetch
        std::optional<StoreObject> held;  // so that it is still there when the followers look
    };
    using FlightPtr = std::shared_ptr<Flight>;

    // The flight for this key; `leads`: it is the caller's to fetch, and to land.
    FlightPtr join(std::string_view key, bool& leads);
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

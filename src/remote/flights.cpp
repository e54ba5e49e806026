// Who fetches and who waits.
#include "remote/flights.hpp"

#include <utility>

#include "remote/patience.hpp"
#include "segment/waiting/timing.hpp"

namespace penstock::detail {

Flights::FlightPtr Flights::join(std::string_view key, bool& leads) {
    const std::lock_guard lock(mutex_);
    FlightPtr& flight = under_way_[std::string(key)];
    leads = flight == nullptr;
    if (leads) {
        flight = std::make_shared<Flight>();
    } else {
        ++flight->followers;
    }
    return flight;
}

bool Flights::await(Flight& flight, const Wait& wait) {
    std::unique_lock lock(mutex_);
    while (!flight.has_landed) {
        landed_.wait_for(lock, wait.deadline.left(Clock::now(), kSlice));
        if (!flight.has_landed && has_ended(wait, lock)) return flight.has_landed;
    }
    return true;
}

}  // namespace penstock::detail

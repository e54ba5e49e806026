// Who fetches and who waits.
#include "remote/flights.hpp"

#include <utility>

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

void Flights::await(Flight& flight) {
    std::unique_lock lock(mutex_);
    landed_.wait(lock, [&] { return flight.has_landed; });
}

}  // namespace penstock::detail

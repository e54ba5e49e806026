// Roles of the threads that miss a key.
#include "remote/single_flight.hpp"

#include <algorithm>

#include "remote/patience.hpp"
#include "segment/waiting/timing.hpp"

namespace penstock::detail {

std::pair<SingleFlight::FlightPtr, SingleFlight::Role> SingleFlight::join(std::string_view key) {
    const std::thread::id self = std::this_thread::get_id();
    const std::lock_guard lock(mutex_);
    FlightPtr& flight = under_way_[std::string(key)];
    if (flight == nullptr) {
        flight = std::make_shared<Flight>();
        flight->leader = self;
        return {flight, Role::Leader};
    }
    const bool leads_one = std::any_of(under_way_.begin(), under_way_.end(),
                                       [&](const auto& one) { return one.second->leader == self; });
    if (leads_one) return {flight, Role::Refused};
    ++flight->followers;
    return {flight, Role::Follower};
}

void SingleFlight::revoke(std::string_view key) {
    const std::lock_guard lock(mutex_);
    const auto flight = under_way_.find(std::string(key));
    if (flight != under_way_.end()) flight->second->is_revoked = true;
}

bool SingleFlight::await(Flight& flight, const Wait& wait) {
    std::unique_lock lock(mutex_);
    while (!flight.has_landed) {
        landed_.wait_for(lock, wait.deadline.left(Clock::now(), kSlice));
        if (!flight.has_landed && has_ended(wait, lock)) return flight.has_landed;
    }
    return true;
}

}  // namespace penstock::detail

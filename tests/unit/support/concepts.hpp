// The concepts whose participants have no ranks, for tests of what is the same in all of them.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "penstock/queue.hpp"
#include "penstock/store.hpp"
#include "penstock/trajectories.hpp"

namespace penstock::test {

// Creates, with three slots; attaches; looks for the dead, and reaps them.
struct Concept {
    std::string name;
    std::function<std::shared_ptr<void>(const std::string&)> create;
    std::function<std::shared_ptr<void>(const std::string&)> attach;
    std::function<void(void*)> look;
};

template <typename T>
std::shared_ptr<void> keep(T handle) {
    return std::make_shared<T>(std::move(handle));
}

inline std::vector<Concept> concepts() {
    static constexpr std::chrono::milliseconds kMoment{1};
    StoreOptions store;
    store.capacity = 1 << 20U;
    store.participants = 3;
    return {
        {"Queue",
         [](const std::string& name) {
             return keep(Queue::create(name, {.capacity = 4096, .slots = 4, .participants = 3}));
         },
         [](const std::string& name) { return keep(Queue::attach(name)); },
         [](void* handle) { static_cast<void>(static_cast<Queue*>(handle)->take(kMoment)); }},
        {"Trajectories",
         [](const std::string& name) {
             return keep(TrajectoryReader::create(
                 name, {.capacity = 4096, .slots = 4, .participants = 3}, 1));
         },
         [](const std::string& name) { return keep(TrajectoryReader::attach(name, 1)); },
         [](void* handle) {
             static_cast<void>(static_cast<TrajectoryReader*>(handle)->next_batch({}, kMoment));
         }},
        {"Store", [store](const std::string& name) { return keep(Store::create(name, store)); },
         [](const std::string& name) { return keep(Store::attach(name)); },
         [](void* handle) { static_cast<Store*>(handle)->reap_dead(); }},
    };
}

}  // namespace penstock::test

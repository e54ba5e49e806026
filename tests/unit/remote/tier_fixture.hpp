// Fixture of the second tier's tests: machines, each a Store with its own name, and one server
// behind all of them.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "penstock/store.hpp"
#include "tests/unit/remote/redis_server.hpp"
#include "tests/unit/store/store_fixture.hpp"

namespace penstock::test {

class TierTest : public CleanTest {
public:
    // Store of a new machine: empty, with a name of its own.
    static Store make_machine(const SecondTierOptions& options,
                              std::uint64_t capacity = std::uint64_t{4} << 20U) {
        StoreOptions first = small_store();
        first.capacity = capacity;
        first.second_tier = options;
        return Store::create(new_name(), first);
    }

protected:
    void SetUp() override {
        PENSTOCK_NEEDS_SERVER();
        server_ = std::make_unique<RedisServer>();
    }
    void TearDown() override {
        server_.reset();
        CleanTest::TearDown();
    }

    [[nodiscard]] SecondTierOptions options(TierPolicy policy = TierPolicy::WriteThrough) const {
        SecondTierOptions options;
        options.urls = {server_->url()};
        options.policy = policy;
        options.part_bytes = 100'000;  // an object of that size has a part, and needs no more
        options.connect_timeout = kLong;
        options.request_timeout = kLong;
        options.retry_first = std::chrono::milliseconds(1);
        options.retry_most = std::chrono::milliseconds(20);
        return options;
    }
    [[nodiscard]] Store make_machine() const { return make_machine(options()); }
    [[nodiscard]] Store make_machine(const std::string& name) const {
        StoreOptions first = small_store();
        first.second_tier = options();
        return Store::create(name, first);
    }

    std::unique_ptr<RedisServer> server_;
};

// Another handle, without a second tier.
inline Store first_of(const Store& store) {
    return Store::attach(store.name());
}

inline TierStats tier_stats(const Store& store) {
    return *store.stats().second_tier;
}

inline Status put(Store& store, std::uint64_t number, const Wait& wait) {
    return store.put(key_of(number), make_value(number, 1000), {}, wait);
}

inline ::testing::AssertionResult lacks(Store& store, std::uint64_t number) {
    return fails(store.get(key_of(number)), ErrorCode::NotFound);
}

// The duration of a call.
template <typename Call>
std::chrono::nanoseconds time_of(Call&& call) {
    const auto start = Clock::now();
    call();
    return Clock::now() - start;
}

// The server's key for the head of object `number`.
inline std::string head_of(std::uint64_t number) {
    return "penstock:o:" + key_of(number);
}

}  // namespace penstock::test

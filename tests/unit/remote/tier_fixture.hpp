// Fixture of the tiered-store tests: machines, each a Store with its own name, and one server
// behind all of them.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "penstock/tiered_store.hpp"
#include "tests/unit/remote/redis_server.hpp"
#include "tests/unit/store/store_fixture.hpp"

namespace penstock::test {

class TierTest : public CleanTest {
protected:
    void SetUp() override {
        PENSTOCK_NEEDS_SERVER();
        server_ = std::make_unique<RedisServer>();
    }
    void TearDown() override {
        server_.reset();
        CleanTest::TearDown();
    }

    [[nodiscard]] TieredOptions options(TierPolicy policy = TierPolicy::WriteThrough) const {
        TieredOptions options;
        options.urls = {server_->url()};
        options.policy = policy;
        options.connect_timeout = kLong;
        options.request_timeout = kLong;
        options.retry_first = std::chrono::milliseconds(1);
        options.retry_most = std::chrono::milliseconds(20);
        return options;
    }
    // A machine with an empty store.
    static TieredStore make_machine(const TieredOptions& options,
                                    std::uint64_t capacity = std::uint64_t{4} << 20U) {
        StoreOptions first = small_store();
        first.capacity = capacity;
        return {Store::create(new_name(), first), options};
    }
    [[nodiscard]] TieredStore make_machine() const { return make_machine(options()); }

    std::unique_ptr<RedisServer> server_;
};

inline Status put(TieredStore& store, std::uint64_t number, std::size_t size = 1000,
                  const ReserveOptions& options = {}) {
    return store.put(key_of(number), make_value(number, size), options);
}

inline Status put(TieredStore& store, std::uint64_t number, const Wait& wait) {
    return store.put(key_of(number), make_value(number, 1000), {}, wait);
}

// The store returns object `number`, whole, from either tier.
inline ::testing::AssertionResult has(TieredStore& store, std::uint64_t number,
                                      std::size_t size = 1000) {
    Result<StoreObject> object = store.get(key_of(number));
    if (!object) return succeeds(object);
    return is_value(object->bytes(), number, size);
}

inline ::testing::AssertionResult lacks(TieredStore& store, std::uint64_t number) {
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

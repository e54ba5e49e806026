// Fixture of the Store tests.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "penstock/store.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/messages.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock::test {

inline StoreOptions small_store(Eviction eviction = Eviction::Sieve) {
    StoreOptions options;
    options.capacity = 1 << 20U;
    options.objects = 1024;
    options.participants = 8;
    options.eviction = eviction;
    return options;
}

inline constexpr auto& make_value = make_message;
inline constexpr auto& is_value = is_message;

inline std::string key_of(std::uint64_t number) {
    return "key-" + std::to_string(number);
}

inline Status put(Store& store, std::uint64_t number, std::size_t size = 1000,
                  const ReserveOptions& options = {}) {
    return store.put(key_of(number), make_value(number, size), options);
}

// Object `number` is resident and whole.
inline ::testing::AssertionResult has(Store& store, std::uint64_t number, std::size_t size = 1000) {
    Result<StoreObject> object = store.get(key_of(number));
    if (!object) return succeeds(object);
    return is_value(object->bytes(), number, size);
}

// Used and free add up to the capacity, and the parts of used to used, to the byte.
inline ::testing::AssertionResult adds_up(const StoreStats& stats) {
    if (stats.used_bytes + stats.free_bytes != stats.capacity) {
        return ::testing::AssertionFailure() << stats.used_bytes << " used and " << stats.free_bytes
                                             << " free of " << stats.capacity;
    }
    const std::uint64_t parts = stats.object_bytes + stats.staged_bytes + stats.doomed_bytes +
                                stats.padding_bytes + stats.other_bytes;
    if (parts != stats.used_bytes) {
        return ::testing::AssertionFailure()
               << stats.used_bytes << " used, where the parts are " << parts;
    }
    return ::testing::AssertionSuccess();
}

// No object in any state; every byte is free.
inline ::testing::AssertionResult is_empty(Store& store) {
    const StoreStats stats = store.stats();
    if (const auto verdict = adds_up(stats); !verdict) return verdict;
    if (stats.used_bytes == 0 && stats.objects + stats.staged + stats.doomed == 0 &&
        stats.largest_free == stats.capacity) {
        return ::testing::AssertionSuccess();
    }
    return ::testing::AssertionFailure()
           << stats.used_bytes << " bytes used by " << stats.objects << " objects, " << stats.staged
           << " staged, " << stats.doomed << " doomed";
}

class StoreTest : public CleanTest {
protected:
    std::string name_ = new_name();
};

}  // namespace penstock::test

// What the tests of Queue have in common.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "penstock/queue.hpp"
#include "tests/support/numbered.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock::test {

inline constexpr std::chrono::seconds kLong{20};  // what must not be waited for
inline constexpr std::size_t kInCell = 100;       // bytes of a message that needs no block
inline constexpr std::size_t kInBlock = 10'000;   // and of one that does

inline QueueOptions small_queue(unsigned slots = 8) {
    QueueOptions options;
    options.slots = slots;
    options.capacity = 1 << 20U;
    options.inline_bytes = 128;
    options.participants = 8;
    return options;
}

inline QueueOptions ends_with_last_producer(unsigned slots = 8) {
    QueueOptions options = small_queue(slots);
    options.ends_with = EndsWith::LastProducer;
    return options;
}

inline std::vector<std::byte> make_message(std::uint64_t number, std::size_t size) {
    std::vector<std::byte> bytes(size);
    trust::fill_numbered(bytes, number);
    return bytes;
}

inline Status put(Queue& queue, std::uint64_t number, std::size_t size = kInCell,
                  const Wait& wait = Deadline::now()) {
    return queue.put(make_message(number, size), wait);
}

inline ::testing::AssertionResult is_message(std::span<const std::byte> bytes, std::uint64_t number,
                                             std::size_t size) {
    if (bytes.size() != size) {
        return ::testing::AssertionFailure()
               << bytes.size() << " bytes, where " << size << " had been put";
    }
    const std::string fault = trust::check_numbered(bytes, number);
    if (fault.empty()) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "message " << number << ": " << fault;
}

// The next message is this one; it is acknowledged.
inline ::testing::AssertionResult gets(Queue& queue, std::uint64_t number,
                                       std::size_t size = kInCell, unsigned deliveries = 1) {
    Result<Delivery> delivery = queue.take(kLong);
    if (!delivery) return succeeds(delivery);
    const auto verdict = is_message(delivery->bytes(), number, size);
    if (verdict && delivery->deliveries() != deliveries) {
        return ::testing::AssertionFailure() << "delivered for the " << delivery->deliveries()
                                             << ". time, not the " << deliveries << '.';
    }
    delivery->ack();
    return verdict;
}

inline ::testing::AssertionResult is_empty(Queue& queue) {
    return fails(queue.take(Deadline::now()), ErrorCode::Timeout);
}

class QueueTest : public CleanTest {
protected:
    std::string name_ = new_name();
};

}  // namespace penstock::test

// Fixture of the Queue tests.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "penstock/queue.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/messages.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock::test {

inline constexpr std::size_t kInCell = 100;      // bytes of a message that needs no block
inline constexpr std::size_t kInBlock = 10'000;  // of a message that needs one

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

inline Status put(Queue& queue, std::uint64_t number, std::size_t size = kInCell,
                  const Wait& wait = Deadline::now()) {
    return queue.put(make_message(number, size), wait);
}

// The next message is `number`; it is acknowledged.
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

// Statistics of a damaged queue: strange numbers, but no undefined arithmetic (the sanitizers would
// report it).
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "queue/control.hpp"
#include "tests/support/segment_corruptor.hpp"
#include "tests/unit/queue/queue_fixture.hpp"

namespace penstock {
namespace {

using namespace test;

class QueueCorruptionTest : public CleanTest {};

TEST_F(QueueCorruptionTest, ImpossibleTimesAreShownAsNumbers) {
    Queue queue = Queue::create(new_name(), {.capacity = 1 << 16U, .slots = 4, .participants = 2});
    const std::byte byte{1};
    ASSERT_TRUE(queue.put({&byte, 1}).is_ok());
    const trust::SegmentCorruptor corruptor(queue.name());
    const detail::QueueView view(detail::queue_shape_of(corruptor.header()), corruptor.control());
    for (const std::int64_t at : {std::numeric_limits<std::int64_t>::min(), std::int64_t{-1},
                                  std::numeric_limits<std::int64_t>::max()}) {
        view.slot(0).accepted_at.store(at);
        EXPECT_EQ(queue.stats().queued, 1U);
        EXPECT_GE(queue.stats().oldest, 0);
    }
    queue.discard();
}

TEST_F(QueueCorruptionTest, AMessageThatContradictsItselfLeavesTheOthersInTheBatch) {
    Queue queue = Queue::create(new_name(), small_queue());
    for (std::uint64_t number = 0; number < 4; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number)));
    }
    const trust::SegmentCorruptor corruptor(queue.name());
    const detail::QueueView view(detail::queue_shape_of(corruptor.header()), corruptor.control());
    view.slot(2).description.store(layout::encode_description({.length = 1 << 20U}));
    std::vector<Delivery> taken;
    ASSERT_TRUE(succeeds(queue.take_many(taken, 10, Deadline::now())));
    ASSERT_EQ(taken.size(), 3U);
    EXPECT_TRUE(is_message(taken[0].bytes(), 0, kInCell));
    EXPECT_TRUE(is_message(taken[1].bytes(), 1, kInCell));
    EXPECT_TRUE(is_message(taken[2].bytes(), 3, kInCell));
    EXPECT_EQ(queue.stats().dead_letters, 1U);
    taken.clear();
    queue.discard();
}

}  // namespace
}  // namespace penstock

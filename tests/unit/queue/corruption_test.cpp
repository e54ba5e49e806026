// A damaged queue, and a look at it: numbers, if strange ones, and no
// undefined arithmetic (the tests under sanitizers would notice).
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <system_error>

#include "queue/control.hpp"
#include "segment/life/header.hpp"
#include "tests/unit/queue/queue_fixture.hpp"

namespace penstock {
namespace {

using namespace test;

class QueueCorruptionTest : public CleanTest {};

TEST_F(QueueCorruptionTest, TimesThatNoClockCanHaveSaid) {
    Queue queue = Queue::create(new_name(), {.capacity = 1 << 16U, .slots = 4, .participants = 2});
    const std::byte byte{1};
    ASSERT_TRUE(queue.put({&byte, 1}).is_ok());
    std::error_code error;
    os::SharedFile file = os::SharedFile::open("/dev/shm/penstock." + queue.name(), error);
    ASSERT_FALSE(error);
    const layout::SegmentHeader header = detail::read_header(file, queue.name());
    const os::Mapping mapping =
        os::Mapping::map(file, 0, header.payload_offset, os::Mapping::Access::ReadWrite, error);
    ASSERT_FALSE(error);
    const detail::QueueView view(detail::queue_shape_of(header),
                                 mapping.data() + header.control_offset);
    for (const std::int64_t at : {std::numeric_limits<std::int64_t>::min(), std::int64_t{-1},
                                  std::numeric_limits<std::int64_t>::max()}) {
        view.slot(0).accepted_at.store(at);
        EXPECT_EQ(queue.stats().queued, 1U);
        EXPECT_GE(queue.stats().oldest, 0);
    }
    queue.discard();
}

}  // namespace
}  // namespace penstock

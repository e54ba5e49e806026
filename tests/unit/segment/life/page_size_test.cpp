// Segments on a machine with pages of 64 KiB: every part begins on a page, and whole pages are
// given back. The page size is simulated; a layout for larger pages works with smaller ones.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "os/pages.hpp"
#include "penstock/broadcast.hpp"
#include "penstock/queue.hpp"
#include "penstock/store.hpp"
#include "segment/life/header.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock {
namespace {

using test::succeeds;

constexpr std::uint64_t kSmall = 4096;
constexpr std::uint64_t kLarge = 64 << 10U;

class PageSizeTest : public test::CleanTest {
protected:
    void SetUp() override {
        if (os::page_size() != kSmall) GTEST_SKIP() << "pages of " << os::page_size() << " bytes";
        os::pretend_page_size(kLarge);
    }
    void TearDown() override {
        os::pretend_page_size(0);
        CleanTest::TearDown();
    }
    static std::uint64_t past_page(const void* address) {
        return reinterpret_cast<std::uintptr_t>(address) % kLarge;
    }
    template <typename Attach>
    std::string refusal(Attach&& attach) {
        try {
            attach();
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::Incompatible) << error.what();
            return error.what();
        }
        return "nothing was refused";
    }
    std::string name_ = new_name();
};

TEST_F(PageSizeTest, EveryPartBeginsOnAPage) {
    detail::SegmentPlan plan;
    plan.slots = 3;
    plan.control_bytes = 128;
    plan.payload_bytes = 100;
    const layout::SegmentHeader header = detail::make_header("x", plan);
    EXPECT_EQ(header.slots_offset, kLarge);
    EXPECT_EQ(header.control_offset, 2 * kLarge);
    EXPECT_EQ(header.payload_offset, 3 * kLarge);
    EXPECT_EQ(header.file_size, 4 * kLarge);
}

TEST_F(PageSizeTest, BlocksOfAQueueAreWholePages) {
    Queue queue = Queue::create(name_, {.capacity = 200'000, .slots = 4, .inline_bytes = 64});
    EXPECT_EQ(queue.stats().capacity, 4 * kLarge);
    const std::vector<std::byte> message(5000);
    ASSERT_TRUE(succeeds(queue.put(message)));
    EXPECT_EQ(queue.stats().held_bytes, kLarge);
    Queue other = Queue::attach(name_);
    Result<Delivery> delivery = other.take();
    ASSERT_TRUE(succeeds(delivery));
    EXPECT_EQ(past_page(delivery->bytes().data()), 0U);
    delivery->ack();
    EXPECT_EQ(queue.stats().held_bytes, 0U);
}

TEST_F(PageSizeTest, BlocksOfABroadcastLieBehindWholePages) {
    BroadcastWriter writer = BroadcastWriter::create(name_, {.readers = 1, .capacity = 1});
    EXPECT_EQ(writer.stats().capacity, kLarge);
    BroadcastReader reader = BroadcastReader::attach(name_, 0);
    const std::vector<std::byte> message(2 * kLarge);
    ASSERT_TRUE(succeeds(writer.send(message)));
    const Result<BroadcastMessage> received = reader.recv();
    ASSERT_TRUE(succeeds(received));
    EXPECT_EQ(past_page(received->bytes().data()), 0U);
}

TEST_F(PageSizeTest, AStoreIsUsedAndTrimmed) {
    StoreOptions options;
    options.capacity = 1 << 20U;
    Store store = Store::create(name_, options);
    const std::vector<std::byte> value(300'000);
    ASSERT_TRUE(succeeds(store.put("kv", value)));
    ASSERT_TRUE(succeeds(store.remove("kv")));
    EXPECT_GE(store.trim(), 4 * kLarge);
}

TEST_F(PageSizeTest, ASegmentForSmallerPagesIsRefusedWithAReason) {
    os::pretend_page_size(0);
    Queue queue = Queue::create(name_, {.capacity = kSmall, .slots = 4});
    os::pretend_page_size(kLarge);
    EXPECT_NE(refusal([&] { Queue::attach(name_); }).find("made for smaller pages than the 64 KiB"),
              std::string::npos);
}

TEST_F(PageSizeTest, ASegmentForLargerPagesIsAccepted) {
    Queue queue = Queue::create(name_, {.capacity = kSmall, .slots = 4});
    os::pretend_page_size(0);
    EXPECT_NO_THROW(Queue::attach(name_));
}

TEST(HugePageSizeTest, IsAPowerOfTwoOfPages) {
    EXPECT_EQ(os::huge_page_size() % os::page_size(), 0U);
    EXPECT_EQ(os::huge_page_size() & (os::huge_page_size() - 1), 0U);
}

}  // namespace
}  // namespace penstock

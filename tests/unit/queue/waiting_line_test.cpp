// Requests for several messages: all or nothing, in order of arrival, and no message is held while
// they wait.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "os/crash_point.hpp"
#include "tests/unit/queue/queue_fixture.hpp"

namespace penstock {
namespace {

using namespace test;
using namespace std::chrono_literals;

class WaitingLineTest : public QueueTest {
protected:
    void put_many(Queue& queue, std::uint64_t first, std::uint64_t count) {
        for (std::uint64_t i = 0; i < count; ++i) ASSERT_TRUE(succeeds(put(queue, first + i)));
    }
    // Waits until that many requests are in line, or more: a waiting consumer joins it when it sees
    // one.
    static void await_requests(const Queue& queue, std::uint64_t count) {
        await([&] { return queue.stats().requests >= count; });
    }
};

// The batch is the messages from `first` on, delivered for the first time; acknowledges them.
void check_batch(std::vector<Delivery>& batch, std::uint64_t first, std::size_t count,
                 unsigned deliveries = 1) {
    require(batch.size() == count);
    for (std::size_t i = 0; i < count; ++i) {
        require(static_cast<bool>(is_message(batch[i].bytes(), first + i, kInCell)));
        require(batch[i].deliveries() == deliveries);
        batch[i].ack();
    }
    batch.clear();
}

// A process that asks for exactly `wanted` messages and must get those from `first` on.
std::unique_ptr<Child> consumer_of(const std::string& name, std::size_t wanted, std::uint64_t first,
                                   const Gate* done = nullptr) {
    return std::make_unique<Child>([=] {
        Queue own = Queue::attach(name, QueueRole::Consumer);
        std::vector<Delivery> batch;
        const Status status = own.take_many(batch, wanted, kLong, wanted);
        if (!status) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
        require(status.is_ok());
        check_batch(batch, first, wanted);
        if (done != nullptr) done->open();
    });
}

TEST_F(WaitingLineTest, HoldsNothingWhileItWaits) {
    Queue queue = Queue::create(name_, small_queue(32));
    put_many(queue, 0, 9);
    Gate served;
    // Each asks for ten. Neither request can be served, and neither holds one of the nine messages.
    const auto first = consumer_of(name_, 10, 0, &served);
    await_requests(queue, 1);
    const auto second = consumer_of(name_, 10, 10, &served);
    await_requests(queue, 2);
    const QueueStats stats = queue.stats();
    EXPECT_EQ(stats.queued, 9U);
    EXPECT_EQ(stats.in_flight, 0U);
    EXPECT_EQ(stats.requested, 20U);
    {
        Result<Delivery> there = queue.take(Deadline::now());  // a try takes one at once
        ASSERT_TRUE(succeeds(there));
        EXPECT_TRUE(is_message(there->bytes(), 0, kInCell));
        there->untake();
    }
    put_many(queue, 9, 1);
    served.pass();
    EXPECT_EQ(first->wait(), 0);
    await_requests(queue, 1);
    EXPECT_EQ(queue.stats().in_flight, 0U);
    put_many(queue, 10, 10);
    EXPECT_EQ(second->wait(), 0);
    EXPECT_EQ(queue.stats().requests, 0U);
}

// The second request is smaller than what is queued, and is still served after the first.
TEST_F(WaitingLineTest, ServesInTheOrderOfArrival) {
    Queue queue = Queue::create(name_, small_queue(32));
    const auto first = consumer_of(name_, 8, 0);
    await_requests(queue, 1);
    const auto second = consumer_of(name_, 2, 8);
    await_requests(queue, 2);
    const auto third = consumer_of(name_, 1, 10);
    await_requests(queue, 3);
    put_many(queue, 0, 7);
    std::vector<Delivery> batch;
    EXPECT_TRUE(fails(queue.take_many(batch, 4, Deadline::now(), 2), ErrorCode::Timeout));
    EXPECT_EQ(queue.stats().requests, 3U);
    EXPECT_EQ(queue.stats().in_flight, 0U);
    put_many(queue, 7, 4);
    EXPECT_EQ(first->wait(), 0);
    EXPECT_EQ(second->wait(), 0);
    EXPECT_EQ(third->wait(), 0);
    EXPECT_TRUE(is_empty(queue));
}

TEST_F(WaitingLineTest, ATimeoutLeavesEverythingAsItWas) {
    Queue queue = Queue::create(name_, small_queue(8));
    put_many(queue, 0, 3);
    std::vector<Delivery> batch;
    EXPECT_TRUE(fails(queue.take_many(batch, 8, 20ms, 4), ErrorCode::Timeout, {"4 messages"}));
    EXPECT_TRUE(fails(queue.take_many(batch, 8, Deadline::now(), 4), ErrorCode::Timeout));
    EXPECT_TRUE(batch.empty());
    EXPECT_EQ(queue.stats().taken, 0U);
    for (std::uint64_t number = 0; number < 3; ++number) EXPECT_TRUE(gets(queue, number));
}

// Until its deadline the request waits behind the others; then it gets what a try would get.
TEST_F(WaitingLineTest, AWaitYieldsNoLessThanATry) {
    Queue queue = Queue::create(name_, small_queue(8));
    const auto first = consumer_of(name_, 5, 1);
    await_requests(queue, 1);
    put_many(queue, 0, 3);
    Result<Delivery> delivery = queue.take(20ms);
    ASSERT_TRUE(succeeds(delivery));
    EXPECT_TRUE(is_message(delivery->bytes(), 0, kInCell));
    delivery->ack();
    put_many(queue, 3, 3);
    EXPECT_EQ(first->wait(), 0);
}

TEST_F(WaitingLineTest, TheLongerWaitingGetGoesFirst) {
    Queue queue = Queue::create(name_, small_queue(8));
    const auto single = consumer_of(name_, 1, 0);
    await([&] { return queue.stats().waits > 0; });  // after its arrival
    const auto several = consumer_of(name_, 3, 1);
    await_requests(queue, 1);
    put_many(queue, 0, 1);
    EXPECT_EQ(single->wait(), 0);
    put_many(queue, 1, 3);
    EXPECT_EQ(several->wait(), 0);
}

TEST_F(WaitingLineTest, TheLastBatchMayBeSmaller) {
    Queue queue = Queue::create(name_, small_queue(8));
    put_many(queue, 0, 3);
    Child waiting([&] {
        Queue own = Queue::attach(name_, QueueRole::Consumer);
        std::vector<Delivery> batch;
        require(own.take_many(batch, 8, kLong, 5).is_ok());
        check_batch(batch, 0, 3);
        require(own.take_many(batch, 8, kLong, 5).code() == ErrorCode::Closed);
        require(own.take_many(batch, 8, Deadline::now(), 5).code() == ErrorCode::Closed);
    });
    await_requests(queue, 1);
    queue.end();
    EXPECT_EQ(waiting.wait(), 0);
}

TEST_F(WaitingLineTest, AnImpossibleCountIsRefused) {
    Queue queue = Queue::create(name_, small_queue(8));
    std::vector<Delivery> batch;
    EXPECT_TRUE(fails(queue.take_many(batch, 20, kLong, 9), ErrorCode::InvalidArgument, {"8"}));
    EXPECT_TRUE(fails(queue.take_many(batch, 3, kLong, 4), ErrorCode::InvalidArgument));
}

TEST_F(WaitingLineTest, UntakenMessagesKeepTheirPlaces) {
    Queue queue = Queue::create(name_, small_queue(8));
    put_many(queue, 0, 6);
    for (const std::vector<std::size_t>& order :
         {std::vector<std::size_t>{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}}) {
        std::vector<Delivery> batch;
        ASSERT_TRUE(succeeds(queue.take_many(batch, 4, kLong, 4)));
        for (const std::size_t at : order) batch[at].untake();
    }
    for (std::uint64_t number = 0; number < 6; ++number) EXPECT_TRUE(gets(queue, number));
}

TEST_F(WaitingLineTest, ADeadFirstRequestBlocksNoOther) {
    Queue queue = Queue::create(name_, small_queue(16));
    const Child doomed([&] {
        Queue own = Queue::attach(name_, QueueRole::Consumer);
        std::vector<Delivery> batch;
        static_cast<void>(own.take_many(batch, 10, kLong, 10));
    });
    await_requests(queue, 1);
    const auto second = consumer_of(name_, 3, 0);
    await_requests(queue, 2);
    put_many(queue, 0, 3);
    doomed.kill_unreaped();
    EXPECT_EQ(second->wait(), 0);
    EXPECT_EQ(queue.stats().requests, 0U);
}

// A stopped process is passed, once for all later requests, and has its old place in line when it
// continues.
TEST_F(WaitingLineTest, AStoppedFirstRequestBlocksNoOther) {
    Queue queue = Queue::create(name_, small_queue(16));
    const auto stopped = consumer_of(name_, 4, 9);
    await_requests(queue, 1);
    stopped->stop();
    const auto second = consumer_of(name_, 3, 0);
    await_requests(queue, 2);
    put_many(queue, 0, 3);
    EXPECT_EQ(second->wait(), 0);
    // Later requests do not wait for it again.
    put_many(queue, 3, 6);
    std::vector<Delivery> batch;
    ASSERT_TRUE(succeeds(queue.take_many(batch, 4, Deadline::now(), 4)));
    check_batch(batch, 3, 4);
    ASSERT_TRUE(succeeds(queue.take_many(batch, 2, Deadline::now(), 2)));
    check_batch(batch, 7, 2);
    stopped->resume();
    put_many(queue, 9, 4);
    EXPECT_EQ(stopped->wait(), 0);
}

// Each later request is too short to find the first one silent for long enough; all together do.
TEST_F(WaitingLineTest, AStoppedFirstRequestBlocksNoPoller) {
    Queue queue = Queue::create(name_, small_queue(16));
    for (const auto& wait : {Wait(Deadline::now()), Wait(10ms)}) {
        const auto stopped = consumer_of(name_, 4, 0);
        await_requests(queue, 1);
        stopped->stop();
        put_many(queue, 0, 2);
        std::vector<Delivery> batch;
        await([&] { return queue.take_many(batch, 2, wait, 2).is_ok(); });
        check_batch(batch, 0, 2);
    }
}

#ifdef PENSTOCK_CRASH_POINTS
// Death with half of the request taken: all of it comes back, in order and marked.
TEST_F(WaitingLineTest, ADeathInsideAWholeTakeLosesNothing) {
    Queue queue = Queue::create(name_, small_queue(16));
    put_many(queue, 0, 6);
    Child doomed([&] {
        Queue own = Queue::attach(name_, QueueRole::Consumer);
        std::vector<Delivery> batch;
        os::arm_crash_point("queue.take.taken:3:kill");
        static_cast<void>(own.take_many(batch, 6, kLong, 6));
    });
    ASSERT_EQ(doomed.wait(), killed_by(SIGKILL));
    std::vector<Delivery> batch;
    ASSERT_TRUE(succeeds(queue.take_many(batch, 6, kLong, 6)));
    ASSERT_EQ(batch.size(), 6U);
    for (std::uint64_t number = 0; number < 6; ++number) {
        EXPECT_TRUE(is_message(batch[number].bytes(), number, kInCell));
        EXPECT_EQ(batch[number].deliveries(), number < 3 ? 2U : 1U);
        batch[number].ack();
    }
}
#endif

// The hint of where to begin lags behind batches that others took, by more slots than the queue has
// to spare.
TEST_F(WaitingLineTest, ARequestSeesAllMessagesHoweverFarTheHintLags) {
    Queue queue = Queue::create(name_, small_queue(8));
    Queue other = Queue::attach(name_, QueueRole::Consumer);
    Queue own = Queue::attach(name_, QueueRole::Consumer);
    std::vector<Delivery> batch;
    for (std::uint64_t number = 0; number < 8; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number, kInCell, Deadline::now())));
    }
    ASSERT_TRUE(succeeds(other.take_many(batch, 6, Deadline::now(), 6)));
    for (Delivery& delivery : batch) delivery.ack();
    for (std::uint64_t number = 8; number < 14; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number, kInCell, Deadline::now())));
    }
    batch.clear();
    EXPECT_TRUE(succeeds(own.take_many(batch, 8, Deadline::now(), 8)));
    EXPECT_EQ(batch.size(), 8U);
    for (Delivery& delivery : batch) delivery.ack();
}

// Six processes with requests of different sizes: every message once, and every request is served.
TEST_F(WaitingLineTest, ManyRequestsAreAllServed) {
    constexpr std::size_t kConsumers = 6;
    constexpr std::size_t kRounds = 60;
    Queue queue = Queue::create(name_, small_queue(64));
    Shared<std::atomic<std::uint64_t>> sum;
    std::uint64_t total = 0;
    std::vector<std::unique_ptr<Child>> children;
    for (std::size_t c = 0; c < kConsumers; ++c) {
        const std::size_t wanted = c % 3 == 0 ? 1 : 3 * c;
        total += wanted * kRounds;
        children.push_back(std::make_unique<Child>([&, wanted] {
            Queue own = Queue::attach(name_, QueueRole::Consumer);
            for (std::size_t round = 0; round < kRounds; ++round) {
                std::vector<Delivery> batch;
                require(own.take_many(batch, wanted, kLong, wanted).is_ok());
                require(batch.size() == wanted);
                for (Delivery& delivery : batch) {
                    std::uint64_t number = 0;
                    std::memcpy(&number, delivery.bytes().data(), sizeof number);
                    sum->fetch_add(number);
                    delivery.ack();
                }
            }
        }));
    }
    for (std::uint64_t number = 0; number < total; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number, kInCell, kLong)));
    }
    for (const auto& child : children) EXPECT_EQ(child->wait(), 0);
    EXPECT_EQ(sum->load(), total * (total - 1) / 2);
}

}  // namespace
}  // namespace penstock

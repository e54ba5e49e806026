// A Queue without deaths: order, bounds, acknowledgement, the end of the stream.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/unit/queue/queue_fixture.hpp"

namespace penstock {
namespace {

using namespace test;
using namespace std::chrono_literals;

TEST_F(QueueTest, MessagesComeInOrder) {
    Queue queue = Queue::create(name_, small_queue());
    Queue other = Queue::attach(name_);
    for (std::uint64_t number = 0; number < 100; ++number) {
        const std::size_t size = number % 3 == 0 ? kInBlock : number % 129;
        ASSERT_TRUE(succeeds(put(queue, number, size)));
        EXPECT_TRUE(gets(other, number, size));
    }
    EXPECT_TRUE(is_empty(other));
    EXPECT_EQ(queue.stats().held_bytes, 0U);
}

// Its copy of the handle has no mapping: also the shortest way through each call looks at that
// first.
TEST_F(QueueTest, AForkedChildIsRefused) {
    Queue queue = Queue::create(name_, small_queue());
    ASSERT_TRUE(succeeds(put(queue, 0)));
    ASSERT_TRUE(succeeds(put(queue, 1)));
    Result<Delivery> held = queue.take();
    Child child([&] {
        const auto is_refused = [](ErrorCode code) { return code == ErrorCode::WrongProcess; };
        const std::vector<std::byte> message = make_message(2, kInCell);
        const std::vector<std::span<const std::byte>> messages(3, message);
        std::vector<Delivery> taken;
        std::array<std::byte, 2 * kInCell> room{};
        require(is_refused(queue.put(message).code()));
        require(is_refused(queue.put_many(messages).code()));
        require(is_refused(queue.loan(10).code()));
        require(is_refused(queue.take().code()));
        require(is_refused(queue.take_for_batch().code()));
        require(is_refused(queue.take_many(taken, 10).code()));
        require(is_refused(queue.get(room).code()));
        require(is_refused(queue.wait_ready(Deadline::now()).code()));
        require(is_refused(queue.wait_room(1, Deadline::now()).code()));
        require(!queue.is_ready() && !queue.has_room());
        held->ack();
        Queue own = Queue::attach(name_);
        require(own.take().is_ok());
        queue.close();
    });
    EXPECT_EQ(child.wait(), 0);
    held->ack();
    EXPECT_TRUE(gets(queue, 1, kInCell, 2));  // the child's, given back
    queue.discard();
}

TEST_F(QueueTest, IsBoundedInMessages) {
    Queue queue = Queue::create(name_, small_queue(4));
    for (std::uint64_t number = 0; number < 4; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number)));
    }
    EXPECT_TRUE(fails(put(queue, 4), ErrorCode::Timeout, {"full"}));
    EXPECT_EQ(queue.queued(), 4U);
    EXPECT_TRUE(gets(queue, 0));
    EXPECT_TRUE(succeeds(put(queue, 4)));
    EXPECT_TRUE(fails(put(queue, 5), ErrorCode::Timeout));
    queue.discard();
}

TEST_F(QueueTest, IsBoundedInBytes) {
    QueueOptions options = small_queue(64);
    options.capacity = 8 * 4096;
    Queue queue = Queue::create(name_, options);
    ASSERT_TRUE(succeeds(put(queue, 0, 5 * 4096)));
    EXPECT_TRUE(fails(put(queue, 1, 5 * 4096), ErrorCode::Timeout, {"no room"}));
    EXPECT_TRUE(succeeds(put(queue, 1, 3 * 4096)));
    EXPECT_TRUE(succeeds(put(queue, 2, 10)));  // needs no block
    EXPECT_TRUE(fails(put(queue, 3, 8 * 4096 + 1), ErrorCode::TooLarge));
    EXPECT_TRUE(gets(queue, 0, 5 * 4096));
    EXPECT_TRUE(succeeds(put(queue, 3, 5 * 4096)));
    queue.discard();
}

TEST_F(QueueTest, ATakenMessageKeepsItsBytesUntilAcknowledged) {
    Queue queue = Queue::create(name_, small_queue(4));
    ASSERT_TRUE(succeeds(put(queue, 0)));
    Result<Delivery> held = queue.take(kLong);
    ASSERT_TRUE(succeeds(held));
    // Laps pass the taken slot.
    for (std::uint64_t number = 1; number < 30; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number)));
        ASSERT_TRUE(gets(queue, number));
        EXPECT_TRUE(is_message(held->bytes(), 0, kInCell));
    }
    EXPECT_EQ(queue.stats().in_flight, 1U);
    held->ack();
    EXPECT_EQ(queue.stats().in_flight, 0U);
    for (std::uint64_t number = 0; number < 4; ++number) ASSERT_TRUE(succeeds(put(queue, number)));
    queue.discard();
}

TEST_F(QueueTest, AllTakenMeansFull) {
    Queue queue = Queue::create(name_, small_queue(4));
    std::vector<Delivery> held;
    for (std::uint64_t number = 0; number < 4; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number)));
        ASSERT_TRUE(succeeds(queue.take_many(held, 1)));
    }
    EXPECT_TRUE(fails(put(queue, 4), ErrorCode::Timeout));
    EXPECT_TRUE(fails(put(queue, 4), ErrorCode::Timeout));
    held[2].ack();
    EXPECT_TRUE(succeeds(put(queue, 4)));
    EXPECT_TRUE(gets(queue, 4));
    held.clear();
    queue.discard();
}

// Failed puts leave no trace: otherwise each would cost a consumer a look.
TEST_F(QueueTest, PollingAFullQueueChangesNothing) {
    Queue queue = Queue::create(name_, small_queue(8));
    std::vector<Delivery> held;
    for (std::uint64_t number = 0; number < 8; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number)));
    }
    ASSERT_TRUE(succeeds(queue.take_many(held, 8)));
    for (int i = 0; i < 100'000; ++i) ASSERT_FALSE(put(queue, 8).is_ok());
    held.clear();
    for (std::uint64_t number = 0; number < 8; ++number) {
        EXPECT_TRUE(gets(queue, number, kInCell, 2));
    }
    ASSERT_TRUE(succeeds(put(queue, 8)));
    Result<Delivery> delivery = queue.take(Deadline::now());
    ASSERT_TRUE(succeeds(delivery));
    EXPECT_LT(delivery->sequence(), 64U);
    delivery->ack();
}

// One slow consumer and a queue that is full otherwise: each acknowledgement makes room at once.
TEST_F(QueueTest, EachAcknowledgementAdmitsOneMessage) {
    Queue queue = Queue::create(name_, small_queue(16));
    for (std::uint64_t number = 0; number < 16; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number)));
    }
    for (std::uint64_t number = 16; number < 200; ++number) {
        Result<Delivery> held = queue.take(kLong);
        ASSERT_TRUE(succeeds(held));
        EXPECT_FALSE(put(queue, number).is_ok());
        held->ack();
        EXPECT_TRUE(succeeds(put(queue, number))) << number;
    }
    queue.discard();
}

// A slot is held for long, at every position: new messages pass it.
TEST_F(QueueTest, AHeldSlotHidesNoNewMessage) {
    for (unsigned place = 0; place < 8; ++place) {
        Queue queue = Queue::create(name_, small_queue(8));
        for (std::uint64_t number = 0; number < place; ++number) {
            ASSERT_TRUE(succeeds(put(queue, number)));
            ASSERT_TRUE(gets(queue, number));
        }
        ASSERT_TRUE(succeeds(put(queue, 99)));
        Result<Delivery> held = queue.take(kLong);
        for (std::uint64_t number = 0; number < 1000; ++number) {
            ASSERT_TRUE(succeeds(put(queue, number)));
            ASSERT_TRUE(gets(queue, number));
        }
        Queue newcomer = Queue::attach(name_);
        EXPECT_TRUE(succeeds(put(newcomer, 7)));
        EXPECT_TRUE(gets(newcomer, 7));
        held->ack();
    }
}

TEST_F(QueueTest, AcknowledgedInAnyOrder) {
    Queue queue = Queue::create(name_, small_queue(8));
    std::uint64_t number = 0;
    for (int lap = 0; lap < 10; ++lap) {
        std::vector<Delivery> held;
        for (std::uint64_t i = 0; i < 6; ++i) {
            ASSERT_TRUE(succeeds(put(queue, number + i, i % 2 == 0 ? kInCell : kInBlock)));
        }
        ASSERT_TRUE(succeeds(queue.take_many(held, 6)));
        ASSERT_EQ(held.size(), 6U);
        for (const std::uint64_t i : {3U, 0U, 5U, 1U, 4U, 2U}) {
            EXPECT_TRUE(is_message(held[i].bytes(), number + i, i % 2 == 0 ? kInCell : kInBlock));
            held[i].ack();
        }
        number += 6;
    }
    EXPECT_EQ(queue.stats().held_bytes, 0U);
}

TEST_F(QueueTest, NackedMessagesComeFirstAndMarked) {
    Queue queue = Queue::create(name_, small_queue(8));
    for (std::uint64_t number = 0; number < 4; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number, number == 1 ? kInBlock : kInCell)));
    }
    {
        std::vector<Delivery> held;
        ASSERT_TRUE(succeeds(queue.take_many(held, 3)));
        held[0].ack();
        held[2].nack();
    }  // the destructor gives 1 back
    EXPECT_TRUE(gets(queue, 1, kInBlock, 2));
    EXPECT_TRUE(gets(queue, 2, kInCell, 2));
    EXPECT_TRUE(gets(queue, 3, kInCell, 1));
    EXPECT_TRUE(is_empty(queue));
    const QueueStats stats = queue.stats();
    EXPECT_EQ(stats.accepted, 4U);
    EXPECT_EQ(stats.acknowledged, 4U);
    EXPECT_EQ(stats.taken, 6U);
    EXPECT_EQ(stats.nacked, 2U);
    EXPECT_EQ(stats.dropped, 0U);
}

TEST_F(QueueTest, AMessageNackedLapsLaterComesToo) {
    Queue queue = Queue::create(name_, small_queue(4));
    ASSERT_TRUE(succeeds(put(queue, 0)));
    Result<Delivery> held = queue.take(kLong);
    for (std::uint64_t number = 1; number < 23; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number)));
        ASSERT_TRUE(gets(queue, number));
    }
    ASSERT_TRUE(succeeds(put(queue, 23)));
    held->nack();
    EXPECT_TRUE(gets(queue, 0, kInCell, 2));
    EXPECT_TRUE(gets(queue, 23));
    for (std::uint64_t number = 0; number < 4; ++number) ASSERT_TRUE(succeeds(put(queue, number)));
    for (std::uint64_t number = 0; number < 4; ++number) EXPECT_TRUE(gets(queue, number));
}

TEST_F(QueueTest, ASettledDeliveryKeepsItsBytesUntilReleased) {
    Queue queue = Queue::create(name_, small_queue(4));
    for (const std::size_t size : {kInCell, kInBlock}) {
        ASSERT_TRUE(succeeds(put(queue, 0, size)));
        {
            Result<Delivery> held = queue.take(kLong);
            held->settle();
            EXPECT_EQ(queue.stats().in_flight, 1U);
            for (std::uint64_t number = 1; number < 9; ++number) {
                ASSERT_TRUE(succeeds(put(queue, number)));
                ASSERT_TRUE(gets(queue, number));
            }
            EXPECT_TRUE(is_message(held->bytes(), 0, size));
        }
        EXPECT_TRUE(is_empty(queue));
        EXPECT_EQ(queue.stats().held_bytes, 0U);
    }
    EXPECT_EQ(queue.stats().acknowledged, queue.stats().accepted);
}

TEST_F(QueueTest, AnUntakenMessageIsNotMarked) {
    Queue queue = Queue::create(name_, small_queue(4));
    ASSERT_TRUE(succeeds(put(queue, 0)));
    queue.take(kLong)->untake();
    EXPECT_TRUE(gets(queue, 0, kInCell, 1));
}

TEST_F(QueueTest, ReportsWithoutWaitingWhetherAMessageIsThere) {
    Queue queue = Queue::create(name_, small_queue(2));
    EXPECT_FALSE(queue.is_ready());
    EXPECT_TRUE(queue.has_room());
    ASSERT_TRUE(succeeds(put(queue, 0)));
    ASSERT_TRUE(succeeds(put(queue, 1)));
    EXPECT_TRUE(queue.is_ready());
    EXPECT_FALSE(queue.has_room());
    queue.take(kLong)->untake();
    EXPECT_TRUE(queue.is_ready());
    EXPECT_TRUE(gets(queue, 0));
    EXPECT_TRUE(queue.has_room());
    EXPECT_TRUE(gets(queue, 1));
    EXPECT_TRUE(is_empty(queue));
    EXPECT_FALSE(queue.is_ready());
}

TEST_F(QueueTest, AMessageAtItsDeliveryLimitIsADeadLetter) {
    QueueOptions options = small_queue(4);
    options.max_deliveries = 2;
    Queue queue = Queue::create(name_, options);
    ASSERT_TRUE(succeeds(put(queue, 0, kInBlock)));
    ASSERT_TRUE(succeeds(put(queue, 1)));
    queue.take(kLong)->nack();
    queue.take(kLong)->nack();
    EXPECT_TRUE(gets(queue, 1));
    EXPECT_TRUE(is_empty(queue));
    const QueueInfo info = inspect_queue(name_);
    EXPECT_EQ(info.stats.dead_letters, 1U);
    EXPECT_EQ(info.dead_letters, std::vector<std::uint64_t>{0});
    // A dead letter takes a slot and nothing else.
    for (std::uint64_t number = 0; number < 20; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number)));
        ASSERT_TRUE(gets(queue, number));
    }
    EXPECT_EQ(queue.discard(), 1U);
    EXPECT_EQ(queue.stats().dead_letters, 0U);
    EXPECT_EQ(queue.stats().held_bytes, 0U);
}

TEST_F(QueueTest, GetCopiesAndAcknowledges) {
    Queue queue = Queue::create(name_, small_queue());
    ASSERT_TRUE(succeeds(put(queue, 0, kInBlock)));
    std::array<std::byte, kInBlock> buffer{};
    EXPECT_TRUE(fails(queue.get(std::span(buffer).first(10), kLong), ErrorCode::TooLarge));
    const Result<std::size_t> size = queue.get(buffer, kLong);
    ASSERT_TRUE(succeeds(size));
    EXPECT_TRUE(is_message(std::span(buffer).first(*size), 0, kInBlock));
    EXPECT_EQ(queue.stats().held_bytes, 0U);
}

TEST_F(QueueTest, TakesManyAtOnce) {
    Queue queue = Queue::create(name_, small_queue(4));
    std::vector<std::vector<std::byte>> messages;
    std::vector<std::span<const std::byte>> spans;
    for (std::uint64_t number = 0; number < 6; ++number) {
        messages.push_back(make_message(number, number == 1 ? kInBlock : kInCell));
        spans.emplace_back(messages.back());
    }
    const auto accepted = queue.put_many(spans, Deadline::now());
    ASSERT_TRUE(succeeds(accepted));
    EXPECT_EQ(*accepted, 4U);
    std::vector<Delivery> taken;
    ASSERT_TRUE(succeeds(queue.take_many(taken, 100, kLong)));
    ASSERT_EQ(taken.size(), 4U);
    for (std::uint64_t number = 0; number < 4; ++number) {
        EXPECT_TRUE(is_message(taken[number].bytes(), number, messages[number].size()));
    }
    EXPECT_TRUE(fails(queue.take_many(taken, 100, Deadline::now()), ErrorCode::Timeout));
    taken.clear();
    queue.discard();
}

TEST_F(QueueTest, ManyMessagesOfBothKindsKeepTheirOrder) {
    constexpr std::uint64_t kMessages = 200;  // several runs
    Queue queue = Queue::create(name_, small_queue(256));
    std::vector<std::vector<std::byte>> messages;
    std::vector<std::span<const std::byte>> spans;
    std::uint64_t bytes = 0;
    for (std::uint64_t number = 0; number < kMessages; ++number) {
        messages.push_back(make_message(number, number % 37 == 36 ? kInBlock : kInCell));
        spans.emplace_back(messages.back());
        bytes += messages.back().size();
    }
    const auto accepted = queue.put_many(spans, Deadline::now());
    ASSERT_TRUE(succeeds(accepted));
    EXPECT_EQ(*accepted, kMessages);
    EXPECT_EQ(queue.stats().accepted, kMessages);
    EXPECT_EQ(queue.stats().accepted_bytes, bytes);
    std::vector<Delivery> taken;
    ASSERT_TRUE(succeeds(queue.take_many(taken, kMessages, kLong)));
    ASSERT_EQ(taken.size(), kMessages);
    for (std::uint64_t number = 0; number < kMessages; ++number) {
        EXPECT_TRUE(is_message(taken[number].bytes(), number, messages[number].size()));
        EXPECT_EQ(taken[number].sequence(), number);
    }
    EXPECT_EQ(queue.stats().taken, kMessages);
    taken.clear();
    queue.discard();
}

TEST_F(QueueTest, ManyMessagesAreTakenAfterReturnedOnes) {
    Queue queue = Queue::create(name_, small_queue(16));
    for (std::uint64_t number = 0; number < 10; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number)));
    }
    std::vector<Delivery> taken;
    ASSERT_TRUE(succeeds(queue.take_many(taken, 3, kLong)));
    taken.clear();  // nacked
    ASSERT_TRUE(succeeds(queue.take_many(taken, 100, kLong)));
    ASSERT_EQ(taken.size(), 10U);
    for (std::uint64_t number = 0; number < 10; ++number) {
        EXPECT_TRUE(is_message(taken[number].bytes(), number, kInCell));
        EXPECT_EQ(taken[number].deliveries(), number < 3 ? 2U : 1U);
    }
    taken.clear();
    queue.discard();
}

TEST_F(QueueTest, NothingIsPutByManyAfterTheEnd) {
    Queue queue = Queue::create(name_, small_queue());
    queue.end();
    const std::vector<std::byte> message = make_message(0, kInCell);
    const std::span<const std::byte> span = message;
    EXPECT_TRUE(fails(queue.put_many({&span, 1}, Deadline::now()), ErrorCode::Closed));
    EXPECT_EQ(queue.stats().queued, 0U);
}

TEST_F(QueueTest, ALoanIsWrittenInPlace) {
    Queue queue = Queue::create(name_, small_queue());
    Result<QueueLoan> loan = queue.loan(kInBlock, kLong);
    ASSERT_TRUE(succeeds(loan));
    // An open loan does not block other producers.
    ASSERT_TRUE(succeeds(put(queue, 0)));
    EXPECT_TRUE(gets(queue, 0));
    trust::fill_numbered(loan->bytes(), 1);
    ASSERT_TRUE(succeeds(loan->commit()));
    EXPECT_TRUE(fails(loan->commit(), ErrorCode::Closed));
    EXPECT_TRUE(gets(queue, 1, kInBlock));
    {
        Result<QueueLoan> dropped = queue.loan(kInBlock, kLong);
    }
    EXPECT_TRUE(is_empty(queue));
    EXPECT_EQ(queue.stats().held_bytes, 0U);
}

TEST_F(QueueTest, ALoanThatFindsNoSlotMayBeCommittedLater) {
    Queue queue = Queue::create(name_, small_queue(1));
    ASSERT_TRUE(succeeds(put(queue, 0)));
    Result<QueueLoan> loan = queue.loan(kInBlock, kLong);
    ASSERT_TRUE(succeeds(loan));
    trust::fill_numbered(loan->bytes(), 1);
    EXPECT_TRUE(fails(loan->commit(Format::Bytes, Deadline::now()), ErrorCode::Timeout));
    EXPECT_TRUE(gets(queue, 0));
    EXPECT_TRUE(succeeds(loan->commit(Format::Bytes, Deadline::now())));
    EXPECT_TRUE(gets(queue, 1, kInBlock));
}

TEST_F(QueueTest, AMessageCarriesItsFormatAndProducer) {
    Queue queue = Queue::create(name_, small_queue());
    Queue other = Queue::attach(name_);
    ASSERT_TRUE(succeeds(other.put(make_message(0, 10), kLong, Format::Typed)));
    Result<Delivery> delivery = queue.take(kLong);
    ASSERT_TRUE(succeeds(delivery));
    EXPECT_EQ(delivery->format(), Format::Typed);
    EXPECT_EQ(delivery->producer(), 1U);
    EXPECT_EQ(delivery->sequence(), 0U);
    EXPECT_FALSE(delivery->is_redelivered());
    delivery->ack();
}

TEST_F(QueueTest, ADeliveryOutlivesItsHandle) {
    Queue queue = Queue::create(name_, small_queue());
    Queue consumer = Queue::attach(name_, QueueRole::Consumer);
    ASSERT_TRUE(succeeds(put(queue, 0, kInBlock)));
    Result<Delivery> delivery = consumer.take(kLong);
    consumer.close();
    EXPECT_TRUE(is_message(delivery->bytes(), 0, kInBlock));
    EXPECT_EQ(queue.stats().in_flight, 1U);
    delivery->ack();
    EXPECT_EQ(queue.stats().in_flight, 0U);
}

TEST_F(QueueTest, AConsumerMayNotPut) {
    Queue queue = Queue::create(name_, small_queue());
    Queue consumer = Queue::attach(name_, QueueRole::Consumer);
    EXPECT_TRUE(fails(put(consumer, 0), ErrorCode::InvalidArgument));
    EXPECT_TRUE(fails(consumer.loan(10), ErrorCode::InvalidArgument));
}

TEST_F(QueueTest, TheCreatorsCloseEndsTheStream) {
    Queue queue = Queue::create(name_, small_queue());
    Queue other = Queue::attach(name_);
    ASSERT_TRUE(succeeds(put(other, 0)));
    queue.close();
    EXPECT_TRUE(fails(put(other, 1), ErrorCode::Closed));
    EXPECT_TRUE(gets(other, 0));
    EXPECT_TRUE(fails(other.take(kLong), ErrorCode::Closed));
    EXPECT_TRUE(fails(queue.take(kLong), ErrorCode::Closed));
}

TEST_F(QueueTest, TheEndWakesAProducerThatWaitsForRoom) {
    for (const std::size_t size : {kInCell, std::size_t{900'000}}) {
        Queue queue = Queue::create(name_, small_queue(size == kInCell ? 1 : 8));
        Queue other = Queue::attach(name_);
        ASSERT_TRUE(succeeds(put(queue, 0, size)));
        std::jthread ender([&] {
            await([&] { return queue.stats().waits > 0; });
            queue.end();
        });
        EXPECT_TRUE(fails(put(other, 1, size, kLong), ErrorCode::Closed)) << size;
        ender.join();
        queue.discard();
    }
}

TEST_F(QueueTest, NoProducersCloseEndsTheCreatorsStream) {
    Queue queue = Queue::create(name_, small_queue());
    Queue first = Queue::attach(name_, QueueRole::Producer);
    ASSERT_TRUE(succeeds(put(first, 0)));
    first.close();
    EXPECT_TRUE(gets(queue, 0));
    EXPECT_TRUE(is_empty(queue));
    EXPECT_FALSE(queue.stats().closed);
    EXPECT_EQ(inspect_queue(name_).ends_with, EndsWith::Creator);
    Queue next = Queue::attach(name_);
    EXPECT_TRUE(succeeds(put(next, 1)));
    EXPECT_TRUE(gets(queue, 1));
    next.end();
    EXPECT_TRUE(fails(queue.take(kLong), ErrorCode::Closed)) << "end() by any participant";
}

TEST_F(QueueTest, AnEndedStreamContinuesWhenReopened) {
    Queue queue = Queue::create(name_, small_queue());
    Queue other = Queue::attach(name_);
    ASSERT_TRUE(succeeds(put(queue, 0)));
    queue.close();
    EXPECT_TRUE(fails(put(other, 1), ErrorCode::Closed));
    Queue next = Queue::attach(name_);
    EXPECT_TRUE(next.reopen());
    EXPECT_FALSE(next.reopen()) << "it goes on already";
    EXPECT_TRUE(succeeds(put(other, 1)));
    EXPECT_TRUE(gets(next, 0));
    EXPECT_TRUE(gets(next, 1));
    EXPECT_TRUE(is_empty(next));
    next.close();
    EXPECT_TRUE(fails(other.take(kLong), ErrorCode::Closed)) << "it left as a creator does";
}

TEST_F(QueueTest, TheCreatorMayLeaveAStreamThatEndsWithItsLastProducer) {
    Queue queue = Queue::create(name_, ends_with_last_producer());
    Queue producer = Queue::attach(name_, QueueRole::Producer);
    ASSERT_TRUE(succeeds(put(queue, 0)));
    queue.close();
    EXPECT_TRUE(succeeds(put(producer, 1)));
    Queue consumer = Queue::attach(name_);
    EXPECT_TRUE(gets(consumer, 0));
    EXPECT_TRUE(gets(consumer, 1));
    EXPECT_TRUE(is_empty(consumer));
    EXPECT_EQ(inspect_queue(name_).ends_with, EndsWith::LastProducer);
    producer.close();
    EXPECT_TRUE(fails(consumer.take(kLong), ErrorCode::Closed));
}

TEST_F(QueueTest, TheLastProducersCloseEndsTheStream) {
    Queue queue = Queue::create(name_, ends_with_last_producer());
    Queue first = Queue::attach(name_, QueueRole::Producer);
    Queue second = Queue::attach(name_);
    ASSERT_TRUE(succeeds(put(second, 0)));
    second.close();
    EXPECT_TRUE(gets(queue, 0));
    EXPECT_TRUE(is_empty(queue)) << "the first has not put anything yet, but is a producer";
    first.close();
    EXPECT_TRUE(fails(queue.take(kLong), ErrorCode::Closed));
}

TEST_F(QueueTest, AConsumersCloseEndsNothing) {
    Queue queue = Queue::create(name_, small_queue());
    Queue::attach(name_).close();
    EXPECT_TRUE(succeeds(put(queue, 0)));
    EXPECT_TRUE(gets(queue, 0));
}

TEST_F(QueueTest, MessagesOutliveTheLastParticipant) {
    Queue queue = Queue::create(name_, small_queue());
    ASSERT_TRUE(succeeds(put(queue, 0, kInBlock)));
    queue.close();
    EXPECT_TRUE(exists(name_));
    {
        Queue consumer = Queue::attach(name_);
        EXPECT_TRUE(gets(consumer, 0, kInBlock));
        EXPECT_TRUE(fails(consumer.take(kLong), ErrorCode::Closed));
    }
    EXPECT_FALSE(exists(name_));
}

TEST_F(QueueTest, DiscardRemovesTheQueue) {
    Queue queue = Queue::create(name_, small_queue());
    for (std::uint64_t number = 0; number < 5; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number, number == 2 ? kInBlock : kInCell)));
    }
    EXPECT_EQ(queue.discard(), 5U);
    EXPECT_EQ(queue.stats().dropped, 5U);
    EXPECT_EQ(queue.stats().held_bytes, 0U);
    EXPECT_TRUE(fails(put(queue, 5), ErrorCode::Closed));
    queue.close();
    EXPECT_FALSE(exists(name_));
}

TEST_F(QueueTest, DeadLettersKeepTheName) {
    QueueOptions options = small_queue(4);
    options.max_deliveries = 1;
    {
        Queue queue = Queue::create(name_, options);
        ASSERT_TRUE(succeeds(put(queue, 0)));
        queue.take(kLong)->nack();
    }
    ASSERT_TRUE(exists(name_));
    EXPECT_EQ(Queue::attach(name_).discard(), 1U);
    EXPECT_FALSE(exists(name_));
}

TEST_F(QueueTest, AttachingWithoutAFreeSlotIsBusy) {
    QueueOptions options = small_queue();
    options.participants = 2;
    Queue queue = Queue::create(name_, options);
    Queue second = Queue::attach(name_);
    EXPECT_TRUE(refuses(ErrorCode::Busy, [&] { Queue::attach(name_); }, {"2 participants"}));
    second.close();
    EXPECT_NO_THROW(Queue::attach(name_));
}

TEST_F(QueueTest, AWaitingConsumerIsWoken) {
    Queue queue = Queue::create(name_, small_queue());
    std::jthread consumer([&] { EXPECT_TRUE(gets(queue, 7)); });
    while (queue.stats().taken == 0) {
        if (queue.queued() == 0 && queue.stats().accepted == 0) {
            ASSERT_TRUE(succeeds(put(queue, 7)));
        }
    }
}

TEST_F(QueueTest, AWaitingProducerIsWoken) {
    Queue queue = Queue::create(name_, small_queue(1));
    ASSERT_TRUE(succeeds(put(queue, 0)));
    std::jthread producer([&] { EXPECT_TRUE(succeeds(put(queue, 1, kInCell, kLong))); });
    EXPECT_TRUE(gets(queue, 0));
    EXPECT_TRUE(gets(queue, 1));
}

TEST_F(QueueTest, RequestCloseEndsAWait) {
    Queue queue = Queue::create(name_, small_queue());
    std::jthread closer([&] { queue.request_close(); });
    EXPECT_TRUE(fails(queue.take(kLong), ErrorCode::Cancelled));
}

// Each producer's numbers arrive in order, exactly once, whichever consumer takes them.
TEST_F(QueueTest, ManyProducersAndConsumers) {
    constexpr unsigned kProducers = 3;
    constexpr unsigned kConsumers = 3;
    constexpr std::uint64_t kEach = 3000;
    Queue queue = Queue::create(name_, ends_with_last_producer(16));
    std::array<std::array<std::atomic<unsigned>, kEach>, kProducers> seen{};
    std::vector<std::thread> threads;
    std::vector<Queue> sources;  // all made first: the last to close ends the stream
    for (unsigned producer = 0; producer < kProducers; ++producer) {
        sources.push_back(Queue::attach(name_, QueueRole::Producer));
    }
    for (unsigned producer = 0; producer < kProducers; ++producer) {
        threads.emplace_back([own = std::move(sources[producer]), producer]() mutable {
            for (std::uint64_t number = 0; number < kEach; ++number) {
                const std::size_t size = number % 16 == 0 ? kInBlock : kInCell;
                EXPECT_TRUE(succeeds(put(own, producer * kEach + number, size, kLong)));
            }
            own.close();
        });
    }
    for (unsigned consumer = 0; consumer < kConsumers; ++consumer) {
        threads.emplace_back([&, this] {
            Queue own = Queue::attach(name_, QueueRole::Consumer);
            std::array<std::int64_t, kProducers> last;
            last.fill(-1);
            for (;;) {
                Result<Delivery> delivery = own.take(kLong);
                if (delivery.code() == ErrorCode::Closed) break;
                ASSERT_TRUE(succeeds(delivery));
                std::uint64_t number = 0;
                std::memcpy(&number, delivery->bytes().data(), sizeof number);
                EXPECT_EQ(trust::check_numbered(delivery->bytes(), number), "");
                const std::uint64_t producer = number / kEach;
                EXPECT_GT(static_cast<std::int64_t>(number), last.at(producer));
                last.at(producer) = static_cast<std::int64_t>(number);
                seen.at(producer).at(number % kEach).fetch_add(1);
                delivery->ack();
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& numbers : seen) {
        for (const auto& count : numbers) EXPECT_EQ(count.load(), 1U);
    }
    EXPECT_EQ(queue.stats().held_bytes, 0U);
}

// The same with several messages a call, on a queue that is full at times.
TEST_F(QueueTest, ManyProducersAndConsumersOfSeveralAtOnce) {
    constexpr unsigned kProducers = 3;
    constexpr unsigned kConsumers = 2;
    constexpr std::uint64_t kEach = 2'000;
    static constexpr std::size_t kAtOnce = 10;
    Queue queue = Queue::create(name_, ends_with_last_producer(32));
    std::array<std::array<std::atomic<unsigned>, kEach>, kProducers> seen{};
    std::vector<std::thread> threads;
    std::vector<Queue> sources;  // all made first: the last to close ends the stream
    for (unsigned producer = 0; producer < kProducers; ++producer) {
        sources.push_back(Queue::attach(name_, QueueRole::Producer));
    }
    for (unsigned producer = 0; producer < kProducers; ++producer) {
        threads.emplace_back([own = std::move(sources[producer]), producer]() mutable {
            std::vector<std::vector<std::byte>> messages;
            std::vector<std::span<const std::byte>> spans;
            for (std::uint64_t number = 0; number < kEach; ++number) {
                const std::size_t size = number % 16 == 0 ? kInBlock : kInCell;
                messages.push_back(make_message(producer * kEach + number, size));
            }
            for (const auto& message : messages) spans.emplace_back(message);
            for (std::size_t first = 0; first < kEach; first += kAtOnce) {
                const auto put = own.put_many(std::span(spans).subspan(first, kAtOnce), kLong);
                ASSERT_TRUE(succeeds(put));
                EXPECT_EQ(*put, kAtOnce);
            }
            own.close();
        });
    }
    for (unsigned consumer = 0; consumer < kConsumers; ++consumer) {
        threads.emplace_back([&, this] {
            Queue own = Queue::attach(name_, QueueRole::Consumer);
            std::array<std::int64_t, kProducers> last;
            last.fill(-1);
            for (;;) {
                std::vector<Delivery> taken;
                const Status status = own.take_many(taken, kAtOnce, kLong);
                if (status.code() == ErrorCode::Closed) break;
                ASSERT_TRUE(succeeds(status));
                for (Delivery& delivery : taken) {
                    std::uint64_t number = 0;
                    std::memcpy(&number, delivery.bytes().data(), sizeof number);
                    EXPECT_EQ(trust::check_numbered(delivery.bytes(), number), "");
                    const std::uint64_t producer = number / kEach;
                    EXPECT_GT(static_cast<std::int64_t>(number), last.at(producer));
                    last.at(producer) = static_cast<std::int64_t>(number);
                    seen.at(producer).at(number % kEach).fetch_add(1);
                    delivery.ack();
                }
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& numbers : seen) {
        for (const auto& count : numbers) EXPECT_EQ(count.load(), 1U);
    }
    EXPECT_EQ(queue.stats().held_bytes, 0U);
}

}  // namespace
}  // namespace penstock

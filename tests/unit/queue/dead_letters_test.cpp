// Dead letters: when a message becomes one, how it is inspected, requeued and dropped.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <thread>
#include <vector>

#include "os/crash_point.hpp"
#include "tests/unit/queue/queue_fixture.hpp"

namespace penstock {
namespace {

using namespace test;

class DeadLetterTest : public QueueTest {
protected:
    Queue create(unsigned limit, unsigned slots = 8) {
        QueueOptions options = small_queue(slots);
        options.max_deliveries = limit;
        return Queue::create(name_, options);
    }
    // Puts `count` messages and fails each until it is a dead letter.
    static void dead_letter(Queue& queue, std::uint64_t count, std::size_t size = kInCell) {
        for (std::uint64_t number = 0; number < count; ++number) {
            const std::uint64_t before = queue.stats().dead_letters;
            require(put(queue, number, size).is_ok());
            while (queue.stats().dead_letters == before) queue.take(kLong)->nack();
        }
    }
};

std::uint64_t number_of(const Delivery& delivery) {
    std::uint64_t number = 0;  // matches fill_numbered()
    std::memcpy(&number, delivery.bytes().data(), sizeof number);
    return number;
}

std::vector<std::uint64_t> sequences(const Queue& queue, std::size_t limit = 100) {
    std::vector<std::uint64_t> found;
    for (const DeadLetter& letter : queue.dead_letters(limit).or_throw()) {
        found.push_back(letter.sequence);
    }
    return found;
}

std::vector<Delivery> take_batch(Queue& queue, std::size_t most) {
    std::vector<Delivery> batch;
    EXPECT_TRUE(succeeds(queue.take_many(batch, most, Deadline::now())));
    return batch;
}

TEST_F(DeadLetterTest, InspectionTakesNoDeadLetter) {
    Queue queue = create(2);
    ASSERT_TRUE(succeeds(put(queue, 7, kInBlock)));
    queue.take(kLong)->nack();
    EXPECT_TRUE(sequences(queue).empty());
    queue.take(kLong)->nack();
    const std::vector<DeadLetter> letters = queue.dead_letters().or_throw();
    ASSERT_EQ(letters.size(), 1U);
    EXPECT_EQ(letters[0].sequence, 0U);
    EXPECT_EQ(letters[0].producer, 0U);
    EXPECT_EQ(letters[0].deliveries, 2U);
    EXPECT_EQ(letters[0].nbytes, kInBlock);
    EXPECT_EQ(letters[0].format, Format::Bytes);
    EXPECT_GE(letters[0].age, 0);
    Queue other = Queue::attach(name_, QueueRole::Consumer);
    for (int look = 0; look < 2; ++look) {
        EXPECT_TRUE(is_message(other.copy_dead_letter(0).or_throw(), 7, kInBlock));
    }
    EXPECT_TRUE(fails(queue.copy_dead_letter(1), ErrorCode::NotFound));
    EXPECT_TRUE(fails(queue.copy_dead_letter(8), ErrorCode::NotFound)) << "another's slot";
    EXPECT_EQ(queue.drop_dead_letters().or_throw(), 1U);
    EXPECT_TRUE(fails(queue.copy_dead_letter(0), ErrorCode::NotFound));
}

TEST_F(DeadLetterTest, IsListedOldestFirst) {
    Queue queue = create(1, 4);
    ASSERT_TRUE(succeeds(put(queue, 0)));
    ASSERT_TRUE(gets(queue, 0));
    ASSERT_TRUE(succeeds(put(queue, 1)));
    for (std::uint64_t number = 2; number < 5; ++number) ASSERT_TRUE(succeeds(put(queue, number)));
    for (int turn = 0; turn < 4; ++turn) queue.take(kLong)->nack();
    EXPECT_EQ(sequences(queue), (std::vector<std::uint64_t>{1, 2, 3, 4})) << "the 4 is in slot 0";
    EXPECT_EQ(sequences(queue, 2), (std::vector<std::uint64_t>{1, 2}));
    EXPECT_EQ(inspect_queue(name_).dead_letters, (std::vector<std::uint64_t>{1, 2, 3, 4}));
    queue.discard();
}

TEST_F(DeadLetterTest, RequeueingKeepsThePlaceAndResetsTheCount) {
    Queue queue = create(2);
    dead_letter(queue, 3, kInBlock);
    ASSERT_TRUE(succeeds(put(queue, 3)));
    const std::array<std::uint64_t, 3> chosen = {sequences(queue)[1], 77, sequences(queue)[1]};
    EXPECT_EQ(queue.requeue_dead_letters(chosen).or_throw(), 1U);
    EXPECT_TRUE(gets(queue, 1, kInBlock))
        << "before what is queued, and delivered for the first time";
    EXPECT_EQ(queue.requeue_dead_letters().or_throw(), 2U);
    EXPECT_EQ(queue.requeue_dead_letters().or_throw(), 0U);
    EXPECT_TRUE(gets(queue, 0, kInBlock));
    EXPECT_TRUE(gets(queue, 2, kInBlock));
    EXPECT_TRUE(gets(queue, 3));
    EXPECT_EQ(queue.stats().held_bytes, 0U);
}

TEST_F(DeadLetterTest, ARequeuedMessageHasTheWholeDeliveryLimitAgain) {
    Queue queue = create(3);
    dead_letter(queue, 1);
    for (int turn = 0; turn < 2; ++turn) {
        ASSERT_EQ(queue.requeue_dead_letters().or_throw(), 1U);
        for (unsigned delivery = 1; delivery <= 3; ++delivery) {
            EXPECT_EQ(queue.stats().dead_letters, 0U);
            Result<Delivery> again = queue.take(kLong);
            EXPECT_EQ(again->deliveries(), delivery);
            again->nack();
        }
        EXPECT_EQ(queue.stats().dead_letters, 1U);
    }
    queue.discard();
}

TEST_F(DeadLetterTest, DroppingFreesItsBytes) {
    Queue queue = create(1);
    dead_letter(queue, 3, kInBlock);
    const std::array<std::uint64_t, 1> chosen = {1};
    EXPECT_EQ(queue.drop_dead_letters(chosen).or_throw(), 1U);
    EXPECT_EQ(sequences(queue), (std::vector<std::uint64_t>{0, 2}));
    EXPECT_EQ(queue.drop_dead_letters(std::span<const std::uint64_t>()).or_throw(), 0U)
        << "none is not all";
    EXPECT_EQ(queue.drop_dead_letters().or_throw(), 2U);
    EXPECT_EQ(queue.stats().held_bytes, 0U);
    EXPECT_EQ(queue.stats().dropped, 3U);
    EXPECT_FALSE(queue.stats().closed);
}

TEST_F(DeadLetterTest, AFullQueuesErrorNamesDeadLetters) {
    Queue queue = create(1, 4);
    dead_letter(queue, 4);
    const Status full = put(queue, 9);
    EXPECT_TRUE(fails(
        full, ErrorCode::Timeout,
        {"4 of 4 slots hold dead letters", "drop_dead_letters()", "`penstock dead NAME --drop`"}));
    EXPECT_EQ(full.message().find("queued or taken"), std::string_view::npos);
    std::jthread producer([&] { EXPECT_TRUE(succeeds(put(queue, 9, kInCell, kLong))); });
    while (queue.stats().waits < 2) std::this_thread::yield();
    const std::array<std::uint64_t, 1> chosen = {2};
    EXPECT_EQ(queue.drop_dead_letters(chosen).or_throw(), 1U) << "wakes the waiter for room";
    producer.join();
    EXPECT_TRUE(fails(put(queue, 10), ErrorCode::Timeout,
                      {"3 of 4 slots hold dead letters, the others are queued or taken"}));
    EXPECT_TRUE(gets(queue, 9));
    queue.drop_dead_letters().or_throw();
}

TEST_F(DeadLetterTest, AnErrorForWantOfBytesNamesDeadLetters) {
    Queue queue = create(1);
    dead_letter(queue, 1, 900'000);
    EXPECT_TRUE(fails(put(queue, 1, 900'000), ErrorCode::Timeout,
                      {"900000 of them in dead letters", "`penstock dead NAME --drop`"}));
    queue.drop_dead_letters().or_throw();
    EXPECT_TRUE(succeeds(put(queue, 1, 900'000)));
    EXPECT_TRUE(gets(queue, 1, 900'000));
}

TEST_F(DeadLetterTest, TheEndOfTheStreamReportsDeadLetters) {
    Queue queue = create(1);
    dead_letter(queue, 2);
    queue.end();
    EXPECT_TRUE(fails(queue.take(kLong), ErrorCode::Closed, {"2 dead letters are left"}));
    EXPECT_EQ(queue.requeue_dead_letters().or_throw(), 2U) << "also after the end";
    EXPECT_TRUE(gets(queue, 0));
    EXPECT_TRUE(gets(queue, 1));
}

TEST_F(DeadLetterTest, AClosedHandleReportsClosed) {
    Queue queue = create(1);
    queue.close();
    EXPECT_TRUE(fails(queue.dead_letters(), ErrorCode::Closed));
    EXPECT_TRUE(fails(queue.copy_dead_letter(0), ErrorCode::Closed));
    EXPECT_TRUE(fails(queue.requeue_dead_letters(), ErrorCode::Closed));
    EXPECT_TRUE(fails(queue.drop_dead_letters(), ErrorCode::Closed));
}

// ---- the last delivery is a batch of one

class BatchWithOneBadTest : public DeadLetterTest,
                            public ::testing::WithParamInterface<unsigned> {};

// Batches of four with one bad message, until the queue is empty.
TEST_P(BatchWithOneBadTest, DeadLettersOnlyTheBadMessage) {
    Queue queue = create(GetParam());
    for (std::uint64_t number = 0; number < 4; ++number) ASSERT_TRUE(succeeds(put(queue, number)));
    std::vector<std::uint64_t> done;
    for (int batches = 0; queue.queued() > 0; ++batches) {
        ASSERT_LT(batches, 20);
        std::vector<Delivery> batch = take_batch(queue, 4);
        const bool fails =
            std::ranges::any_of(batch, [](const Delivery& one) { return number_of(one) == 2; });
        for (Delivery& one : batch) {
            if (!fails) done.push_back(number_of(one));
            if (!fails) one.ack();
        }
    }
    EXPECT_EQ(done, (std::vector<std::uint64_t>{0, 1, 3}));
    EXPECT_EQ(sequences(queue), std::vector<std::uint64_t>{2});
    EXPECT_EQ(queue.dead_letters().or_throw()[0].deliveries, GetParam() + 1);
    queue.drop_dead_letters().or_throw();
}

// The same where the bad message kills its consumer.
TEST_P(BatchWithOneBadTest, DeadLettersOnlyTheKiller) {
    Queue queue = create(GetParam());
    for (std::uint64_t number = 0; number < 4; ++number) ASSERT_TRUE(succeeds(put(queue, number)));
    for (int deaths = 0; queue.stats().dead_letters == 0; ++deaths) {
        ASSERT_LT(deaths, 20);
        Child consumer([&] {
            Queue own = Queue::attach(name_);
            for (;;) {
                std::vector<Delivery> batch;
                require(own.take_many(batch, 4, kLong).is_ok());
                for (const Delivery& one : batch) {
                    if (number_of(one) == 2) ::raise(SIGKILL);
                }
                for (Delivery& one : batch) one.ack();
            }
        });
        ASSERT_EQ(consumer.wait(), killed_by(SIGKILL));
        const Queue janitor = Queue::attach(name_);
    }
    EXPECT_EQ(sequences(queue), std::vector<std::uint64_t>{2});
    for (const std::uint64_t number : {0U, 1U, 3U}) {
        if (queue.queued() == 0) break;
        Result<Delivery> rest = queue.take(kLong);
        EXPECT_GE(number_of(*rest), number);
        rest->ack();
    }
    EXPECT_TRUE(is_empty(queue));
    EXPECT_EQ(queue.stats().acknowledged, 3U);
    queue.drop_dead_letters().or_throw();
}

INSTANTIATE_TEST_SUITE_P(Limits, BatchWithOneBadTest, ::testing::Values(1U, 2U, 3U));

TEST_F(DeadLetterTest, ABatchEndsBeforeAMessageThatMustComeAlone) {
    Queue queue = create(1);
    for (std::uint64_t number = 0; number < 2; ++number) ASSERT_TRUE(succeeds(put(queue, number)));
    take_batch(queue, 2).clear();
    ASSERT_TRUE(succeeds(put(queue, 2)));
    for (std::uint64_t number = 0; number < 2; ++number) {
        std::vector<Delivery> batch = take_batch(queue, 8);
        ASSERT_EQ(batch.size(), 1U);
        EXPECT_EQ(batch[0].deliveries(), 2U);
        EXPECT_TRUE(is_message(batch[0].bytes(), number, kInCell));
        batch[0].ack();
    }
    EXPECT_TRUE(gets(queue, 2));
}

TEST_F(DeadLetterTest, AnUntakenDeliveryIsNoFailure) {
    Queue queue = create(1);
    ASSERT_TRUE(succeeds(put(queue, 0)));
    for (int turn = 0; turn < 3; ++turn) queue.take(kLong)->untake();
    EXPECT_TRUE(gets(queue, 0));
}

#ifdef PENSTOCK_CRASH_POINTS
// A consumer killed before the message was handed out: not the message's fault.
TEST_F(DeadLetterTest, ADeathBeforeTheHandOutIsNoFailureOfTheMessage) {
    Queue queue = create(1);
    ASSERT_TRUE(succeeds(put(queue, 0)));
    for (int death = 0; death < 2; ++death) {
        Child consumer([&] {
            Queue own = Queue::attach(name_);
            os::arm_crash_point("queue.take.taken:1:kill");
            static_cast<void>(own.take(kLong));
        });
        ASSERT_EQ(consumer.wait(), killed_by(SIGKILL));
        const Queue janitor = Queue::attach(name_);
        EXPECT_EQ(queue.stats().dead_letters, 0U);
    }
    EXPECT_TRUE(gets(queue, 0, kInCell, 3));
}
#endif

// ---- several operators at once

TEST_F(DeadLetterTest, EachDeadLetterIsMovedByOneOperator) {
    constexpr std::uint64_t kLetters = 64;
    constexpr int kTurns = 30;
    Queue queue = create(1, kLetters);
    std::vector<Queue> operators;
    for (int i = 0; i < 3; ++i) operators.push_back(Queue::attach(name_));
    for (int turn = 0; turn < kTurns; ++turn) {
        dead_letter(queue, kLetters, turn % 2 == 0 ? kInCell : 5000);
        std::array<std::uint64_t, 3> moved{};
        {
            std::vector<std::jthread> threads;
            for (std::size_t i = 0; i < operators.size(); ++i) {
                threads.emplace_back([&operators, &moved, i] {
                    Queue& own = operators[i];
                    const auto act = [&own, i](const std::vector<std::uint64_t>& some) {
                        return (i == 0 ? own.drop_dead_letters(some)
                                       : own.requeue_dead_letters(some))
                            .or_throw();
                    };
                    for (std::uint64_t at = 0; at < kLetters; at += 4) {
                        moved[i] += act({sequences(own)});
                    }
                });
            }
        }
        ASSERT_EQ(moved[0] + moved[1] + moved[2], kLetters);
        std::uint64_t got = 0;
        for (; queue.queued() > 0; ++got) queue.take(kLong)->ack();
        ASSERT_EQ(got, moved[1] + moved[2]);
        ASSERT_EQ(queue.stats().held_bytes, 0U);
    }
}

}  // namespace
}  // namespace penstock

// A Queue after a death: messages that the dead process had taken come back, unpublished ones
// vanish, and the stream goes on.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <utility>
#include <vector>

#include "os/crash_point.hpp"
#include "tests/support/tier.hpp"
#include "tests/unit/queue/queue_fixture.hpp"

namespace penstock {
namespace {

using namespace test;
using namespace std::chrono_literals;

// A process that runs `deed` on the queue and sleeps until it is killed.
class Doomed {
public:
    explicit Doomed(std::function<void()> deed)
        : child_([this, deed = std::move(deed)] {
              deed();
              ready_.open();
              for (;;) ::pause();
          }) {
        ready_.pass();
    }
    // Attaches, runs `deed`, and keeps its result.
    template <typename Deed>
    Doomed(const std::string& name, Deed deed)
        : child_([this, name, deed] {
              Queue queue = Queue::attach(name);
              [[maybe_unused]] const auto kept = deed(queue);
              ready_.open();
              for (;;) ::pause();
          }) {
        ready_.pass();
    }
    void kill() const { child_.kill_unreaped(); }

private:
    Gate ready_;
    Child child_;
};

// Takes `count` messages and keeps them.
auto taking(std::size_t count) {
    return [count](Queue& queue) {
        std::vector<Delivery> held;
        for (std::size_t i = 0; i < count; ++i) {
            require(queue.take_many(held, 1, kLong).is_ok());
        }
        return held;
    };
}

class QueueDeathTest : public QueueTest {};

// Death inside a put, at the given crash point.
#ifdef PENSTOCK_CRASH_POINTS
void die_putting(const std::string& name, const std::string& point, std::size_t size) {
    Child child([&] {
        Queue queue = Queue::attach(name);
        os::arm_crash_point((point + ":1:kill").c_str());
        static_cast<void>(put(queue, 99, size));
    });
    ASSERT_EQ(child.wait(), killed_by(SIGKILL));
}

class DeathInPutTest : public QueueDeathTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(DeathInPutTest, LeavesNothing) {
    Queue queue = Queue::create(name_, small_queue(4));
    for (int turn = 0; turn < 6; ++turn) die_putting(name_, GetParam(), kInBlock);
    EXPECT_TRUE(is_empty(queue));
    EXPECT_EQ(queue.stats().held_bytes, 0U);
    EXPECT_EQ(queue.stats().deaths, 6U);
    for (std::uint64_t number = 0; number < 4; ++number) {
        EXPECT_TRUE(succeeds(put(queue, number, kInBlock))) << "a slot is lost";
    }
    for (std::uint64_t number = 0; number < 4; ++number) {
        EXPECT_TRUE(gets(queue, number, kInBlock));
    }
}

INSTANTIATE_TEST_SUITE_P(Points, DeathInPutTest,
                         ::testing::Values("queue.put.copied", "queue.claim.claimed",
                                           "queue.put.named", "queue.put.written"));

TEST_F(QueueDeathTest, MessagesPublishedBeforeADeathArrive) {
    Queue queue = Queue::create(name_, small_queue(4));
    die_putting(name_, "queue.publish.ready", kInBlock);
    EXPECT_TRUE(gets(queue, 99, kInBlock));
    EXPECT_EQ(queue.stats().held_bytes, 0U);
}

TEST_F(QueueDeathTest, ADeathInPutManyKeepsWhatWasPublished) {
    Queue queue = Queue::create(name_, small_queue(8));
    for (int turn = 0; turn < 3; ++turn) {
        Child child([&] {
            Queue own = Queue::attach(name_);
            std::vector<std::vector<std::byte>> messages;
            std::vector<std::span<const std::byte>> spans;
            for (std::uint64_t number = 0; number < 5; ++number) {
                messages.push_back(make_message(number, kInCell));
            }
            for (const auto& message : messages) spans.emplace_back(message);
            os::arm_crash_point("queue.put.written:3:kill");
            static_cast<void>(own.put_many(spans, Deadline::now()));
        });
        ASSERT_EQ(child.wait(), killed_by(SIGKILL));
        EXPECT_TRUE(gets(queue, 0));
        EXPECT_TRUE(gets(queue, 1));
        EXPECT_TRUE(is_empty(queue));
    }
    for (std::uint64_t number = 0; number < 8; ++number) {
        EXPECT_TRUE(succeeds(put(queue, number))) << "a slot is lost";
    }
    EXPECT_EQ(queue.discard(), 8U);
}

TEST_F(QueueDeathTest, MessagesAcknowledgedByTheDeadAreNotRedelivered) {
    Queue queue = Queue::create(name_, small_queue(4));
    ASSERT_TRUE(succeeds(put(queue, 0, kInBlock)));
    Child child([&] {
        Queue own = Queue::attach(name_);
        Result<Delivery> delivery = own.take(kLong);
        require(delivery.is_ok());
        os::arm_crash_point("queue.ack.done:1:kill");
        delivery->ack();
    });
    ASSERT_EQ(child.wait(), killed_by(SIGKILL));
    EXPECT_TRUE(is_empty(queue));
    EXPECT_EQ(queue.stats().held_bytes, 0U);
    EXPECT_EQ(queue.stats().in_flight, 0U);
}
#endif

TEST_F(QueueDeathTest, ASleepingConsumerGetsTheMessagesOfTheDead) {
    Queue queue = Queue::create(name_, small_queue());
    ASSERT_TRUE(succeeds(put(queue, 0, kInBlock)));
    ASSERT_TRUE(succeeds(put(queue, 1)));
    const Doomed doomed(name_, taking(2));
    Gate parked;
    Shared<std::chrono::steady_clock::time_point> noticed;
    Child consumer([&] {
        Queue own = Queue::attach(name_, QueueRole::Consumer);
        parked.open();
        Result<Delivery> first = own.take(kLong);
        *noticed = std::chrono::steady_clock::now();
        require(first.is_ok() && first->is_redelivered() && first->deliveries() == 2);
        require(static_cast<bool>(is_message(first->bytes(), 0, kInBlock)));
        first->ack();
        require(static_cast<bool>(gets(own, 1, kInCell, 2)));
    });
    parked.pass();
    consumer.await_sleep();
    doomed.kill();  // and waits until it is dead
    const auto death = std::chrono::steady_clock::now();
    ASSERT_EQ(consumer.wait(), 0);
    EXPECT_LT(*noticed - death, 1s);  // on a loaded machine; tests of the watcher look closer
    EXPECT_TRUE(is_empty(queue));
    EXPECT_EQ(queue.stats().held_bytes, 0U);
    EXPECT_EQ(queue.stats().deaths, 1U);
}

TEST_F(QueueDeathTest, ReturnedMessagesComeFirst) {
    Queue queue = Queue::create(name_, small_queue());
    for (std::uint64_t number = 0; number < 3; ++number) ASSERT_TRUE(succeeds(put(queue, number)));
    const Doomed doomed(name_, taking(2));
    ASSERT_TRUE(succeeds(put(queue, 3)));
    doomed.kill();
    Queue attached = Queue::attach(name_);  // available at once to the next participant
    EXPECT_TRUE(gets(attached, 0, kInCell, 2));
    EXPECT_TRUE(gets(attached, 1, kInCell, 2));
    EXPECT_TRUE(gets(attached, 2));
    EXPECT_TRUE(gets(attached, 3));
}

TEST_F(QueueDeathTest, ADeadProducersLoanIsFreed) {
    Queue queue = Queue::create(name_, small_queue());
    const Doomed doomed(name_, [](Queue& own) {
        Result<QueueLoan> loan = own.loan(kInBlock, kLong);
        require(loan.is_ok());
        return loan;
    });
    EXPECT_GE(queue.stats().held_bytes, kInBlock);
    doomed.kill();
    EXPECT_TRUE(is_empty(queue));
    EXPECT_EQ(queue.stats().held_bytes, 0U);
}

TEST_F(QueueDeathTest, ADeathUnblocksAProducer) {
    QueueOptions options = small_queue();
    options.capacity = 4 * 4096;
    Queue queue = Queue::create(name_, options);
    const Doomed doomed(name_, [](Queue& own) {
        Result<QueueLoan> loan = own.loan(4 * 4096, kLong);
        require(loan.is_ok());
        return loan;
    });
    EXPECT_TRUE(fails(put(queue, 0, kInBlock), ErrorCode::Timeout));
    Gate begun;
    Child producer([&] {
        Queue own = Queue::attach(name_);
        begun.open();
        require(put(own, 0, kInBlock, kLong).is_ok());
    });
    begun.pass();
    producer.await_sleep();
    doomed.kill();
    EXPECT_EQ(producer.wait(), 0);
    EXPECT_TRUE(gets(queue, 0, kInBlock));
}

TEST_F(QueueDeathTest, TheCreatorsDeathDoesNotEndTheStream) {
    const Doomed creator([this] {
        static Queue queue = Queue::create(name_, small_queue());
        require(put(queue, 0).is_ok());
    });
    Queue other = Queue::attach(name_);
    creator.kill();
    EXPECT_TRUE(gets(other, 0));
    EXPECT_TRUE(is_empty(other));
    EXPECT_FALSE(other.stats().closed);
    EXPECT_TRUE(succeeds(put(other, 1)));
    EXPECT_TRUE(gets(other, 1));
    other.end();  // the stream can still be ended
    EXPECT_TRUE(fails(other.take(kLong), ErrorCode::Closed));
}

TEST_F(QueueDeathTest, TheLastProducersDeathDoesNotEndTheStream) {
    Queue queue = Queue::create(name_, ends_with_last_producer());
    const Doomed producer(name_, [](Queue& own) { return put(own, 0).is_ok(); });
    producer.kill();
    EXPECT_TRUE(gets(queue, 0));
    EXPECT_TRUE(is_empty(queue));
    Queue later = Queue::attach(name_, QueueRole::Producer);
    ASSERT_TRUE(succeeds(put(later, 1)));
    EXPECT_TRUE(gets(queue, 1));
    later.close();
    EXPECT_TRUE(fails(queue.take(kLong), ErrorCode::Closed)) << "the dead one still counts";
}

TEST_F(QueueDeathTest, TheSlotOfTheDeadIsReused) {
    QueueOptions options = small_queue();
    options.participants = 2;
    Queue queue = Queue::create(name_, options);
    for (std::uint64_t number = 0; number < 5; ++number) {
        ASSERT_TRUE(succeeds(put(queue, number, kInBlock)));
        const Doomed doomed(name_, taking(1));
        EXPECT_TRUE(refuses(ErrorCode::Busy, [&] { Queue::attach(name_); }));
        doomed.kill();
        Queue next = Queue::attach(name_);
        EXPECT_TRUE(gets(next, number, kInBlock, 2));
    }
    EXPECT_EQ(queue.stats().deaths, 5U);
    EXPECT_EQ(queue.stats().held_bytes, 0U);
}

TEST_F(QueueDeathTest, AMessageThatKillsBecomesADeadLetter) {
    QueueOptions options = small_queue();
    options.max_deliveries = 3;
    Queue queue = Queue::create(name_, options);
    ASSERT_TRUE(succeeds(put(queue, 0, kInBlock)));
    for (int death = 0; death < 3; ++death) {
        const Doomed doomed(name_, taking(1));
        doomed.kill();
        EXPECT_EQ(queue.stats().dead_letters, 0U) << "before the death was found";
        if (death < 2) Queue::attach(name_);  // reaps it
    }
    EXPECT_TRUE(is_empty(queue));
    EXPECT_EQ(queue.stats().dead_letters, 1U);
    EXPECT_EQ(inspect_queue(name_).dead_letters, std::vector<std::uint64_t>{0});
    ASSERT_TRUE(succeeds(put(queue, 1)));
    EXPECT_TRUE(gets(queue, 1)) << "the others are delivered";
    EXPECT_EQ(queue.discard(), 1U);
}

TEST_F(QueueDeathTest, MessagesOfTheDeadComeAlsoAfterTheEnd) {
    Queue queue = Queue::create(name_, small_queue());
    ASSERT_TRUE(succeeds(put(queue, 0, kInBlock)));
    const Doomed doomed(name_, taking(1));
    queue.end();
    doomed.kill();
    EXPECT_TRUE(gets(queue, 0, kInBlock, 2));
    EXPECT_TRUE(fails(queue.take(kLong), ErrorCode::Closed));
    queue.discard();
}

// Only dead participants are left, and they had taken every message.
TEST_F(QueueDeathTest, MessagesOfTheDeadOutliveTheLastParticipant) {
    {
        const Doomed creator([this] {
            static Queue queue = Queue::create(name_, small_queue());
            require(put(queue, 0, kInBlock).is_ok());
            require(put(queue, 1).is_ok());
            static std::vector<Delivery> held;
            require(queue.take_many(held, 2, kLong).is_ok());
        });
        creator.kill();
    }
    Queue heir = Queue::attach(name_);
    EXPECT_TRUE(gets(heir, 0, kInBlock, 2));
    EXPECT_TRUE(gets(heir, 1, kInCell, 2));
    EXPECT_EQ(heir.stats().held_bytes, 0U);
}

}  // namespace
}  // namespace penstock

// Kept data of abandoned segments: collecting keeps it unless told otherwise, and create() under
// the same name keeps it or reports the loss.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "penstock/broadcast.hpp"
#include "penstock/queue.hpp"
#include "penstock/store.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock {
namespace {

using test::Child;
using test::Gate;
using test::refuses;

std::span<const std::byte> bytes_of(const std::string& text) {
    return std::as_bytes(std::span(text));
}

class KeptDataTest : public test::CleanTest {
protected:
    // A child puts `count` messages, takes `taken` of them without an acknowledgement, and is
    // killed.
    void leave_messages_of_the_dead(unsigned count, unsigned taken = 0, unsigned max_failures = 0) {
        const Gate done;
        Child child([&] {
            QueueOptions options;
            options.max_deliveries = max_failures;
            Queue queue = Queue::create(name_, options);
            for (unsigned i = 0; i < count; ++i) queue.put(bytes_of("message")).or_throw();
            std::vector<Delivery> held;
            for (unsigned i = 0; i < taken; ++i) held.push_back(queue.take().or_throw());
            done.open();
            for (;;) ::pause();
        });
        done.pass();
        child.kill_unreaped();
    }
    void leave_store(unsigned objects, bool persistent) const {
        StoreOptions options;
        options.capacity = 1U << 20U;
        options.persistent = persistent;
        Store store = Store::create(name_, options);
        for (unsigned i = 0; i < objects; ++i) {
            store.put("key " + std::to_string(i), bytes_of("object")).or_throw();
        }
    }
    // Reads and acknowledges all messages; returns their number.
    unsigned drain() const {
        Queue queue = Queue::attach(name_);
        unsigned count = 0;
        while (Result<Delivery> one = queue.take(Deadline::now())) {
            one->ack();
            ++count;
        }
        return count;
    }

    const std::string name_ = new_name();
};

TEST_F(KeptDataTest, MessagesOfTheDeadAreKept) {
    leave_messages_of_the_dead(5, 2);
    const SegmentSummary summary = inspect_segment(name_);
    EXPECT_TRUE(summary.is_abandoned());
    EXPECT_EQ(summary.kept.messages, 5U) << "in flight with a dead consumer, and queued";
    EXPECT_EQ(summary.kept.describe(), "5 messages");
    EXPECT_FALSE(remove_if_abandoned(name_));
    EXPECT_EQ(drain(), 5U) << "and the next to attach has them";
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [&] { inspect_segment(name_); }));
}

TEST_F(KeptDataTest, MessagesLeftByOrderlyCloseAreKept) {
    {
        Queue queue = Queue::create(name_);
        queue.put(bytes_of("one")).or_throw();
        EXPECT_TRUE(inspect_segment(name_).kept.is_nothing()) << "a living process has it";
    }
    EXPECT_EQ(inspect_segment(name_).kept.describe(), "1 message");
    EXPECT_FALSE(remove_if_abandoned(name_));
    EXPECT_TRUE(remove_if_abandoned(name_, OnData::Remove));
}

TEST_F(KeptDataTest, DataOfTheLivingIsNotRemovedByName) {
    Queue queue = Queue::create(name_);
    queue.put(bytes_of("one")).or_throw();
    EXPECT_FALSE(remove_if_abandoned(name_, OnData::Remove));
    queue.discard();
}

TEST_F(KeptDataTest, AnEmptyQueueOfTheDeadIsCollected) {
    leave_messages_of_the_dead(0);
    EXPECT_TRUE(inspect_segment(name_).kept.is_nothing());
    EXPECT_TRUE(remove_if_abandoned(name_));
}

TEST_F(KeptDataTest, APersistentStoreIsKept) {
    leave_store(3, true);
    const KeptData kept = inspect_segment(name_).kept;
    EXPECT_EQ(kept.objects, 3U);
    EXPECT_EQ(kept.describe(), "3 objects, " + std::to_string(kept.bytes) + " B, persistent");
    EXPECT_FALSE(remove_if_abandoned(name_));
    EXPECT_TRUE(Store::attach(name_).contains("key 2"));
    EXPECT_TRUE(remove_if_abandoned(name_, OnData::Remove));
}

TEST_F(KeptDataTest, AStoreOfTheDeadIsCollectedUnlessPersistent) {
    const Gate done;
    Child child([&] {
        StoreOptions options;
        options.capacity = 1U << 20U;
        Store store = Store::create(name_, options);
        store.put("key", bytes_of("object")).or_throw();
        done.open();
        for (;;) ::pause();
    });
    done.pass();
    child.kill_unreaped();
    EXPECT_TRUE(inspect_segment(name_).kept.is_nothing());
    EXPECT_TRUE(remove_if_abandoned(name_));
}

TEST_F(KeptDataTest, AQueueThatReplacesAnotherReportsTheLoss) {
    leave_messages_of_the_dead(5);
    Queue queue = Queue::create(name_);
    EXPECT_EQ(queue.replaced().messages, 5U);
    EXPECT_EQ(queue.queued(), 0U);
    EXPECT_TRUE(Queue::attach(name_).replaced().is_nothing());
}

TEST_F(KeptDataTest, APersistentStoreIsNotReplaced) {
    leave_store(3, true);
    EXPECT_TRUE(refuses(ErrorCode::AlreadyExists, [&] { Store::create(name_); },
                        {"keeps 3 objects", "attach to it", "penstock gc --data"}));
    EXPECT_TRUE(Store::attach(name_).contains("key 2"));
    EXPECT_TRUE(remove_if_abandoned(name_, OnData::Remove));
}

TEST_F(KeptDataTest, AnEmptyPersistentStoreIsReplaced) {
    leave_store(0, true);
    Store fresh = Store::create(name_);
    EXPECT_EQ(fresh.stats().objects, 0U);
}

TEST_F(KeptDataTest, DataOfAnotherKindIsNotReplaced) {
    leave_messages_of_the_dead(2);
    EXPECT_TRUE(refuses(ErrorCode::AlreadyExists, [&] { BroadcastWriter::create(name_); },
                        {"it is a queue that keeps 2 messages"}));
    EXPECT_TRUE(refuses(ErrorCode::AlreadyExists, [&] { Store::create(name_); },
                        {"it is a queue that keeps 2 messages"}));
    EXPECT_EQ(drain(), 2U);
}

TEST_F(KeptDataTest, ADeadBroadcastKeepsNothing) {
    const Gate done;
    Child child([&] {
        auto writer = BroadcastWriter::create(name_, {.readers = 1});
        writer.send(bytes_of("step")).or_throw();
        done.open();
        for (;;) ::pause();
    });
    done.pass();
    child.kill_unreaped();
    EXPECT_TRUE(inspect_segment(name_).kept.is_nothing());
    EXPECT_TRUE(remove_if_abandoned(name_));
}

TEST_F(KeptDataTest, AnonymousQueuesAndStoresAreRefused) {
    EXPECT_TRUE(refuses(ErrorCode::InvalidName, [] { Queue::create(""); }, {"it is empty"}));
    EXPECT_TRUE(refuses(ErrorCode::InvalidName, [] { Store::create(""); }, {"it is empty"}));
    auto writer = BroadcastWriter::create("", {.readers = 1});  // readers come by descriptor()
    EXPECT_EQ(writer.name(), "");
}

TEST(KeptDataTextTest, SizesAreWrittenForPeople) {
    KeptData kept;
    kept.persistent = true;
    const auto text = [&](std::uint64_t bytes) {
        kept.bytes = bytes;
        return kept.describe();
    };
    EXPECT_EQ(text(0), "0 objects, 0 B, persistent");
    EXPECT_EQ(text(std::uint64_t{64} << 20U), "0 objects, 64 MiB, persistent");
    EXPECT_EQ(text(1536), "0 objects, 1.5 KiB, persistent");
}

}  // namespace
}  // namespace penstock

// Attachments of this process: entering and leaving by several threads, also around forks; handles
// of a participant that has left change nothing.
#include "segment/life/attachment.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "os/fork.hpp"
#include "penstock/broadcast.hpp"
#include "penstock/queue.hpp"
#include "penstock/store.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock::detail {
namespace {

using namespace std::chrono_literals;
using test::await;
using test::Child;
using test::Gate;
using test::require;
using test::Shared;
using test::succeeds;

constexpr auto kLong = 20s;

// Whether a thread of this process sleeps: here it can only sleep for the mutex.
bool is_asleep(pid_t thread) {
    std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
    std::string text;
    std::getline(file, text);
    const auto at = text.rfind(')');
    return at != std::string::npos && text.compare(at, 3, ") S") == 0;
}

std::unique_ptr<Segment> make_segment() {
    SegmentPlan plan;
    plan.kind = Kind::Queue;
    plan.slots = 2;
    plan.control_bytes = 4096;
    plan.may_be_anonymous = true;
    return Segment::create("", plan, {}, [](Segment& fresh) {
        require(fresh.participants().try_claim(0));
        fresh.participants().announce(0);
    });
}

// A participant that counts the calls of its leave().
class Guest final : public Attachment {
public:
    explicit Guest(const Segment& segment) { enter(segment, 0); }
    Guest(const Guest&) = delete;
    Guest& operator=(const Guest&) = delete;
    ~Guest() { withdraw(); }

    void depart() noexcept override {
        if (while_departing) while_departing();
        ++departures;
    }
    using Attachment::withdraw;

    std::function<void()> while_departing;
    std::atomic<int> departures = 0;
};

class AttachmentTest : public test::CleanTest {};

TEST_F(AttachmentTest, EnteredAttachmentsLeaveAndNoOthers) {
    const auto segment = make_segment();
    Guest first(*segment);
    Guest second(*segment);
    Guest gone(*segment);
    gone.withdraw();
    depart_all();
    EXPECT_EQ(first.departures, 1);
    EXPECT_EQ(second.departures, 1);
    EXPECT_EQ(gone.departures, 0);
    segment->disown();  // as a departed participant does
    depart_all();
    EXPECT_EQ(first.departures, 1);
}

// The destructor must not finish while depart() works on its object.
TEST_F(AttachmentTest, AWithdrawalWaitsForARunningDeparture) {
    const auto segment = make_segment();
    Guest guest(*segment);
    Gate departing;
    std::atomic<pid_t> withdrawing = 0;
    std::atomic<bool> is_withdrawn = false;
    bool was_too_early = false;
    guest.while_departing = [&] {
        departing.open();
        await([&] { return is_withdrawn || (withdrawing != 0 && is_asleep(withdrawing)); });
        was_too_early = is_withdrawn;
    };
    std::thread leaver([] { depart_all(); });
    departing.pass();
    withdrawing = ::gettid();
    guest.withdraw();
    is_withdrawn = true;
    leaver.join();
    EXPECT_FALSE(was_too_early);
    EXPECT_EQ(guest.departures, 1);
}

TEST_F(AttachmentTest, ThreadsComeAndGoWhileOthersTellAllToLeave) {
    const auto segment = make_segment();
    constexpr int kRounds = 300;
    std::atomic<int> at_work = 3;
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
        threads.emplace_back([&] {
            for (int round = 0; round < kRounds; ++round) {
                Guest guest(*segment);
                guest.withdraw();
                const int departures = guest.departures;
                if (round % 10 == 0) std::this_thread::yield();
                EXPECT_EQ(guest.departures, departures);
            }
            --at_work;
        });
    }
    while (at_work > 0) depart_all();
    for (std::thread& thread : threads) thread.join();
}

// An inherited attachment belongs to the parent.
TEST_F(AttachmentTest, DepartureInAForkedChildSparesItsParents) {
    const auto segment = make_segment();
    const Shared<std::atomic<int>> departures;
    Guest guest(*segment);
    guest.while_departing = [&] { ++*departures; };
    Child child([&] {
        depart_all();
        const auto own = make_segment();
        Guest mine(*own);
        depart_all();
        require(mine.departures == 1);
        guest.withdraw();
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_EQ(*departures, 0);
    depart_all();
    EXPECT_EQ(*departures, 1);
}

// The fork waits for the departure: its child finds the table consistent and unlocked.
TEST_F(AttachmentTest, AForkDuringADepartureLeavesTheChildAUsableTable) {
    const auto segment = make_segment();
    Guest guest(*segment);
    Gate departing;
    const std::uint64_t before = os::fork_generation();
    std::atomic<pid_t> forking = 0;
    guest.while_departing = [&] {
        departing.open();
        await([&] { return forking != 0 && is_asleep(forking); });
    };
    Gate forked;
    std::thread leaver([&] {
        depart_all();
        forked.pass();  // an ended thread that is not joined is a leak in the child
    });
    departing.pass();
    forking = ::gettid();
    Child child([&] {
        require(os::fork_generation() != before);
        const auto own = make_segment();
        Guest mine(*own);
        depart_all();
        require(mine.departures == 1);
    });
    forked.open();
    leaver.join();
    EXPECT_EQ(child.wait(), 0);
}

// Departs twice while it holds a delivery and a loan; once another process has its slot, it uses
// the handle and releases both.
TEST_F(AttachmentTest, ADepartedQueueHandleChangesNothing) {
    Queue queue = Queue::create(new_name(), {.capacity = 1 << 20U, .slots = 8, .participants = 2});
    const std::vector<std::byte> bytes(100);
    ASSERT_TRUE(succeeds(queue.put(bytes)));
    Gate departed;
    Gate replaced;
    Child child([&] {
        Queue own = Queue::attach(queue.name());
        Result<Delivery> delivery = own.take(kLong);
        require(delivery.is_ok());
        Result<QueueLoan> loan = own.loan(1 << 18U);
        require(loan.is_ok());
        depart_all();
        depart_all();
        departed.open();
        replaced.pass();
        require(!own.put(bytes).is_ok());
        require(!own.take(Deadline::now()).is_ok());
        require(!loan->commit().is_ok());
        require(delivery->bytes().size() == bytes.size());
        delivery->ack();
        own.end();
    });
    departed.pass();
    EXPECT_EQ(queue.stats().held_bytes, 0U);
    Queue replacement = Queue::attach(queue.name());  // two slots in all
    Result<Delivery> again = replacement.take(kLong);
    ASSERT_TRUE(succeeds(again));
    EXPECT_EQ(again->deliveries(), 2U);
    const Result<QueueLoan> loan = replacement.loan(1 << 18U);
    ASSERT_TRUE(succeeds(loan));
    replaced.open();
    EXPECT_EQ(child.wait(), 0);
    const QueueStats stats = queue.stats();
    EXPECT_EQ(stats.in_flight, 1U);
    EXPECT_GT(stats.held_bytes, 0U);
    EXPECT_FALSE(stats.closed);
    EXPECT_EQ(stats.deaths, 0U);
    again->ack();
}

TEST_F(AttachmentTest, ADepartedStoreHandleChangesNothing) {
    Store store =
        Store::create(new_name(), {.capacity = 1 << 20U, .objects = 64, .participants = 2});
    const std::vector<std::byte> bytes(1000);
    ASSERT_TRUE(succeeds(store.put("held", bytes)));
    Gate departed;
    Gate replaced;
    Child child([&] {
        Store own = Store::attach(store.name());
        const Result<StoreObject> object = own.get("held");
        require(object.is_ok());
        Result<StoreReservation> staged = own.reserve("staged", 1000);
        require(staged.is_ok());
        Result<StoreReservation> dropped = own.reserve("dropped", 1000);
        require(dropped.is_ok());
        depart_all();
        depart_all();
        departed.open();
        replaced.pass();
        require(!own.put("new", bytes).is_ok());
        require(!own.get("held").is_ok());
        require(!staged->commit().is_ok());
        dropped->abort();
        require(object->bytes().size() == bytes.size());
    });
    departed.pass();
    EXPECT_EQ(store.stats().staged, 0U);
    EXPECT_EQ(store.stats().in_use, 0U);
    Store replacement = Store::attach(store.name());
    const Result<StoreObject> object = replacement.get("held");
    ASSERT_TRUE(succeeds(object));
    Result<StoreReservation> staged = replacement.reserve("staged", 1000);
    ASSERT_TRUE(succeeds(staged));
    Result<StoreReservation> other = replacement.reserve("dropped", 1000);
    ASSERT_TRUE(succeeds(other));
    replaced.open();
    EXPECT_EQ(child.wait(), 0);
    EXPECT_EQ(store.stats().in_use, 1U);
    EXPECT_EQ(store.stats().staged, 2U);
    EXPECT_TRUE(succeeds(staged->commit()));
    EXPECT_TRUE(succeeds(other->commit()));
}

TEST_F(AttachmentTest, ADepartedReaderChangesNothing) {
    BroadcastWriter writer =
        BroadcastWriter::create(new_name(), {.readers = 1, .capacity = 4096, .large = 1 << 20U});
    const std::vector<std::byte> small(100);
    const std::vector<std::byte> large(1 << 18U);
    Gate attached;
    Gate departed;
    Gate replaced;
    Child child([&] {
        BroadcastReader own = BroadcastReader::attach(writer.name(), 0);
        attached.open();
        Result<BroadcastMessage> kept = own.recv(kLong);
        require(kept.is_ok());
        kept->keep();
        const Result<BroadcastMessage> held = own.recv(kLong);
        require(held.is_ok());
        depart_all();
        depart_all();
        departed.open();
        replaced.pass();
        require(!own.recv(Deadline::now()).is_ok());
        require(kept->bytes().size() == large.size());
    });
    attached.pass();
    ASSERT_TRUE(succeeds(writer.send(large, kLong)));
    ASSERT_TRUE(succeeds(writer.send(small, kLong)));
    departed.pass();
    BroadcastReader replacement = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(writer.send(large, kLong)));
    Result<BroadcastMessage> kept = replacement.recv(kLong);
    ASSERT_TRUE(succeeds(kept));
    kept->keep();
    replaced.open();
    EXPECT_EQ(child.wait(), 0);
    ASSERT_EQ(writer.readers().size(), 1U);
    EXPECT_EQ(writer.readers().front().life, BroadcastReaderState::Life::Active);
    EXPECT_EQ(writer.stats().reader_deaths, 0U);
    EXPECT_GT(writer.stats().held_bytes, 0U);
    ASSERT_TRUE(succeeds(writer.send(small, kLong)));
    EXPECT_TRUE(succeeds(replacement.recv(kLong)));
}

// A writer departs with a loan open; its readers receive what was sent before.
TEST_F(AttachmentTest, ADepartedWriterHasClosedItsStream) {
    const std::string name = new_name();
    Gate created;
    Gate departed;
    Gate received;
    Child child([&] {
        BroadcastWriter own = BroadcastWriter::create(name, {.readers = 1});
        created.open();
        require(own.wait_ready(kLong).is_ok());
        require(own.send(std::vector<std::byte>(10)).is_ok());
        Result<BroadcastLoan> loan = own.loan(100);
        require(loan.is_ok());
        depart_all();
        depart_all();
        departed.open();
        received.pass();
        loan->bytes().front() = std::byte{1};
        require(!loan->commit().is_ok());
        require(!own.send(std::vector<std::byte>(10)).is_ok());
    });
    created.pass();
    BroadcastReader reader = BroadcastReader::attach(name, 0, kLong);
    departed.pass();
    EXPECT_TRUE(succeeds(reader.recv(kLong)));
    EXPECT_TRUE(test::fails(reader.recv(kLong), ErrorCode::Closed));
    received.open();
    EXPECT_EQ(child.wait(), 0);
}

// A thread is about to close its reader when its process departs; before the thread continues,
// another process has the rank.
TEST_F(AttachmentTest, ClosingAReaderDuringItsDepartureSparesItsReplacement) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), {.readers = 1});
    Gate departed;
    Gate replaced;
    Child child([&] {
        const auto segment = make_segment();
        Guest first(*segment);
        BroadcastReader own = BroadcastReader::attach(writer.name(), 0);
        Guest last(*segment);
        Gate goes;
        std::atomic<pid_t> closer = 0;
        std::thread closing([&] {
            goes.pass();
            closer = ::gettid();
            own.close();
        });
        first.while_departing = [&] {
            goes.open();
            await([&] { return closer != 0 && is_asleep(closer); });
        };
        last.while_departing = [&] {
            departed.open();
            replaced.pass();
        };
        depart_all();
        closing.join();
    });
    departed.pass();
    BroadcastReader replacement = BroadcastReader::attach(writer.name(), 0, kLong);
    replaced.open();
    EXPECT_EQ(child.wait(), 0);
    EXPECT_EQ(writer.readers().front().life, BroadcastReaderState::Life::Active);
}

}  // namespace
}  // namespace penstock::detail

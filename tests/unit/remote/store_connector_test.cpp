// Batches on a store: order of the results, the descriptor, and the effects of close(), of a death
// and of a lost store.
#include "remote/store_connector.hpp"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/unit/remote/tier_fixture.hpp"

namespace penstock::detail {
namespace {

using namespace test;
using namespace std::chrono_literals;
using enum ItemOutcome;

using Outcomes = std::vector<ItemOutcome>;
using Values = std::vector<std::vector<std::byte>>;

constexpr std::size_t kPending = 1024;

bool is_readable(int descriptor, std::chrono::milliseconds within = 0ms) {
    pollfd one{descriptor, POLLIN, 0};
    return ::poll(&one, 1, static_cast<int>(within.count())) == 1;
}

std::vector<BatchItem> keys_of(const std::vector<std::string>& keys) {
    std::vector<BatchItem> items;
    for (const std::string& key : keys) items.push_back({key, {}});
    return items;
}

// The finished batches, as soon as the descriptor is readable.
std::vector<BatchResult> next(StoreConnector& connector) {
    require(is_readable(connector.descriptor(), kLong));
    std::vector<BatchResult> results = connector.collect();
    require(!results.empty());
    return results;
}

// The result of the only batch under way.
BatchResult outcome(StoreConnector& connector, std::uint64_t id = 1) {
    std::vector<BatchResult> results = next(connector);
    require(results.size() == 1 && results.front().id == id);
    return std::move(results.front());
}

BatchResult run(StoreConnector& connector, BatchKind kind, std::vector<BatchItem> items) {
    connector.submit(1, kind, std::move(items)).or_throw();
    return outcome(connector);
}

BatchResult look(StoreConnector& connector, BatchKind kind, const std::vector<std::string>& keys) {
    return run(connector, kind, keys_of(keys));
}

std::vector<BatchItem> items_of(Values& values, std::uint64_t first = 0) {
    std::vector<BatchItem> items;
    for (std::vector<std::byte>& value : values) items.push_back({key_of(first++), value});
    return items;
}

Values values_of(const std::vector<std::size_t>& sizes) {
    Values values;
    for (const std::size_t size : sizes) values.push_back(make_value(values.size(), size));
    return values;
}

Values rooms_of(const std::vector<std::size_t>& sizes) {
    Values rooms;
    for (const std::size_t size : sizes) rooms.emplace_back(size);
    return rooms;
}

// A process that attaches to a store, runs `deed`, and sleeps.
class Peer {
public:
    template <typename Deed>
    Peer(const std::string& name, Deed&& deed)
        : child_([this, &name, &deed] {
              Store own = Store::attach(name);
              deed(own, ready_);
              ready_.open();
              for (;;) ::pause();
          }) {
        ready_.pass();
    }
    void kill() {
        child_.send(SIGKILL);
        require(child_.wait() == killed_by(SIGKILL));
    }

private:
    Gate ready_;
    Child child_;
};

class StoreConnectorTest : public StoreTest {
protected:
    void TearDown() override {
        store_.reset();
        StoreTest::TearDown();
    }

    std::shared_ptr<Store> store_ = std::make_shared<Store>(Store::create(name_, small_store()));
};

TEST_F(StoreConnectorTest, AValueThatWasSetIsGot) {
    StoreConnector connector(store_, 2, kPending);
    const std::vector<std::size_t> sizes{0, 1, 63, 64, 4096, 100'000};
    Values values = values_of(sizes);
    const BatchResult set = run(connector, BatchKind::Set, items_of(values));
    EXPECT_EQ(set.kind, BatchKind::Set);
    EXPECT_EQ(set.outcomes, Outcomes(sizes.size(), Done));
    EXPECT_EQ(set.error, "");
    for (std::size_t at = 0; at < sizes.size(); ++at) EXPECT_TRUE(has(*store_, at, sizes[at]));
    Values rooms = rooms_of(sizes);
    const BatchResult got = run(connector, BatchKind::Get, items_of(rooms));
    EXPECT_EQ(got.kind, BatchKind::Get);
    EXPECT_EQ(got.outcomes, Outcomes(sizes.size(), Done));
    EXPECT_EQ(rooms, values);
}

TEST_F(StoreConnectorTest, TheFirstValueOfAKeyStays) {
    StoreConnector connector(store_, 1, kPending);
    put(*store_, 0).or_throw();
    Values others{make_value(7, 2000)};
    const BatchResult set = run(connector, BatchKind::Set, items_of(others));
    EXPECT_EQ(set.outcomes, Outcomes{Unchanged});
    EXPECT_EQ(set.error, "");
    EXPECT_TRUE(has(*store_, 0));
}

TEST_F(StoreConnectorTest, OutcomesAreInTheOrderOfTheKeys) {
    StoreConnector connector(store_, 4, kPending);
    std::vector<std::string> keys;
    Outcomes due;
    for (unsigned at = 0; at < 300; ++at) {  // more than one round of several threads
        keys.push_back(key_of(at));
        const bool is_there = at % 3 == 0 || at % 7 == 0;
        if (is_there) put(*store_, at, 10).or_throw();
        due.push_back(is_there ? Done : Missed);
    }
    EXPECT_EQ(look(connector, BatchKind::Exists, keys).outcomes, due);
    EXPECT_EQ(look(connector, BatchKind::Lock, keys).outcomes, due);
    connector.unlock(keys);
    EXPECT_EQ(look(connector, BatchKind::Remove, keys).outcomes, due);
    EXPECT_EQ(look(connector, BatchKind::Remove, keys).outcomes, Outcomes(300, Missed));
    EXPECT_EQ(store_->stats().objects, 0U);
}

TEST_F(StoreConnectorTest, AMissIsNoFailureAndMemoryOfAnotherSizeIsLeftAlone) {
    StoreConnector connector(store_, 1, kPending);
    put(*store_, 0, 100).or_throw();
    put(*store_, 1, 100).or_throw();
    Values rooms = rooms_of({99, 101, 100});
    const BatchResult got = run(connector, BatchKind::Get, items_of(rooms));
    EXPECT_EQ(got.outcomes, (Outcomes{Failed, Failed, Missed}));
    EXPECT_TRUE(says(got.error, {"'key-0'", "has 100 bytes", "of 99 was given"})) << "the first";
    EXPECT_EQ(rooms, rooms_of({99, 101, 100}));
    EXPECT_EQ(run(connector, BatchKind::Get, {{key_of(2), rooms[2]}}).error, "");
}

TEST_F(StoreConnectorTest, ValuesThatDoNotFitFailAndTheOthersAreSet) {
    StoreConnector connector(store_, 1, kPending);
    Values values = values_of({100, std::size_t{2} << 20U, 100});
    const BatchResult set = run(connector, BatchKind::Set, items_of(values));
    EXPECT_EQ(set.outcomes, (Outcomes{Done, Failed, Done}));
    EXPECT_TRUE(says(set.error, {"'key-1': "}));
    EXPECT_TRUE(has(*store_, 2, 100));
    EXPECT_EQ(look(connector, BatchKind::Exists, {key_of(1)}).outcomes, Outcomes{Missed});
}

TEST_F(StoreConnectorTest, InvalidKeysAreRefusedWithAReason) {
    StoreConnector connector(store_, 1, kPending);
    const std::string longest(4096, 'k');
    const std::string longer(4097, 'k');
    const std::string zeros("a\0b", 3);
    std::vector<std::byte> value = make_value(1, 10);
    const BatchResult set =
        run(connector, BatchKind::Set,
            {{"", value}, {longer, value}, {longest, value}, {zeros, value}, {"a", value}});
    EXPECT_EQ(set.outcomes, (Outcomes{Failed, Failed, Done, Done, Done}));
    EXPECT_TRUE(says(set.error, {"''", "key"}));
    const std::vector<std::string> keys{"", longer, longest, zeros, "a"};
    const Outcomes due{Missed, Missed, Done, Done, Done};
    EXPECT_EQ(look(connector, BatchKind::Exists, keys).outcomes, due);
    EXPECT_EQ(look(connector, BatchKind::Lock, keys).outcomes, due);
    EXPECT_EQ(look(connector, BatchKind::Remove, keys).outcomes, due);
    connector.unlock(keys);
}

TEST_F(StoreConnectorTest, AnEmptyBatchIsFinishedAtOnce) {
    StoreConnector connector(store_, 1, kPending);
    for (const BatchKind kind :
         {BatchKind::Get, BatchKind::Set, BatchKind::Exists, BatchKind::Lock, BatchKind::Remove}) {
        const BatchResult result = run(connector, kind, {});
        EXPECT_TRUE(result.outcomes.empty());
        EXPECT_EQ(result.kind, kind);
    }
}

// ---- the descriptor

TEST_F(StoreConnectorTest, IsReadableExactlyWhileABatchCanBeCollected) {
    StoreConnector connector(store_, 2, kPending);
    EXPECT_FALSE(is_readable(connector.descriptor()));
    EXPECT_TRUE(connector.collect().empty());
    for (int round = 0; round < 100; ++round) {
        connector.submit(1, BatchKind::Exists, keys_of({"a"})).or_throw();
        connector.submit(2, BatchKind::Exists, keys_of({"b"})).or_throw();
        std::set<std::uint64_t> ids;
        while (ids.size() < 2) {
            for (const BatchResult& result : next(connector)) ids.insert(result.id);
        }
        EXPECT_EQ(ids, (std::set<std::uint64_t>{1, 2}));
        ASSERT_FALSE(is_readable(connector.descriptor()));
        EXPECT_TRUE(connector.collect().empty());
    }
}

// The collector waits for the descriptor alone: a lost wake-up would make it wait for ever.
TEST_F(StoreConnectorTest, NoOutcomeIsLostBetweenThreads) {
    constexpr unsigned kThreads = 3;
    constexpr std::uint64_t kBatches = 400;
    StoreConnector connector(store_, 3, 16);
    std::vector<std::thread> threads;
    for (unsigned thread = 0; thread < kThreads; ++thread) {
        threads.emplace_back([&, thread] {
            std::vector<std::byte> value = make_value(1, 100);
            for (std::uint64_t at = 0; at < kBatches; ++at) {
                const std::uint64_t id = thread * kBatches + at;
                const std::string key = key_of(at % 20);
                switch (at % 4) {
                    case 0:
                        connector.submit(id, BatchKind::Set, {{key, value}}).or_throw();
                        break;
                    case 1:
                        connector.submit(id, BatchKind::Lock, keys_of({key, "none"})).or_throw();
                        break;
                    case 2:
                        connector.submit(id, BatchKind::Remove, keys_of({key})).or_throw();
                        connector.unlock(std::array{key});
                        break;
                    default:
                        connector.submit(id, BatchKind::Exists, keys_of({key})).or_throw();
                        connector.unlock(std::array{key});
                }
            }
        });
    }
    std::set<std::uint64_t> ids;
    while (ids.size() < kThreads * kBatches) {
        for (const BatchResult& result : next(connector)) {
            EXPECT_TRUE(ids.insert(result.id).second) << result.id << " came twice";
            EXPECT_EQ(result.error, "");
        }
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_FALSE(is_readable(connector.descriptor()));
    connector.close();
    EXPECT_EQ(store_->stats().in_use, 0U);
}

// The only thread waits for a key that is being written; copies and look-ups are submitted
// meanwhile.
TEST_F(StoreConnectorTest, LookUpsGoBeforeQueuedCopies) {
    StoreConnector connector(store_, 1, kPending);
    StoreReservation room = store_->reserve("staged", 10).or_throw();
    std::vector<std::byte> value = make_value(1, 10);
    connector.submit(1, BatchKind::Set, {{"staged", value}}).or_throw();
    connector.submit(2, BatchKind::Set, {{"a", value}}).or_throw();
    connector.submit(3, BatchKind::Set, {{"b", value}}).or_throw();
    connector.submit(4, BatchKind::Exists, keys_of({"a"})).or_throw();
    connector.submit(5, BatchKind::Remove, keys_of({"b"})).or_throw();
    room.commit().or_throw();
    std::vector<std::uint64_t> order;
    while (order.size() < 5) {
        for (const BatchResult& result : next(connector)) {
            order.push_back(result.id);
            if (result.id >= 4) {
                EXPECT_EQ(result.outcomes, Outcomes{Missed});
            }
        }
    }
    const auto place = [&](std::uint64_t id) { return std::ranges::find(order, id); };
    EXPECT_LT(place(1), place(2));
    EXPECT_LT(place(2), place(3)) << "copies in the order in which they came";
    EXPECT_LT(place(4), place(2));
    EXPECT_LT(place(4), place(5)) << "and looks";
    EXPECT_LT(place(5), place(2));
}

// ---- locks

TEST_F(StoreConnectorTest, LocksOfAKeyCount) {
    StoreConnector connector(store_, 1, kPending);
    put(*store_, 0).or_throw();
    EXPECT_EQ(look(connector, BatchKind::Lock, {key_of(0), key_of(0), "none"}).outcomes,
              (Outcomes{Done, Done, Missed}));
    connector.unlock(std::array<std::string, 2>{key_of(0), "none"});
    EXPECT_EQ(store_->stats().in_use, 1U);
    connector.unlock(std::array{key_of(0)});
    EXPECT_EQ(store_->stats().in_use, 0U);
    connector.unlock(std::array{key_of(0), key_of(0)});
    EXPECT_TRUE(has(*store_, 0));
}

TEST_F(StoreConnectorTest, ALockedKeyIsReadableAfterItsRemovalAndNotEvicted) {
    StoreConnector connector(store_, 1, kPending);
    put(*store_, 0, 1000).or_throw();
    put(*store_, 1, 1000).or_throw();
    look(connector, BatchKind::Lock, {key_of(0), key_of(1)});
    store_->remove(key_of(0)).or_throw();
    for (unsigned number = 2; number < 20; ++number) put(*store_, number, 500'000).or_throw();
    Values rooms = rooms_of({1000, 1000});
    EXPECT_EQ(run(connector, BatchKind::Get, items_of(rooms)).outcomes, (Outcomes{Done, Done}));
    EXPECT_TRUE(is_value(rooms[0], 0, 1000));
    EXPECT_TRUE(is_value(rooms[1], 1, 1000));
    connector.unlock(std::array{key_of(0), key_of(1)});
    EXPECT_EQ(run(connector, BatchKind::Get, items_of(rooms)).outcomes.front(), Missed);
}

TEST_F(StoreConnectorTest, DeathReleasesTheLocksOfAConnector) {
    put(*store_, 0).or_throw();
    Peer peer(name_, [](Store& own, const Gate& ready) {
        StoreConnector connector(std::make_shared<Store>(std::move(own)), 1, kPending);
        look(connector, BatchKind::Lock, {key_of(0)});
        ready.open();
        for (;;) ::pause();
    });
    EXPECT_EQ(store_->stats().in_use, 1U);
    peer.kill();
    store_->reap_dead();
    EXPECT_EQ(store_->stats().in_use, 0U);
    EXPECT_TRUE(has(*store_, 0));
}

// ---- beside other writers

TEST_F(StoreConnectorTest, AKeyThatAnotherWritesIsWaitedFor) {
    StoreConnector connector(store_, 1, kPending);
    Store other = Store::attach(name_);
    StoreReservation room = other.reserve(key_of(0), 1000).or_throw();
    Values values = values_of({1000});
    connector.submit(1, BatchKind::Set, items_of(values)).or_throw();
    trust::fill_numbered(room.bytes(), 0);
    room.commit().or_throw();
    EXPECT_EQ(outcome(connector).outcomes, Outcomes{Unchanged});
    EXPECT_TRUE(has(*store_, 0));
}

TEST_F(StoreConnectorTest, AKeyWhoseWriterAbortsIsSet) {
    StoreConnector connector(store_, 1, kPending);
    Store other = Store::attach(name_);
    StoreReservation room = other.reserve(key_of(0), 10).or_throw();
    Values values = values_of({1000});
    connector.submit(1, BatchKind::Set, items_of(values)).or_throw();
    room.abort();
    EXPECT_EQ(outcome(connector).outcomes, Outcomes{Done});
    EXPECT_TRUE(has(*store_, 0));
}

TEST_F(StoreConnectorTest, AKeyWhoseWriterIsKilledIsSet) {
    Peer writer(name_, [](Store& own, const Gate& ready) {
        const StoreReservation room = own.reserve(key_of(0), 10).or_throw();
        ready.open();
        for (;;) ::pause();
    });
    StoreConnector connector(store_, 1, kPending);
    Values values = values_of({1000});
    connector.submit(1, BatchKind::Set, items_of(values)).or_throw();
    writer.kill();
    EXPECT_EQ(outcome(connector).outcomes, Outcomes{Done});
    EXPECT_TRUE(has(*store_, 0));
}

// ---- room

// A connector whose only worker is blocked and whose queue is full.
class FullConnectorTest : public StoreConnectorTest {
protected:
    FullConnectorTest() {
        connector_.submit(1, BatchKind::Set, {{"staged", value_}, {"a", value_}}).or_throw();
    }
    void TearDown() override {
        connector_.close();
        room_.abort();
        StoreConnectorTest::TearDown();
    }

    StoreReservation room_ = store_->reserve("staged", 10).or_throw();
    std::vector<std::byte> value_ = make_value(1, 10);
    StoreConnector connector_{store_, 1, 2};
};

TEST_F(FullConnectorTest, SubmittingWaitsAndGoesOnWhenThereIsRoom) {
    std::atomic<bool> is_taken{false};
    std::thread submitter([&] {
        connector_.submit(2, BatchKind::Set, {{"b", value_}, {"c", value_}}).or_throw();
        is_taken = true;
    });
    EXPECT_TRUE(fails(connector_.submit(3, BatchKind::Exists, keys_of({"a"}), 10ms),
                      ErrorCode::Timeout, {"no room"}));
    EXPECT_FALSE(is_taken);
    room_.abort();
    submitter.join();
    EXPECT_TRUE(is_taken);
    std::set<std::uint64_t> ids;
    while (ids.size() < 2) {
        for (const BatchResult& result : next(connector_)) ids.insert(result.id);
    }
    EXPECT_EQ(ids, (std::set<std::uint64_t>{1, 2})) << "the abandoned batch is not done";
}

TEST_F(FullConnectorTest, AnInterruptionEndsTheWaitForRoom) {
    Cancel cancel;
    cancel.cancel();
    Wait cancelled;
    cancelled.cancel = &cancel;
    EXPECT_TRUE(fails(connector_.submit(2, BatchKind::Exists, keys_of({"a"}), cancelled),
                      ErrorCode::Cancelled));
    // Called without the connector's mutex: a caller's interpreter may be waiting for it.
    Wait interrupted;
    interrupted.context = &connector_;
    interrupted.interrupted = [](void* context) {
        return static_cast<StoreConnector*>(context)->collect().empty();
    };
    EXPECT_TRUE(fails(connector_.submit(2, BatchKind::Exists, keys_of({"a"}), interrupted),
                      ErrorCode::Cancelled));
    EXPECT_TRUE(fails(connector_.submit(2, BatchKind::Exists, keys_of({"a"}), Deadline::now()),
                      ErrorCode::Timeout));
}

TEST_F(FullConnectorTest, ClosingEndsTheWaitForRoom) {
    std::thread submitter([&] {
        const Status status = connector_.submit(2, BatchKind::Exists, keys_of({"a"}));
        EXPECT_EQ(status.code(), ErrorCode::Closed);
        EXPECT_EQ(status.closed_by(), ClosedBy::Self);
    });
    connector_.close();
    submitter.join();
}

TEST_F(StoreConnectorTest, AnOversizedBatchIsTakenWhenNothingIsPending) {
    StoreConnector connector(store_, 1, 2);
    EXPECT_EQ(look(connector, BatchKind::Exists, {"a", "b", "c", "d"}).outcomes,
              Outcomes(4, Missed));
    StoreConnector without_room(store_, 1, 0);
    EXPECT_EQ(look(without_room, BatchKind::Exists, {"a"}).outcomes, Outcomes{Missed});
    EXPECT_EQ(look(without_room, BatchKind::Exists, {"a"}).outcomes, Outcomes{Missed});
}

// ---- closing

TEST_F(StoreConnectorTest, AClosedConnectorStaysReadableAndRefusesBatches) {
    StoreConnector connector(store_, 2, kPending);
    EXPECT_FALSE(connector.is_closed());
    connector.close();
    EXPECT_TRUE(connector.is_closed());
    EXPECT_TRUE(is_readable(connector.descriptor())) << "there will be no outcome";
    EXPECT_TRUE(connector.collect().empty());
    EXPECT_TRUE(is_readable(connector.descriptor())) << "for every event loop that waits for it";
    EXPECT_TRUE(fails(connector.submit(1, BatchKind::Exists, keys_of({"a"})), ErrorCode::Closed));
    EXPECT_TRUE(fails(connector.submit(1, BatchKind::Exists, {}), ErrorCode::Closed));
    connector.unlock(std::array<std::string, 1>{"a"});
    connector.close();
}

TEST_F(StoreConnectorTest, BatchesFinishedBeforeCloseAreCollectedAfterIt) {
    StoreConnector connector(store_, 1, kPending);
    connector.submit(1, BatchKind::Exists, keys_of({"a"})).or_throw();
    require(is_readable(connector.descriptor(), kLong));
    connector.close();
    EXPECT_EQ(connector.collect().size(), 1U);
}

// After close() returned, no thread touches a batch's memory: the test frees it at once.
TEST_F(StoreConnectorTest, ClosingDropsQueuedBatchesAndLeavesTheirMemory) {
    for (int round = 0; round < 20; ++round) {
        auto connector = std::make_unique<StoreConnector>(store_, 3, kPending);
        {
            auto values = std::make_unique<Values>(values_of(std::vector<std::size_t>(40, 20'000)));
            auto rooms = std::make_unique<Values>(rooms_of(std::vector<std::size_t>(40, 20'000)));
            connector->submit(1, BatchKind::Set, items_of(*values)).or_throw();
            connector->submit(2, BatchKind::Get, items_of(*rooms)).or_throw();
            connector->submit(3, BatchKind::Lock, keys_of({key_of(0), key_of(1)})).or_throw();
            if (round % 2 == 0) connector->close();
            if (round % 2 == 1) connector.reset();
        }
        EXPECT_EQ(store_->stats().in_use, 0U);
        EXPECT_EQ(store_->stats().staged, 0U);
        if (connector != nullptr) connector->collect();
    }
}

TEST_F(StoreConnectorTest, ClosingEndsAWaitForAnotherWriter) {
    const StoreReservation room = store_->reserve("staged", 10).or_throw();
    std::vector<std::byte> value = make_value(1, 10);
    StoreConnector connector(store_, 1, kPending);
    connector.submit(1, BatchKind::Set, {{"staged", value}}).or_throw();
    EXPECT_LT(time_of([&] { connector.close(); }), 4s) << "far less than a writer is waited for";
}

TEST_F(StoreConnectorTest, SeveralThreadsMayCloseIt) {
    StoreConnector connector(store_, 3, kPending);
    Values values = values_of(std::vector<std::size_t>(30, 10'000));
    connector.submit(1, BatchKind::Set, items_of(values)).or_throw();
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 3; ++thread) {
        threads.emplace_back([&] {
            connector.close();
            EXPECT_TRUE(connector.is_closed());
        });
    }
    for (std::thread& thread : threads) thread.join();
}

TEST_F(StoreConnectorTest, AClosedConnectorHasLeftItsStore) {
    StoreConnector connector(std::move(store_), 2, kPending);
    EXPECT_TRUE(exists(name_));
    connector.close();
    EXPECT_FALSE(exists(name_)) << "the connector's was the last handle";
}

// ---- a store that is closed or lost

// Every call fails, and none reports a miss: the store's contents are unknown.
void expect_failures(StoreConnector& connector, std::string_view why) {
    std::vector<std::byte> memory(1000);
    for (const BatchKind kind :
         {BatchKind::Get, BatchKind::Set, BatchKind::Exists, BatchKind::Lock, BatchKind::Remove}) {
        connector.submit(1, kind, {{key_of(0), memory}, {"none", memory}}).or_throw();
        std::vector<BatchResult> results;
        await([&] { return !(results = connector.collect()).empty(); });
        const BatchResult& result = results.front();
        const std::string what =
            "kind " + std::to_string(static_cast<int>(kind)) + ": " + result.error;
        if (result.outcomes != Outcomes(2, Failed)) throw std::runtime_error(what);
        if (result.error.find(why) == std::string::npos) throw std::runtime_error(what);
    }
}

TEST_F(StoreConnectorTest, AClosedStoreFailsWithAReason) {
    StoreConnector connector(store_, 1, kPending);
    put(*store_, 0).or_throw();
    store_->close();
    expect_failures(connector, "this store handle is closed");
}

TEST_F(StoreConnectorTest, ALockedKeyIsReadableAfterTheStoreWasClosed) {
    StoreConnector connector(store_, 1, kPending);
    put(*store_, 0).or_throw();
    look(connector, BatchKind::Lock, {key_of(0)});
    store_->close();
    Values rooms = rooms_of({1000});
    EXPECT_EQ(run(connector, BatchKind::Get, items_of(rooms)).outcomes, Outcomes{Done});
    EXPECT_TRUE(is_value(rooms[0], 0, 1000));
}

// A program that closes every descriptor, the connector's own among them.
TEST_F(StoreConnectorTest, ALostStoreFailsWithAReason) {
    put(*store_, 0).or_throw();
    Child child([&] {
        const auto own = std::make_shared<Store>(Store::attach(name_));
        StoreConnector connector(own, 1, kPending);
        ::close_range(3, ~0U, 0);
        own->reap_dead();  // notices the loss
        expect_failures(connector, "was closed by this process");
    });
    EXPECT_EQ(child.wait(), 0);
}

// ---- with a second tier

class TieredConnectorTest : public TierTest {};

TEST_F(TieredConnectorTest, KeysOfTheSecondTierAloneAreFoundAndGot) {
    Store other = make_machine();
    put(other, 0).or_throw();
    put(other, 1).or_throw();
    StoreConnector connector(std::make_shared<Store>(make_machine()), 2, kPending);
    const std::vector<std::string> keys{key_of(0), "none"};
    EXPECT_EQ(look(connector, BatchKind::Exists, keys).outcomes, (Outcomes{Done, Missed}));
    EXPECT_EQ(look(connector, BatchKind::Lock, keys).outcomes, (Outcomes{Done, Missed}));
    Values rooms = rooms_of({1000, 1000, 1000});
    EXPECT_EQ(run(connector, BatchKind::Get, items_of(rooms)).outcomes,
              (Outcomes{Done, Done, Missed}));
    EXPECT_TRUE(is_value(rooms[0], 0, 1000));
    EXPECT_EQ(look(connector, BatchKind::Remove, keys).outcomes, (Outcomes{Done, Missed}));
    EXPECT_FALSE(server_->say({"EXISTS", head_of(0)}).integer != 0);
}

TEST_F(TieredConnectorTest, AnOutageOfTheSecondTierIsNoFailureOfASet) {
    SecondTierOptions short_of_time = options();
    short_of_time.connect_timeout = 200ms;
    short_of_time.request_timeout = 200ms;
    StoreConnector connector(std::make_shared<Store>(make_machine(short_of_time)), 1, kPending);
    server_->kill();
    Values values = values_of({1000});
    EXPECT_EQ(run(connector, BatchKind::Set, items_of(values)).outcomes, Outcomes{Done});
    Values rooms = rooms_of({1000});
    EXPECT_EQ(run(connector, BatchKind::Get, items_of(rooms)).outcomes, Outcomes{Done});
    EXPECT_EQ(rooms, values);
    EXPECT_EQ(look(connector, BatchKind::Exists, {key_of(0), "none"}).outcomes,
              (Outcomes{Done, Missed}));
}

}  // namespace
}  // namespace penstock::detail

// A Store without deaths: put objects are found whole, staged ones are invisible, pinned ones stay,
// and every result says what happened.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "os/crash_point.hpp"
#include "store/control.hpp"
#include "tests/unit/store/store_fixture.hpp"

namespace penstock {
namespace {

using namespace test;
using namespace std::chrono_literals;

TEST_F(StoreTest, APutObjectIsFoundByEveryParticipant) {
    Store store = Store::create(name_, small_store());
    Store other = Store::attach(name_);
    for (const std::size_t size : {0U, 1U, 63U, 64U, 65U, 4096U, 100'000U}) {
        EXPECT_TRUE(succeeds(put(store, size, size)));
        EXPECT_TRUE(has(other, size, size));
        EXPECT_TRUE(other.contains(key_of(size)));
    }
    EXPECT_TRUE(fails(other.get("nothing"), ErrorCode::NotFound));
    EXPECT_TRUE(fails(put(other, 64, 64), ErrorCode::AlreadyExists));
    const StoreStats stats = store.stats();
    EXPECT_TRUE(adds_up(stats));
    EXPECT_EQ(stats.objects, 7U);
    EXPECT_EQ(stats.hits, 7U);
    EXPECT_EQ(stats.misses, 1U);
    EXPECT_EQ(store.clear(), 7U);
    EXPECT_TRUE(test::is_empty(store));
}

TEST_F(StoreTest, ALookReportsWhetherAnObjectIsRetained) {
    Store store = Store::create(name_, small_store());
    ASSERT_TRUE(succeeds(store.put("kv", std::span<const std::byte>())));
    EXPECT_FALSE(store.look("kv").is_retained);
    ASSERT_TRUE(succeeds(store.retain("kv")));
    EXPECT_TRUE(store.look("kv").is_retained);
    ASSERT_TRUE(succeeds(store.release("kv")));
    EXPECT_FALSE(store.look("kv").is_retained);
}

TEST_F(StoreTest, AStagedObjectIsInvisible) {
    Store store = Store::create(name_, small_store());
    Store other = Store::attach(name_);
    Result<StoreReservation> staged = store.reserve("kv", 100);
    ASSERT_TRUE(succeeds(staged));
    EXPECT_FALSE(other.contains("kv"));
    EXPECT_EQ(other.look("kv").state, StoreLook::State::Staged);
    EXPECT_EQ(other.look("kv").staged_by, 0);
    const auto second = other.reserve("kv", 100);
    EXPECT_TRUE(fails(second, ErrorCode::Busy, {"'kv'", "participant 0"}));
    EXPECT_EQ(second.status().peer(), 0);
    std::memset(staged->bytes().data(), 7, 100);
    EXPECT_TRUE(succeeds(staged->commit()));
    EXPECT_TRUE(fails(staged->commit(), ErrorCode::Expired));
    ASSERT_TRUE(succeeds(other.get("kv")));
    EXPECT_EQ(other.get("kv")->bytes()[99], std::byte{7});
    EXPECT_TRUE(fails(other.reserve("kv", 100), ErrorCode::AlreadyExists));
}

TEST_F(StoreTest, AnAbortedReservationLeavesNothing) {
    Store store = Store::create(name_, small_store());
    {
        Result<StoreReservation> dropped = store.reserve("kv", 100);
        ASSERT_TRUE(succeeds(dropped));
    }
    EXPECT_EQ(store.look("kv").state, StoreLook::State::Miss);
    Result<StoreReservation> aborted = store.reserve("kv", 100);
    aborted->abort();
    EXPECT_TRUE(fails(aborted->commit(), ErrorCode::Expired));
    EXPECT_TRUE(aborted->bytes().empty());
    EXPECT_TRUE(test::is_empty(store));
    EXPECT_EQ(store.stats().aborted, 2U);
    EXPECT_TRUE(succeeds(store.put("kv", make_value(1, 10))));
}

TEST_F(StoreTest, MetadataAndFormatComeWithTheObject) {
    Store store = Store::create(name_, small_store());
    const auto meta = make_value(5, 333);
    ReserveOptions options;
    options.meta = meta;
    options.format = Format::Typed;
    EXPECT_TRUE(succeeds(put(store, 1, 1000, options)));
    const Result<StoreObject> object = store.get(key_of(1));
    ASSERT_TRUE(succeeds(object));
    EXPECT_TRUE(is_value(object->meta(), 5, 333));
    EXPECT_TRUE(is_value(object->bytes(), 1, 1000));
    EXPECT_EQ(object->format(), Format::Typed);
}

TEST_F(StoreTest, BytesAreAligned) {
    StoreOptions options = small_store();
    options.capacity = 16 << 20U;
    Store store = Store::create(name_, options);
    for (std::uint64_t alignment = 64; alignment <= (2U << 20U); alignment *= 2) {
        ReserveOptions asked;
        asked.alignment = alignment;
        const auto meta = make_value(0, 100);
        asked.meta = meta;
        ASSERT_TRUE(succeeds(put(store, alignment, 1000, asked)));
        const Result<StoreObject> object = store.get(key_of(alignment));
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(object->bytes().data()) % alignment, 0U);
        EXPECT_TRUE(is_value(object->bytes(), alignment, 1000));
    }
    EXPECT_TRUE(adds_up(store.stats()));
}

TEST_F(StoreTest, AReservationMayShrinkAndGrow) {
    Store store = Store::create(name_, small_store());
    Result<StoreReservation> staged = store.reserve("kv", 100'000);
    ASSERT_TRUE(succeeds(staged->resize(1000)));
    EXPECT_EQ(staged->bytes().size(), 1000U);
    EXPECT_LT(store.stats().used_bytes, 2000U);
    ASSERT_TRUE(succeeds(staged->resize(200'000)));
    EXPECT_EQ(staged->bytes().size(), 200'000U);
    EXPECT_TRUE(fails(staged->resize(std::size_t{2} << 20U), ErrorCode::TooLarge));
    Result<StoreReservation> next = store.reserve("behind it", 64);
    EXPECT_TRUE(fails(staged->resize(300'000), ErrorCode::NoSpace));
    trust::fill_numbered(staged->bytes(), 9);
    EXPECT_TRUE(succeeds(staged->commit()));
    EXPECT_TRUE(is_value(store.get("kv")->bytes(), 9, 200'000));
    EXPECT_TRUE(adds_up(store.stats()));
}

TEST_F(StoreTest, APinnedObjectOutlivesItsRemoval) {
    Store store = Store::create(name_, small_store());
    Store other = Store::attach(name_);
    ASSERT_TRUE(succeeds(put(store, 1)));
    Result<StoreObject> held = other.get(key_of(1));
    ASSERT_TRUE(succeeds(held));
    EXPECT_TRUE(succeeds(store.remove(key_of(1))));
    EXPECT_TRUE(fails(store.remove(key_of(1)), ErrorCode::NotFound));
    EXPECT_FALSE(other.contains(key_of(1)));
    EXPECT_TRUE(succeeds(store.put(key_of(1), make_value(2, 500))));
    EXPECT_TRUE(is_value(held->bytes(), 1, 1000)) << "the old one is the reader's";
    EXPECT_TRUE(is_value(other.get(key_of(1))->bytes(), 2, 500));
    EXPECT_EQ(store.stats().doomed, 1U);
    held->release();
    held->release();
    EXPECT_EQ(store.stats().doomed, 0U);
    EXPECT_TRUE(adds_up(store.stats()));
}

TEST_F(StoreTest, AStaleReferenceNamesNoOtherObject) {
    Store store = Store::create(name_, small_store());
    ASSERT_TRUE(succeeds(put(store, 1)));
    const StoreRef ref = store.get(key_of(1))->ref();
    EXPECT_TRUE(is_value(store.get(ref)->bytes(), 1, 1000));
    store.clear();
    EXPECT_TRUE(fails(store.get(ref), ErrorCode::NotFound));
    // The same key in the same entry, but another object.
    ASSERT_TRUE(succeeds(put(store, 1)));
    EXPECT_EQ(store.get(key_of(1))->ref().entry, ref.entry);
    EXPECT_TRUE(fails(store.get(ref), ErrorCode::NotFound));
    EXPECT_TRUE(fails(store.get(StoreRef{1U << 30U, 1}), ErrorCode::NotFound));
}

TEST_F(StoreTest, ClearRefusesTheCommitOfWhatIsStaged) {
    Store store = Store::create(name_, small_store());
    Store other = Store::attach(name_);
    Result<StoreReservation> staged = store.reserve("kv", 100);
    EXPECT_EQ(other.clear(), 1U);
    std::memset(staged->bytes().data(), 1, 100);  // the memory is still the writer's
    EXPECT_TRUE(succeeds(other.put("kv", make_value(3, 100)))) << "the key is free";
    EXPECT_TRUE(fails(staged->commit(), ErrorCode::Expired));
    EXPECT_TRUE(is_value(store.get("kv")->bytes(), 3, 100));
    EXPECT_TRUE(adds_up(store.stats()));
    EXPECT_EQ(store.stats().staged, 0U);
}

TEST_F(StoreTest, ADeadlineRefusesTheCommitAndFreesTheKey) {
    Store store = Store::create(name_, small_store());
    Store other = Store::attach(name_);
    ReserveOptions options;
    options.expires_after = 1ns;
    Result<StoreReservation> staged = store.reserve("kv", 100, options);
    ASSERT_TRUE(succeeds(staged));
    EXPECT_TRUE(succeeds(other.put("kv", make_value(3, 100))));
    std::memset(staged->bytes().data(), 1, 100);
    EXPECT_TRUE(fails(staged->commit(), ErrorCode::Expired));
    EXPECT_TRUE(is_value(store.get("kv")->bytes(), 3, 100));
    Result<StoreReservation> late = store.reserve("late", 100, options);
    EXPECT_TRUE(fails(late->commit(), ErrorCode::Expired, {"deadline"}));
    EXPECT_FALSE(store.contains("late"));
    options.expires_after = std::chrono::nanoseconds::max();
    EXPECT_TRUE(succeeds(store.put("ever", make_value(1, 100), options)));
}

// ---- room

TEST_F(StoreTest, EvictionMakesRoomOldestFirst) {
    for (const Eviction eviction : {Eviction::Sieve, Eviction::Fifo, Eviction::Lru}) {
        Store store = Store::create(new_name(), small_store(eviction));
        for (std::uint64_t number = 0; number < 500; ++number) {
            ASSERT_TRUE(succeeds(put(store, number, 10'000))) << to_string(eviction);
            ASSERT_TRUE(has(store, number, 10'000));
        }
        const StoreStats stats = store.stats();
        EXPECT_TRUE(adds_up(stats));
        EXPECT_EQ(stats.evicted + stats.objects, 500U);
        EXPECT_GT(stats.used_bytes, stats.capacity * 9 / 10);
        store.clear();
        EXPECT_TRUE(test::is_empty(store));
    }
}

TEST_F(StoreTest, WithoutEvictionThereIsNoSpace) {
    Store store = Store::create(name_, small_store(Eviction::None));
    std::uint64_t number = 0;
    while (put(store, number, 10'000)) ++number;
    EXPECT_GT(number, 90U);
    EXPECT_TRUE(fails(put(store, number, 10'000), ErrorCode::NoSpace, {"free", "10"}));
    EXPECT_TRUE(has(store, 0, 10'000));
    EXPECT_EQ(store.look(key_of(number)).state, StoreLook::State::Miss);
    EXPECT_TRUE(adds_up(store.stats()));
    EXPECT_GE(store.stats().refused, 2U);
}

TEST_F(StoreTest, PinnedAndStagedObjectsStayAndOthersAreEvicted) {
    Store store = Store::create(name_, small_store());
    ASSERT_TRUE(succeeds(put(store, 1, 10'000)));
    Result<StoreObject> held = store.get(key_of(1));
    Result<StoreReservation> staged = store.reserve("staged", 10'000);
    for (std::uint64_t number = 100; number < 500; ++number) {
        ASSERT_TRUE(succeeds(put(store, number, 10'000)));
    }
    EXPECT_TRUE(has(store, 1, 10'000));
    EXPECT_TRUE(is_value(held->bytes(), 1, 10'000));
    EXPECT_TRUE(succeeds(staged->commit()));
    held->release();
    // Now they can be evicted, unless all are pinned at once.
    std::vector<Result<StoreObject>> all;
    for (const std::string& key : store.keys()) all.push_back(store.get(key));
    EXPECT_TRUE(fails(put(store, 999, 200'000), ErrorCode::NoSpace));
    all.clear();
    EXPECT_TRUE(succeeds(put(store, 999, 200'000)));
}

TEST_F(StoreTest, SieveKeepsReadObjects) {
    Store store = Store::create(name_, small_store());
    for (std::uint64_t number = 0; number < 50; ++number) put(store, number, 10'000).or_throw();
    for (std::uint64_t round = 0; round < 20; ++round) {
        for (std::uint64_t number = 0; number < 10; ++number) {
            ASSERT_TRUE(has(store, number, 10'000)) << "read in every round";
        }
        // A scan of keys that are not read again.
        for (std::uint64_t number = 0; number < 60; ++number) {
            ASSERT_TRUE(succeeds(put(store, 1000 + round * 60 + number, 10'000)));
        }
    }
}

TEST_F(StoreTest, LruEvictsTheLeastRecentlyRead) {
    Store store = Store::create(name_, small_store(Eviction::Lru));
    for (std::uint64_t number = 0; number < 100; ++number) put(store, number, 10'000).or_throw();
    EXPECT_TRUE(has(store, 0, 10'000));
    EXPECT_TRUE(store.touch(key_of(2)));
    EXPECT_FALSE(store.touch("nothing"));
    for (std::uint64_t number = 100; number < 110; ++number) put(store, number, 10'000).or_throw();
    EXPECT_TRUE(store.contains(key_of(0)));
    EXPECT_FALSE(store.contains(key_of(1)));
    EXPECT_TRUE(store.contains(key_of(2)));
    EXPECT_FALSE(store.contains(key_of(3)));
}

TEST_F(StoreTest, FifoEvictsTheOldestDespiteReads) {
    Store store = Store::create(name_, small_store(Eviction::Fifo));
    for (std::uint64_t number = 0; number < 100; ++number) put(store, number, 10'000).or_throw();
    EXPECT_TRUE(has(store, 0, 10'000));
    for (std::uint64_t number = 100; number < 105; ++number) put(store, number, 10'000).or_throw();
    EXPECT_FALSE(store.contains(key_of(0)));
    EXPECT_TRUE(store.contains(key_of(50)));
}

TEST_F(StoreTest, ARetainedKeyIsNotEvicted) {
    Store store = Store::create(name_, small_store(Eviction::Fifo));
    put(store, 1, 10'000).or_throw();
    EXPECT_TRUE(succeeds(store.retain(key_of(1))));
    EXPECT_TRUE(fails(store.retain("nothing"), ErrorCode::NotFound));
    for (std::uint64_t number = 100; number < 400; ++number) put(store, number, 10'000).or_throw();
    EXPECT_TRUE(has(store, 1, 10'000));
    EXPECT_EQ(store.stats().retained, 1U);
    EXPECT_TRUE(succeeds(store.release(key_of(1))));
    EXPECT_TRUE(fails(store.release(key_of(1)), ErrorCode::NotFound));
    for (std::uint64_t number = 400; number < 800; ++number) put(store, number, 10'000).or_throw();
    EXPECT_FALSE(store.contains(key_of(1)));
}

// Where everything else is read between two evictions, the hand passes once per weight.
TEST_F(StoreTest, AWeightIsWorthSoManyPassesOfTheHand) {
    const auto rounds_of = [](unsigned weight) {
        Store store = Store::create(new_name(), small_store());
        put(store, 1, 10'000, {.weight = weight}).or_throw();
        std::uint64_t number = 100;
        while (store.stats().evicted == 0) put(store, number++, 10'000).or_throw();
        for (unsigned round = 0; round < 50; ++round) {
            if (!store.contains(key_of(1))) return round;
            for (const std::string& key : store.keys()) {
                if (key != key_of(1)) store.touch(key);
            }
            put(store, number++, 10'000).or_throw();
        }
        return 50U;
    };
    EXPECT_EQ(rounds_of(0), 0U) << "the oldest went first";
    EXPECT_EQ(rounds_of(6), rounds_of(3) + 3);
    Store store = Store::create(name_, small_store());
    EXPECT_TRUE(fails(put(store, 5000, 10, {.weight = 101}), ErrorCode::InvalidArgument));
}

// ---- bad input

TEST_F(StoreTest, InvalidKeysAndSizesAreRefusedWithAReason) {
    Store store = Store::create(name_, small_store());
    const std::string longest(4096, 'k');
    EXPECT_TRUE(succeeds(store.put(longest, make_value(1, 10))));
    EXPECT_TRUE(store.contains(longest));
    EXPECT_TRUE(fails(store.put(longest + "k", {}), ErrorCode::InvalidArgument, {"4097"}));
    EXPECT_TRUE(fails(store.put("", {}), ErrorCode::InvalidArgument));
    EXPECT_TRUE(fails(store.reserve("kv", 1 << 20U), ErrorCode::TooLarge, {"'kv'", "1048576"}));
    EXPECT_TRUE(fails(store.reserve("kv", ~std::uint64_t{0}), ErrorCode::TooLarge));
    EXPECT_TRUE(fails(store.reserve("kv", 10, {.alignment = 3}), ErrorCode::InvalidArgument));
    EXPECT_TRUE(fails(store.reserve("kv", 10, {.alignment = 0}), ErrorCode::InvalidArgument));
    EXPECT_TRUE(
        fails(store.reserve("kv", 10, {.alignment = 4U << 20U}), ErrorCode::InvalidArgument));
    store.clear();
    EXPECT_TRUE(test::is_empty(store));
}

TEST_F(StoreTest, OptionsOutOfRangeAreRefused) {
    const auto refuses_options = [&](auto change) {
        StoreOptions options = small_store();
        change(options);
        return refuses(ErrorCode::InvalidArgument, [&] { Store::create(name_, options); });
    };
    EXPECT_TRUE(refuses_options([](StoreOptions& options) { options.capacity = 0; }));
    EXPECT_TRUE(refuses_options([](StoreOptions& options) { options.participants = 0; }));
    EXPECT_TRUE(refuses_options([](StoreOptions& options) { options.participants = 2000; }));
    EXPECT_TRUE(refuses_options([](StoreOptions& options) { options.granule = 100; }));
    EXPECT_TRUE(refuses_options([](StoreOptions& options) { options.granule = 32; }));
    EXPECT_TRUE(refuses_options([](StoreOptions& options) { options.objects = 1ULL << 40U; }));
    EXPECT_TRUE(refuses_options([](StoreOptions& options) {
        options.capacity = 1ULL << 40U;
        options.granule = 64;
    }));
}

TEST_F(StoreTest, ACapacityIsTheOnlyRequiredOption) {
    for (const std::uint64_t capacity : {1ULL, 1ULL << 38U, (1ULL << 38U) + 1, 1ULL << 42U}) {
        const StoreOptions options{.capacity = capacity};
        EXPECT_NO_THROW({
            const detail::StoreShape shape = detail::store_shape_of(options);
            EXPECT_LE(shape.buckets, layout::kMaxBuckets);
        }) << capacity;
    }
}

TEST_F(StoreTest, AClosedHandleReportsClosed) {
    Store store = Store::create(name_, small_store());
    put(store, 1).or_throw();
    Result<StoreObject> held = store.get(key_of(1));
    Result<StoreReservation> staged = store.reserve("kv", 100);
    store.close();
    EXPECT_TRUE(fails(store.get(key_of(1)), ErrorCode::Closed));
    EXPECT_TRUE(fails(store.reserve("kv", 1), ErrorCode::Closed));
    EXPECT_TRUE(is_value(held->bytes(), 1, 1000)) << "what is held stays";
    EXPECT_TRUE(succeeds(staged->commit()));
    held->release();
}

TEST_F(StoreTest, AttachingWithoutAFreeSlotIsBusy) {
    StoreOptions options = small_store();
    options.participants = 1;
    Store store = Store::create(name_, options);
    EXPECT_TRUE(refuses(ErrorCode::Busy, [&] { Store::attach(name_); }, {"participants"}));
}

// ---- batches and waiting

TEST_F(StoreTest, BatchesAnswerForEachKey) {
    Store store = Store::create(name_, small_store(Eviction::None));
    const std::vector<StoreRequest> requests{
        {"a", 400'000}, {"b", 400'000}, {"c", 400'000}, {"d", 100}};
    auto every = store.reserve_many(requests);
    ASSERT_EQ(every.size(), 4U);
    EXPECT_TRUE(succeeds(every[1]));
    EXPECT_TRUE(fails(every[2], ErrorCode::NoSpace));
    EXPECT_TRUE(succeeds(every[3]));
    every.clear();
    auto prefix = store.reserve_many(requests, {}, true);
    ASSERT_EQ(prefix.size(), 3U) << "it ends with the first that is not to be had";
    for (std::size_t at = 0; at < 2; ++at) EXPECT_TRUE(succeeds(prefix[at]->commit()));
    const std::vector<std::string_view> keys{"a", "b", "x", "a"};
    EXPECT_EQ(store.get_many(keys).size(), 4U);
    EXPECT_EQ(store.get_many(keys, true).size(), 3U);
    EXPECT_TRUE(fails(store.get_many(keys, true).back(), ErrorCode::NotFound));
}

TEST_F(StoreTest, ACommitWakesItsWaiter) {
    Store store = Store::create(name_, small_store());
    EXPECT_TRUE(fails(store.wait("kv", 10ms), ErrorCode::Timeout, {"'kv'"}));
    Gate waits;
    Child child([&] {
        Store other = Store::attach(name_);
        waits.open();
        const Result<StoreObject> object = other.wait("kv", kLong);
        require(object.is_ok() && object->bytes().size() == 100);
    });
    waits.pass();
    child.await_sleep();
    put(store, 7).or_throw();  // another key
    EXPECT_TRUE(succeeds(store.put("kv", make_value(1, 100))));
    EXPECT_EQ(child.wait(), 0);
}

TEST_F(StoreTest, KeysAreListed) {
    Store store = Store::create(name_, small_store());
    std::set<std::string> expected;
    for (std::uint64_t number = 0; number < 100; ++number) {
        put(store, number, 100).or_throw();
        expected.insert(key_of(number));
    }
    const std::vector<std::string> keys = store.keys();
    EXPECT_EQ(std::set<std::string>(keys.begin(), keys.end()), expected);
    EXPECT_EQ(keys.size(), expected.size());
}

// ---- the life of a store

TEST_F(StoreTest, APersistentStoreStays) {
    StoreOptions options = small_store();
    options.persistent = true;
    {
        Store store = Store::create(name_, options);
        put(store, 1).or_throw();
    }
    {
        Store store = Store::attach(name_);
        EXPECT_TRUE(has(store, 1));
    }
    EXPECT_FALSE(remove_if_abandoned(name_)) << "it was asked to stay";
    EXPECT_TRUE(remove_if_abandoned(name_, OnData::Remove));
    {
        const Store fleeting = Store::create(name_, small_store());
    }
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [&] { Store::attach(name_); }));
}

TEST_F(StoreTest, AForkedChildIsRefused) {
    Store store = Store::create(name_, small_store());
    put(store, 1).or_throw();
    Result<StoreObject> held = store.get(key_of(1));
    Result<StoreReservation> staged = store.reserve("kv", 100);
    Child child([&] {
        require(store.get(key_of(1)).code() == ErrorCode::WrongProcess);
        require(store.reserve("x", 1).code() == ErrorCode::WrongProcess);
        require(staged->ref().incarnation == 0);
        require(staged->commit().code() == ErrorCode::WrongProcess);
        held->release();
        Store own = Store::attach(name_);
        require(own.get(key_of(1)).is_ok());
        require(own.look("kv").state == StoreLook::State::Staged);
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_TRUE(is_value(held->bytes(), 1, 1000));
    EXPECT_TRUE(succeeds(staged->commit()));
}

TEST_F(StoreTest, MemoryIsReservedWithUseAndGivenBack) {
    StoreOptions options = small_store();
    options.capacity = 64 << 20U;
    Store store = Store::create(name_, options);
    const std::uint64_t empty = store.stats().reserved_bytes;
    EXPECT_LT(empty, 8U << 20U);
    put(store, 1, 10 << 20U).or_throw();
    EXPECT_GE(store.stats().reserved_bytes, empty + (10U << 20U));
    store.remove(key_of(1)).or_throw();
    EXPECT_GE(store.trim(), 10U << 20U);
    EXPECT_LE(store.stats().reserved_bytes, empty);
    EXPECT_TRUE(test::is_empty(store));
}

TEST_F(StoreTest, InspectionNeedsNoAttachment) {
    Store store = Store::create(name_, small_store());
    put(store, 1, 1000).or_throw();
    const StoreInfo info = inspect_store(name_);
    EXPECT_EQ(info.segment.kind, Kind::Store);
    EXPECT_EQ(info.stats.objects, 1U);
    EXPECT_TRUE(adds_up(info.stats));
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [] { inspect_store("nothing-of-that-name"); }));
}

// Threads of one process share its slot: pins are counted, and the last release clears the bit.
TEST_F(StoreTest, ThreadsShareOneHandle) {
    Store store = Store::create(name_, small_store());
    constexpr std::uint64_t kKeys = 40;
    std::atomic<std::uint64_t> wrong{0};
    std::atomic<std::uint64_t> hits{0};
    std::vector<std::thread> threads;
    for (unsigned thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&, thread] {
            for (std::uint64_t turn = 0; turn < 20'000; ++turn) {
                const std::uint64_t number = (turn * 7 + thread * 13) % kKeys;
                if (turn % 50 == 0) {
                    static_cast<void>(store.remove(key_of(number)));
                } else if (auto object = store.get(key_of(number))) {
                    ++hits;
                    if (!is_value(object->bytes(), number, 30'000)) ++wrong;
                } else {
                    static_cast<void>(put(store, number, 30'000));
                }
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0U);
    EXPECT_GT(hits, 1000U);
    EXPECT_TRUE(adds_up(store.stats()));
    EXPECT_EQ(store.stats().in_use, 0U);
    store.clear();
    EXPECT_TRUE(test::is_empty(store));
}

// A read renews its object; meanwhile the object became the newest by itself.
TEST_F(StoreTest, AReadObjectThatBecomesTheNewestStaysInTheOrder) {
    Store store = Store::create(name_, small_store(Eviction::Lru));
    for (const std::uint64_t number : {1U, 2U, 3U}) put(store, number).or_throw();
    Child reader([&] {
        Store own = Store::attach(name_);
        os::arm_crash_point("store.renew.looked:1:stop");
        require(own.touch(key_of(2)));
    });
    reader.await_stop();
    EXPECT_TRUE(succeeds(store.remove(key_of(3))));
    reader.resume();
    EXPECT_EQ(reader.wait(), 0);
    Child remover([&] {
        constexpr unsigned kLongest = 10;  // seconds: a torn order is an endless loop
        ::alarm(kLongest);
        require(Store::attach(name_).clear() == 2);
    });
    EXPECT_EQ(remover.wait(), 0);
    EXPECT_TRUE(test::is_empty(store));
}

}  // namespace
}  // namespace penstock

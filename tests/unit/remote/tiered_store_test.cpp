// A Store with a working second tier: one machine's objects are read on another, whole; damaged
// values are misses; removed objects are gone.
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "remote/value_format.hpp"
#include "tests/unit/remote/tier_fixture.hpp"

namespace penstock {
namespace {

using namespace test;
using namespace std::chrono_literals;

using TieredStoreTest = TierTest;

TEST_F(TieredStoreTest, OneMachinesObjectIsReadByAnother) {
    TieredOptions wanted = options();
    wanted.part_bytes = 100'000;
    TieredStore here = make_machine(wanted);
    TieredStore there = make_machine(wanted);
    const std::vector<std::size_t> sizes = {0,      1,       65'535,  65'536,  65'537,
                                            99'999, 100'000, 100'001, 200'000, 1'000'000};
    for (const std::size_t size : sizes) ASSERT_TRUE(succeeds(put(here, size, size)));
    for (const std::size_t size : sizes) EXPECT_TRUE(has(there, size, size));
    TierStats stats = there.stats();
    EXPECT_EQ(stats.hits, sizes.size());
    EXPECT_EQ(stats.misses, 0U);
    EXPECT_EQ(stats.errors + stats.timeouts + stats.corrupt, 0U);
    EXPECT_EQ(here.stats().written, sizes.size());
    EXPECT_EQ(here.stats().written_bytes, stats.fetched_bytes);
    // The second read does not ask the server.
    const std::uint64_t asked = server_->calls("get");
    for (const std::size_t size : sizes) EXPECT_TRUE(has(there, size, size));
    EXPECT_EQ(server_->calls("get"), asked);
    EXPECT_EQ(there.stats().hits, sizes.size());
}

TEST_F(TieredStoreTest, LargeObjectsTravelInParts) {
    TieredOptions wanted = options();
    wanted.part_bytes = std::uint64_t{8} << 20U;
    const std::uint64_t capacity = std::uint64_t{64} << 20U;
    TieredStore here = make_machine(wanted, capacity);
    TieredStore there = make_machine(wanted, capacity);
    const std::size_t size = (std::size_t{20} << 20U) + 7;
    ASSERT_TRUE(succeeds(put(here, 1, size)));
    EXPECT_EQ(server_->keys("penstock:p:").size(), 3U);
    EXPECT_EQ(server_->keys("penstock:o:").size(), 1U);
    EXPECT_TRUE(has(there, 1, size));
    ASSERT_TRUE(succeeds(here.remove(key_of(1))));
    EXPECT_TRUE(server_->keys().empty()) << "a part stayed behind";
}

TEST_F(TieredStoreTest, MetadataAndFormatAreKept) {
    TieredStore here = make_machine();
    TieredStore there = make_machine();
    const std::vector<std::byte> meta = make_value(77, 5000);
    ReserveOptions wanted;
    wanted.meta = meta;
    wanted.format = Format::Typed;
    for (const std::size_t size : {10U, 100'000U}) {
        ASSERT_TRUE(succeeds(put(here, size, size, wanted)));
        Result<StoreObject> object = there.get(key_of(size));
        ASSERT_TRUE(succeeds(object));
        EXPECT_TRUE(is_value(object->meta(), 77, 5000));
        EXPECT_EQ(object->format(), Format::Typed);
        EXPECT_TRUE(is_value(object->bytes(), size, size));
    }
}

TEST_F(TieredStoreTest, AReservationReachesTheServerAtItsCommit) {
    TieredStore here = make_machine();
    TieredStore there = make_machine();
    Result<TieredReservation> staged = here.reserve(key_of(1), 1000);
    ASSERT_TRUE(succeeds(staged));
    trust::fill_numbered(staged->bytes(), 1);
    EXPECT_TRUE(lacks(there, 1));
    EXPECT_TRUE(succeeds(staged->commit()));
    EXPECT_TRUE(has(there, 1));
    EXPECT_TRUE(fails(staged->commit(), ErrorCode::Expired));
    {
        Result<TieredReservation> dropped = here.reserve(key_of(2), 1000);
        ASSERT_TRUE(succeeds(dropped));
    }
    EXPECT_TRUE(lacks(there, 2));
    EXPECT_EQ(server_->keys().size(), 1U);
    EXPECT_TRUE(fails(put(here, 1), ErrorCode::AlreadyExists));
}

TEST_F(TieredStoreTest, AnEvictedObjectIsFetched) {
    TieredStore store = make_machine(options(), 1 << 20U);
    constexpr std::uint64_t kObjects = 40;
    constexpr std::size_t kSize = 60'000;  // more than twice the capacity
    for (std::uint64_t i = 0; i < kObjects; ++i) ASSERT_TRUE(succeeds(put(store, i, kSize)));
    EXPECT_GT(store.first().stats().evicted, 0U);
    for (std::uint64_t i = 0; i < kObjects; ++i) EXPECT_TRUE(has(store, i, kSize));
    EXPECT_GE(store.stats().hits, kObjects / 2);
}

// Writing back is not a read: SIEVE evicts the oldest object that was not really read.
TEST_F(TieredStoreTest, WritingBackDoesNotCountAsReading) {
    TieredStore store = make_machine(options(TierPolicy::WriteBack), 1 << 20U);
    constexpr std::size_t kSize = 250'000;  // four fit
    for (std::uint64_t i = 1; i <= 4; ++i) {
        ASSERT_TRUE(succeeds(put(store, i, kSize)));
        ASSERT_TRUE(store.flush(kLong).is_nothing());  // no longer pinned
    }
    EXPECT_EQ(store.first().stats().hits, 0U);
    EXPECT_TRUE(has(store, 1, kSize));
    ASSERT_TRUE(succeeds(put(store, 5, kSize)));
    EXPECT_TRUE(store.first().contains(key_of(1))) << "it was read";
    EXPECT_FALSE(store.first().contains(key_of(2))) << "the oldest of those that were not";
    EXPECT_TRUE(store.first().contains(key_of(3)));
}

// The look-up that missed counts as the read, as it does for an object that is made anew and put.
TEST_F(TieredStoreTest, FetchingDoesNotCountAsReading) {
    TieredStore here = make_machine();
    TieredStore there = make_machine(options(), 1 << 20U);
    constexpr std::size_t kSize = 250'000;
    for (std::uint64_t i = 1; i <= 5; ++i) ASSERT_TRUE(succeeds(put(here, i, kSize)));
    for (std::uint64_t i = 1; i <= 4; ++i) EXPECT_TRUE(has(there, i, kSize));
    EXPECT_EQ(there.first().stats().hits, 0U);
    EXPECT_EQ(there.first().stats().misses, 4U);
    EXPECT_TRUE(has(there, 1, kSize));
    EXPECT_TRUE(has(there, 5, kSize));
    EXPECT_TRUE(there.first().contains(key_of(1)));
    EXPECT_FALSE(there.first().contains(key_of(2)));
}

TEST_F(TieredStoreTest, ACommitMayPinItsObject) {
    TieredStore store = make_machine();
    Result<TieredReservation> staged = store.reserve(key_of(1), 1000);
    ASSERT_TRUE(succeeds(staged));
    trust::fill_numbered(staged->bytes(), 1);
    std::optional<StoreObject> pinned;
    ASSERT_TRUE(succeeds(staged->commit(pinned)));
    ASSERT_TRUE(pinned);
    EXPECT_EQ(store.first().stats().in_use, 1U);
    StoreObject again = pinned->share();
    pinned.reset();
    EXPECT_TRUE(is_value(again.bytes(), 1, 1000));
    EXPECT_EQ(store.first().stats().in_use, 1U);
    again.release();
    EXPECT_FALSE(again.share().is_open());
    EXPECT_EQ(store.first().stats().in_use, 0U);
}

TEST_F(TieredStoreTest, AMissIsCounted) {
    TieredStore store = make_machine();
    EXPECT_TRUE(lacks(store, 1));
    EXPECT_FALSE(store.contains(key_of(1)));
    EXPECT_TRUE(fails(store.remove(key_of(1)), ErrorCode::NotFound));
    EXPECT_EQ(store.stats().misses, 1U);
    EXPECT_EQ(store.stats().errors, 0U);
    EXPECT_EQ(store.stats().circuit, CircuitState::Closed);
}

TEST_F(TieredStoreTest, RemovalEmptiesBothTiers) {
    TieredStore here = make_machine();
    TieredStore there = make_machine();
    ASSERT_TRUE(succeeds(put(here, 1, 100'000)));
    EXPECT_TRUE(there.contains(key_of(1)));
    // Also where the first tier never had it.
    EXPECT_TRUE(succeeds(there.remove(key_of(1))));
    EXPECT_TRUE(server_->keys().empty());
    EXPECT_TRUE(has(here, 1, 100'000)) << "another machine's first tier is its own";
    EXPECT_TRUE(succeeds(here.remove(key_of(1))));
    EXPECT_TRUE(lacks(here, 1));
    EXPECT_TRUE(fails(here.remove(key_of(1)), ErrorCode::NotFound));
}

TEST_F(TieredStoreTest, AReaderNeitherWritesNorRemoves) {
    TieredStore here = make_machine();
    TieredStore reader = make_machine(options(TierPolicy::ReadOnly));
    ASSERT_TRUE(succeeds(put(here, 1)));
    EXPECT_TRUE(has(reader, 1));
    EXPECT_TRUE(succeeds(put(reader, 2)));
    EXPECT_TRUE(succeeds(reader.remove(key_of(1))));
    EXPECT_EQ(server_->keys(), Words{head_of(1)});
    EXPECT_TRUE(has(reader, 1)) << "from the second tier, where it still is";
}

TEST_F(TieredStoreTest, PrefixesAndDatabasesKeepStoresApart) {
    TieredOptions other_prefix = options();
    other_prefix.prefix = "other:";
    TieredOptions other_db = options();
    other_db.urls = {server_->url() + "?db=3"};
    TieredStore store = make_machine();
    TieredStore apart = make_machine(other_prefix);
    TieredStore away = make_machine(other_db);
    ASSERT_TRUE(succeeds(put(store, 1)));
    EXPECT_TRUE(lacks(apart, 1));
    EXPECT_TRUE(lacks(away, 1));
    ASSERT_TRUE(succeeds(put(away, 2)));
    EXPECT_TRUE(lacks(store, 2));
}

TEST_F(TieredStoreTest, ATtlIsSetAtTheServer) {
    TieredOptions wanted = options();
    wanted.ttl = 1h;
    TieredStore store = make_machine(wanted);
    ASSERT_TRUE(succeeds(put(store, 1, 100'000)));
    const Words names = server_->keys();
    EXPECT_EQ(names.size(), 2U);
    for (const std::string& name : names) {
        const long long left = server_->say({"PTTL", name}).integer;
        EXPECT_GT(left, 3'000'000) << name;
        EXPECT_LE(left, 3'600'000) << name;
    }
}

TEST_F(TieredStoreTest, ThreadsThatMissTogetherFetchOnce) {
    TieredStore here = make_machine();
    TieredStore there = make_machine();
    ASSERT_TRUE(succeeds(put(here, 1, 100'000)));
    const std::uint64_t asked = server_->calls("get");
    // A stopped server ensures that all threads miss before any fetch ends.
    server_->stop();
    constexpr unsigned kThreads = 8;
    std::atomic<unsigned> found{0};
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kThreads; ++i) {
        threads.emplace_back([&] { found += has(there, 1, 100'000) ? 1U : 0U; });
    }
    await([&] { return there.stats().shared == kThreads - 1; });
    server_->resume();
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(found, kThreads);
    EXPECT_EQ(server_->calls("get"), asked + 2) << "the head and its part, once";
    EXPECT_EQ(there.stats().hits, 1U);
}

TEST_F(TieredStoreTest, AFetchIsStagedForTheWholeMachine) {
    TieredStore here = make_machine();
    const std::string name = new_name();
    TieredStore mine(Store::create(name, small_store()), options());
    TieredStore other(Store::attach(name), options());
    ASSERT_TRUE(succeeds(put(here, 1)));
    // Another process of this machine is fetching it.
    Result<StoreReservation> staged = other.first().reserve(key_of(1), 1000);
    ASSERT_TRUE(succeeds(staged));
    trust::fill_numbered(staged->bytes(), 1);
    std::thread waiter([&] { EXPECT_TRUE(has(mine, 1)); });
    // The waiter has the head by then, and waits for that process instead of fetching too.
    await([&] { return server_->calls("get") >= 1; });
    EXPECT_TRUE(succeeds(staged->commit()));
    waiter.join();
    EXPECT_EQ(mine.stats().hits, 0U);
    EXPECT_EQ(mine.first().stats().committed, 1U);
}

TEST_F(TieredStoreTest, WithoutRoomInTheFirstTierAFetchIsACountedMiss) {
    TieredStore here = make_machine();
    TieredStore there = make_machine(options(), 1 << 20U);
    ASSERT_TRUE(succeeds(put(here, 1, 100'000)));
    ASSERT_TRUE(succeeds(put(here, 2, 2 << 20U)));
    Result<StoreReservation> full = there.first().reserve("full", (1 << 20U) - 4096);
    ASSERT_TRUE(succeeds(full));
    EXPECT_TRUE(lacks(there, 1));
    EXPECT_EQ(there.stats().no_room, 1U);
    EXPECT_NE(there.stats().last_error.find("no room"), std::string::npos);
    full->abort();
    EXPECT_TRUE(has(there, 1, 100'000));
    EXPECT_TRUE(lacks(there, 2));
    EXPECT_EQ(there.stats().no_room, 2U);
    EXPECT_NE(there.stats().last_error.find("larger than the first tier"), std::string::npos);
    EXPECT_EQ(there.stats().misses, 2U);
    EXPECT_TRUE(there.first().contains(key_of(1))) << "nothing made way for what can't come";
}

TEST_F(TieredStoreTest, ADeadProcessThatWasFetchingIsNotWaitedFor) {
    TieredStore here = make_machine();
    const std::string name = new_name();
    TieredStore mine(Store::create(name, small_store()), options());
    ASSERT_TRUE(succeeds(put(here, 1, 100'000)));
    Child fetcher([&] {
        Store other = Store::attach(name);
        const Result<StoreReservation> staged = other.reserve(key_of(1), 100'000);
        if (staged) ::raise(SIGKILL);
    });
    EXPECT_EQ(fetcher.wait(), killed_by(SIGKILL));
    EXPECT_TRUE(has(mine, 1, 100'000));
    EXPECT_EQ(mine.stats().hits, 1U);
}

// A caller's check of a fetched value: a refused value stays invisible to other readers.
TEST_F(TieredStoreTest, AFetcherMayRefuseAValueBeforeOthersSeeIt) {
    TieredStore here = make_machine();
    TieredOptions deleting = options();
    deleting.delete_corrupt = true;
    TieredStore there = make_machine(deleting);
    ASSERT_TRUE(succeeds(put(here, 1, 100'000)));
    const auto answer = [&](FetchResult::Kind kind) {
        return there.fetch(key_of(1), {}, [&](const FetchedValue& value) -> FetchResult {
            EXPECT_TRUE(is_value(value.bytes, 1, 100'000));
            EXPECT_FALSE(there.first().contains(key_of(1)));
            return {kind, "so it said"};
        });
    };
    EXPECT_TRUE(fails(answer(FetchResult::Kind::Incompatible), ErrorCode::NotFound));
    EXPECT_EQ(there.stats().incompatible, 1U);
    EXPECT_NE(there.stats().last_error.find("so it said"), std::string::npos);
    EXPECT_TRUE(succeeds(answer(FetchResult::Kind::Accept)));
    ASSERT_TRUE(succeeds(there.first().remove(key_of(1))));
    EXPECT_TRUE(fails(answer(FetchResult::Kind::Corrupt), ErrorCode::NotFound));
    EXPECT_EQ(there.stats().corrupt, 1U);
    EXPECT_EQ(there.first().stats().staged, 0U);
    EXPECT_TRUE(server_->keys().empty()) << "it was deleted";
}

// ---- damaged values

class DamageTest : public TierTest {
protected:
    // A second machine's statistics after a look-up of object 1, spoiled by `damage`.
    template <typename Damage>
    TierStats read_after(std::size_t size, Damage&& damage, bool deletes = false) {
        TieredStore here = make_machine();
        EXPECT_TRUE(succeeds(put(here, 1, size)));
        damage();
        TieredOptions wanted = options();
        wanted.delete_corrupt = deletes;
        TieredStore there = make_machine(wanted);
        EXPECT_TRUE(lacks(there, 1));
        EXPECT_EQ(there.first().stats().staged, 0U) << "nothing stays reserved";
        EXPECT_EQ(there.stats().hits, 0U);
        EXPECT_EQ(there.stats().misses, 1U);
        EXPECT_EQ(there.stats().circuit, CircuitState::Closed);
        return there.stats();
    }
    void overwrite(const std::string& name, std::size_t at, const std::string& text) {
        server_->say({"SETRANGE", name, std::to_string(at), text});
    }
    [[nodiscard]] std::string a_part() const { return server_->keys("penstock:p:").front(); }
};

TEST_F(DamageTest, EveryByteOfASmallValueIsGuarded) {
    constexpr std::size_t kSize = 40;
    TieredStore here = make_machine();
    ASSERT_TRUE(succeeds(put(here, 1, kSize)));
    TieredStore there = make_machine();
    const std::string sound = server_->say({"GET", head_of(1)}).text;
    ASSERT_EQ(sound.size(), detail::kValueHeader + kSize);
    for (std::size_t at = 0; at < sound.size(); ++at) {
        std::string damaged = sound;
        damaged[at] = static_cast<char>(damaged[at] ^ 0x20);
        server_->say({"SET", head_of(1), damaged});
        EXPECT_TRUE(lacks(there, 1)) << "byte " << at;
    }
    for (std::size_t size = 0; size < sound.size(); ++size) {
        server_->say({"SET", head_of(1), sound.substr(0, size)});
        EXPECT_TRUE(lacks(there, 1)) << size << " bytes";
    }
    const TierStats stats = there.stats();
    EXPECT_EQ(stats.incompatible, 4U) << "its version has four bytes";
    EXPECT_EQ(stats.corrupt, 2 * sound.size() - 4);
    server_->say({"SET", head_of(1), sound});
    EXPECT_TRUE(has(there, 1, kSize));
}

TEST_F(DamageTest, ADamagedPartIsAMiss) {
    EXPECT_EQ(read_after(100'000, [&] { overwrite(a_part(), 99, "x"); }).corrupt, 1U);
}

TEST_F(DamageTest, APartOfAnotherLengthIsAMiss) {
    const auto longer = [&] { server_->say({"APPEND", a_part(), "x"}); };
    EXPECT_EQ(read_after(100'000, longer).corrupt, 1U);
}

TEST_F(DamageTest, AMissingPartIsAMissAndNoDamage) {
    EXPECT_EQ(read_after(100'000, [&] { server_->say({"DEL", a_part()}); }).corrupt, 0U);
}

TEST_F(DamageTest, AMissingPartEvictsNothing) {
    TieredStore here = make_machine();
    for (const std::uint64_t part_bytes : {std::uint64_t{1} << 20U, detail::kPartLeast}) {
        TieredOptions parted = options();
        parted.part_bytes = part_bytes;
        TieredStore writer = make_machine(parted);
        ASSERT_TRUE(succeeds(put(writer, 1, 900'000)));
        for (const bool is_last : {false, true}) {
            const std::vector<std::string> parts = server_->keys("penstock:p:");
            if (parts.empty()) break;
            server_->say({"DEL", is_last ? parts.back() : parts.front()});
            TieredStore there = make_machine(options(TierPolicy::ReadOnly), 1 << 20U);
            for (std::uint64_t i = 10; i < 25; ++i) ASSERT_TRUE(succeeds(put(there, i, 60'000)));
            ASSERT_EQ(there.first().stats().evicted, 0U);
            EXPECT_TRUE(lacks(there, 1));
            EXPECT_EQ(there.stats().misses, 1U);
            EXPECT_EQ(there.first().stats().evicted, 0U);
            EXPECT_EQ(there.first().stats().aborted, 0U) << "no room was ever taken";
        }
        ASSERT_TRUE(succeeds(writer.remove(key_of(1))));
    }
}

// Parts are removed by the hundred: a hostile head may name a million.
TEST_F(DamageTest, RemovingManyPartsTakesFewRequests) {
    constexpr std::uint64_t kParts = 20'000;
    detail::ValueHead head;
    head.part_bytes = detail::kPartLeast;
    head.nbytes = kParts * head.part_bytes;
    server_->say({"SET", head_of(1), detail::encode_head(head, {}, key_of(1))});
    const std::string last = detail::part_name("penstock:", key_of(1), head, kParts - 1);
    server_->say({"SET", last, "x"});
    TieredStore store = make_machine();
    EXPECT_TRUE(succeeds(store.remove(key_of(1))));
    EXPECT_TRUE(server_->keys().empty());
    EXPECT_LT(server_->calls("unlink"), kParts / 100);
}

TEST_F(DamageTest, AValueOfAnotherKeyIsAMiss) {
    TieredStore here = make_machine();
    TieredStore there = make_machine();
    ASSERT_TRUE(succeeds(put(here, 1)));
    server_->say({"SET", head_of(5), server_->say({"GET", head_of(1)}).text});
    EXPECT_TRUE(has(there, 1)) << "under its own name it is sound";
    EXPECT_TRUE(lacks(there, 5));
    EXPECT_EQ(there.stats().corrupt, 1U);
}

TEST_F(DamageTest, AValueOfAnotherTypeIsAMiss) {
    TieredStore store = make_machine();
    server_->say({"LPUSH", head_of(1), "x"});
    EXPECT_TRUE(lacks(store, 1));
    EXPECT_EQ(store.stats().errors, 1U);
    EXPECT_EQ(store.stats().circuit, CircuitState::Closed);
    EXPECT_NE(store.stats().last_error.find("WRONGTYPE"), std::string::npos);
}

TEST_F(DamageTest, AValueWithoutEndIsAMiss) {
    TieredStore store = make_machine();
    server_->say({"SETRANGE", head_of(1), "20000000", "x"});
    EXPECT_TRUE(lacks(store, 1));
    EXPECT_EQ(store.stats().corrupt, 1U);
    EXPECT_EQ(store.stats().circuit, CircuitState::Closed);
}

TEST_F(DamageTest, DamageIsDeletedOnlyOnRequest) {
    read_after(1000, [&] { overwrite(head_of(1), 500, "damage"); });
    EXPECT_EQ(server_->keys().size(), 1U);
    server_->say({"FLUSHALL"});
    read_after(1000, [&] { overwrite(head_of(1), 500, "damage"); }, true);
    EXPECT_TRUE(server_->keys().empty());
    read_after(100'000, [&] { overwrite(a_part(), 500, "damage"); }, true);
    EXPECT_TRUE(server_->keys().empty());
    // A head of another version is not deleted.
    read_after(1000, [&] { overwrite(head_of(1), 8, "\x02"); }, true);
    EXPECT_EQ(server_->keys().size(), 1U);
}

// ---- set-up

TEST_F(TieredStoreTest, ARefusedConstructionLeavesTheFirstTier) {
    RedisServer guarded({"--requirepass", "secret"});
    Store first = Store::create(new_name(), small_store());
    ASSERT_TRUE(succeeds(first.put(key_of(1), make_value(1, 1000))));
    TieredOptions wanted = options();
    wanted.urls = {guarded.url()};
    EXPECT_TRUE(
        refuses(ErrorCode::PermissionDenied, [&] { TieredStore(std::move(first), wanted); }));
    wanted.urls = {"http://host"};
    EXPECT_TRUE(
        refuses(ErrorCode::InvalidArgument, [&] { TieredStore(std::move(first), wanted); }));
    ASSERT_TRUE(first.is_open());
    EXPECT_TRUE(first.contains(key_of(1)));
    wanted.urls = {server_->url()};
    TieredStore store(std::move(first), wanted);
    EXPECT_TRUE(has(store, 1));
}

TEST_F(TieredStoreTest, AServersPasswordIsRequired) {
    RedisServer guarded({"--requirepass", "secret"});
    TieredOptions wanted = options();
    wanted.urls = {guarded.url()};
    EXPECT_TRUE(refuses(ErrorCode::PermissionDenied, [&] { make_machine(wanted); }, {"NOAUTH"}));
    wanted.urls = {"unix://:secret@" + guarded.endpoint().path};
    TieredStore store = make_machine(wanted);
    EXPECT_TRUE(succeeds(put(store, 1)));
}

TEST_F(TieredStoreTest, AWrongPasswordIsReportedAtOnce) {
    const std::uint16_t port = free_port();
    RedisServer guarded(port, {"--requirepass", "open:se@same"});
    const std::string place = "127.0.0.1:" + std::to_string(port);
    TieredOptions wanted = options();
    wanted.urls = {"redis://:wrong@" + place};
    EXPECT_TRUE(
        refuses(ErrorCode::PermissionDenied, [&] { make_machine(wanted); }, {place, "WRONGPASS"}));
    wanted.urls = {"redis://default:open%3ase%40same@" + place + "/2"};
    TieredStore store = make_machine(wanted);
    EXPECT_TRUE(succeeds(put(store, 1)));
    wanted.urls = {"redis://:open%3Ase%40same@" + place + "/2"};
    TieredStore other = make_machine(wanted);
    EXPECT_TRUE(has(other, 1));
}

TEST_F(TieredStoreTest, ImpossibleOptionsAreRefused) {
    const auto refused = [&](auto&& change) {
        TieredOptions wanted = options();
        change(wanted);
        return refuses(ErrorCode::InvalidArgument, [&] { make_machine(wanted); });
    };
    EXPECT_TRUE(refused([](auto& wanted) { wanted.urls = {}; }));
    EXPECT_TRUE(refused([](auto& wanted) { wanted.urls.push_back("redis://second"); }));
    EXPECT_TRUE(refused([](auto& wanted) { wanted.urls = {"http://host"}; }));
    EXPECT_TRUE(refused([](auto& wanted) { wanted.part_bytes = 100; }));
    EXPECT_TRUE(refused([](auto& wanted) { wanted.part_bytes = std::uint64_t{1} << 30U; }));
    EXPECT_TRUE(refused([](auto& wanted) { wanted.writers = 0; }));
    EXPECT_TRUE(refused([](auto& wanted) { wanted.request_timeout = 0s; }));
    EXPECT_TRUE(refused([](auto& wanted) { wanted.retry_first = 0s; }));
    EXPECT_TRUE(refused([](auto& wanted) { wanted.ttl = 0ms; }));
    EXPECT_TRUE(refused([](auto& wanted) {
        wanted.cluster = true;
        wanted.urls = {"redis://host/1"};
    }));
}

TEST_F(TieredStoreTest, AClosedHandleReportsClosed) {
    TieredStore store = make_machine();
    ASSERT_TRUE(succeeds(put(store, 1)));
    Result<TieredReservation> staged = store.reserve(key_of(2), 10);
    ASSERT_TRUE(succeeds(staged));
    EXPECT_TRUE(store.close().is_nothing());
    EXPECT_FALSE(store.is_open());
    EXPECT_TRUE(fails(store.get(key_of(1)), ErrorCode::Closed));
    EXPECT_TRUE(fails(put(store, 3), ErrorCode::Closed));
    EXPECT_FALSE(store.contains(key_of(1)));
    // The reservation outlives the handle; its commit reports where the object is missing.
    EXPECT_TRUE(fails(staged->commit(), ErrorCode::Cancelled));
}

TEST_F(TieredStoreTest, AFinishedHandleStillHasItsFirstTier) {
    TieredStore store = make_machine(options(TierPolicy::WriteBack));
    ASSERT_TRUE(succeeds(put(store, 1)));
    EXPECT_TRUE(store.finish(kLong).is_nothing());
    EXPECT_EQ(server_->keys(), Words{head_of(1)});
    EXPECT_TRUE(has(store, 1));
    EXPECT_TRUE(fails(store.get(key_of(2)), ErrorCode::Cancelled));
    EXPECT_TRUE(succeeds(put(store, 3)));
    EXPECT_EQ(store.stats().dropped, 1U);
    EXPECT_EQ(store.finish(kLong).dropped, 1U);
}

TEST_F(TieredStoreTest, AForkedChildIsRefused) {
    TieredStore store = make_machine(options(TierPolicy::WriteBack));
    ASSERT_TRUE(succeeds(put(store, 1)));
    Child child([&] {
        require(store.get(key_of(1)).code() == ErrorCode::WrongProcess);
        require(put(store, 2).code() == ErrorCode::WrongProcess);
        require(store.remove(key_of(1)).code() == ErrorCode::WrongProcess);
        require(!store.contains(key_of(1)));
        require(store.flush().is_nothing());
        TieredStore gone = std::move(store);  // ends here without waiting for a thread
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_TRUE(store.flush(kLong).is_nothing());
    EXPECT_TRUE(has(store, 1));
}

}  // namespace
}  // namespace penstock

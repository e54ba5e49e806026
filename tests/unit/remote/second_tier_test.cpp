// A Store with a working second tier: one machine's objects are read on another, whole; damaged
// values are misses; removed objects are gone.
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <set>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "remote/value_format.hpp"
#include "tests/unit/remote/tier_fixture.hpp"

namespace penstock {
namespace {

using namespace test;
using namespace std::chrono_literals;

using SecondTierTest = TierTest;

TEST_F(SecondTierTest, OneMachinesObjectIsReadByAnother) {
    SecondTierOptions wanted = options();
    wanted.part_bytes = 100'000;
    Store here = make_machine(wanted);
    Store there = make_machine(wanted);
    const std::vector<std::size_t> sizes = {0,      1,       65'535,  65'536,  65'537,
                                            99'999, 100'000, 100'001, 200'000, 1'000'000};
    for (const std::size_t size : sizes) ASSERT_TRUE(succeeds(put(here, size, size)));
    for (const std::size_t size : sizes) EXPECT_TRUE(has(there, size, size));
    TierStats stats = tier_stats(there);
    EXPECT_EQ(stats.hits, sizes.size());
    EXPECT_EQ(stats.misses, 0U);
    EXPECT_EQ(stats.errors + stats.timeouts + stats.corrupt, 0U);
    EXPECT_EQ(tier_stats(here).written, sizes.size());
    EXPECT_EQ(tier_stats(here).written_bytes, stats.fetched_bytes);
    // The second read does not ask the server.
    const std::uint64_t asked = server_->calls("get");
    for (const std::size_t size : sizes) EXPECT_TRUE(has(there, size, size));
    EXPECT_EQ(server_->calls("get"), asked);
    EXPECT_EQ(tier_stats(there).hits, sizes.size());
}

TEST_F(SecondTierTest, LargeObjectsTravelInParts) {
    SecondTierOptions wanted = options();
    wanted.part_bytes = std::uint64_t{8} << 20U;
    const std::uint64_t capacity = std::uint64_t{64} << 20U;
    Store here = make_machine(wanted, capacity);
    Store there = make_machine(wanted, capacity);
    const std::size_t size = (std::size_t{20} << 20U) + 7;
    ASSERT_TRUE(succeeds(put(here, 1, size)));
    EXPECT_EQ(server_->keys("penstock:p:").size(), 3U);
    EXPECT_EQ(server_->keys("penstock:o:").size(), 1U);
    EXPECT_TRUE(has(there, 1, size));
    ASSERT_TRUE(succeeds(here.remove(key_of(1))));
    EXPECT_TRUE(server_->keys().empty()) << "a part stayed behind";
}

TEST_F(SecondTierTest, MetadataAndFormatAreKept) {
    Store here = make_machine();
    Store there = make_machine();
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

TEST_F(SecondTierTest, AReservationReachesTheServerAtItsCommit) {
    Store here = make_machine();
    Store there = make_machine();
    Result<StoreReservation> staged = here.reserve(key_of(1), 1000);
    ASSERT_TRUE(succeeds(staged));
    trust::fill_numbered(staged->bytes(), 1);
    EXPECT_TRUE(lacks(there, 1));
    EXPECT_TRUE(succeeds(staged->commit()));
    EXPECT_TRUE(has(there, 1));
    EXPECT_TRUE(fails(staged->commit(), ErrorCode::Expired));
    {
        Result<StoreReservation> dropped = here.reserve(key_of(2), 1000);
        ASSERT_TRUE(succeeds(dropped));
    }
    EXPECT_TRUE(lacks(there, 2));
    EXPECT_EQ(server_->keys().size(), 1U);
    EXPECT_TRUE(fails(put(here, 1), ErrorCode::AlreadyExists));
}

TEST_F(SecondTierTest, AnEvictedObjectIsFetched) {
    Store store = make_machine(options(), 1 << 20U);
    constexpr std::uint64_t kObjects = 40;
    constexpr std::size_t kSize = 60'000;  // more than twice the capacity
    for (std::uint64_t i = 0; i < kObjects; ++i) ASSERT_TRUE(succeeds(put(store, i, kSize)));
    EXPECT_GT(store.stats().evicted, 0U);
    for (std::uint64_t i = 0; i < kObjects; ++i) EXPECT_TRUE(has(store, i, kSize));
    EXPECT_GE(tier_stats(store).hits, kObjects / 2);
}

// A write-back is not a read: SIEVE evicts the oldest object that no look-up has hit.
TEST_F(SecondTierTest, WritingBackDoesNotCountAsReading) {
    Store store = make_machine(options(TierPolicy::WriteBack), 1 << 20U);
    constexpr std::size_t kSize = 250'000;  // four fit
    for (std::uint64_t i = 1; i <= 4; ++i) {
        ASSERT_TRUE(succeeds(put(store, i, kSize)));
        ASSERT_TRUE(store.flush(kLong).is_nothing());  // no longer pinned
    }
    EXPECT_EQ(store.stats().hits, 0U);
    EXPECT_TRUE(has(store, 1, kSize));
    ASSERT_TRUE(succeeds(put(store, 5, kSize)));
    EXPECT_TRUE(first_of(store).contains(key_of(1))) << "it was read";
    EXPECT_FALSE(first_of(store).contains(key_of(2))) << "the oldest of those that were not";
    EXPECT_TRUE(first_of(store).contains(key_of(3)));
}

// A fetch is not a read: SIEVE sees a fetched object as one that was just put.
TEST_F(SecondTierTest, FetchingDoesNotCountAsReading) {
    Store here = make_machine();
    Store there = make_machine(options(), 1 << 20U);
    constexpr std::size_t kSize = 250'000;
    for (std::uint64_t i = 1; i <= 5; ++i) ASSERT_TRUE(succeeds(put(here, i, kSize)));
    for (std::uint64_t i = 1; i <= 4; ++i) EXPECT_TRUE(has(there, i, kSize));
    EXPECT_EQ(there.stats().hits, 0U);
    EXPECT_EQ(there.stats().misses, 4U);
    EXPECT_TRUE(has(there, 1, kSize));
    EXPECT_TRUE(has(there, 5, kSize));
    EXPECT_TRUE(first_of(there).contains(key_of(1)));
    EXPECT_FALSE(first_of(there).contains(key_of(2)));
}

TEST_F(SecondTierTest, ACommitMayPinItsObject) {
    Store store = make_machine();
    Result<StoreReservation> staged = store.reserve(key_of(1), 1000);
    ASSERT_TRUE(succeeds(staged));
    trust::fill_numbered(staged->bytes(), 1);
    std::optional<StoreObject> pinned;
    ASSERT_TRUE(succeeds(staged->commit(pinned)));
    ASSERT_TRUE(pinned);
    EXPECT_EQ(store.stats().in_use, 1U);
    StoreObject again = pinned->share();
    pinned.reset();
    EXPECT_TRUE(is_value(again.bytes(), 1, 1000));
    EXPECT_EQ(store.stats().in_use, 1U);
    again.release();
    EXPECT_FALSE(again.share().is_open());
    EXPECT_EQ(store.stats().in_use, 0U);
}

TEST_F(SecondTierTest, AMissIsCounted) {
    Store store = make_machine();
    EXPECT_TRUE(lacks(store, 1));
    EXPECT_FALSE(store.contains(key_of(1)));
    EXPECT_TRUE(fails(store.remove(key_of(1)), ErrorCode::NotFound));
    EXPECT_EQ(tier_stats(store).misses, 1U);
    EXPECT_EQ(tier_stats(store).errors, 0U);
    EXPECT_EQ(tier_stats(store).circuit, CircuitState::Closed);
}

TEST_F(SecondTierTest, RemovalEmptiesBothTiers) {
    Store here = make_machine();
    Store there = make_machine();
    ASSERT_TRUE(succeeds(put(here, 1, 100'000)));
    EXPECT_TRUE(there.contains(key_of(1)));
    // Removal from the second tier of an object that the first tier never had.
    EXPECT_TRUE(succeeds(there.remove(key_of(1))));
    EXPECT_TRUE(server_->keys().empty());
    EXPECT_TRUE(has(here, 1, 100'000)) << "another machine's first tier is its own";
    EXPECT_TRUE(succeeds(here.remove(key_of(1))));
    EXPECT_TRUE(lacks(here, 1));
    EXPECT_TRUE(fails(here.remove(key_of(1)), ErrorCode::NotFound));
}

TEST_F(SecondTierTest, AReaderNeitherWritesNorRemoves) {
    Store here = make_machine();
    Store reader = make_machine(options(TierPolicy::ReadOnly));
    ASSERT_TRUE(succeeds(put(here, 1)));
    EXPECT_TRUE(has(reader, 1));
    EXPECT_TRUE(succeeds(put(reader, 2)));
    EXPECT_TRUE(succeeds(reader.remove(key_of(1))));
    EXPECT_EQ(server_->keys(), Words{head_of(1)});
    EXPECT_TRUE(has(reader, 1)) << "from the second tier, where it still is";
}

TEST_F(SecondTierTest, PrefixesAndDatabasesKeepStoresApart) {
    SecondTierOptions other_prefix = options();
    other_prefix.prefix = "other:";
    SecondTierOptions other_db = options();
    other_db.urls = {server_->url() + "?db=3"};
    Store store = make_machine();
    Store apart = make_machine(other_prefix);
    Store away = make_machine(other_db);
    ASSERT_TRUE(succeeds(put(store, 1)));
    EXPECT_TRUE(lacks(apart, 1));
    EXPECT_TRUE(lacks(away, 1));
    ASSERT_TRUE(succeeds(put(away, 2)));
    EXPECT_TRUE(lacks(store, 2));
}

TEST_F(SecondTierTest, ATtlIsSetAtTheServer) {
    SecondTierOptions wanted = options();
    wanted.ttl = 1h;
    Store store = make_machine(wanted);
    ASSERT_TRUE(succeeds(put(store, 1, 100'000)));
    const Words names = server_->keys();
    EXPECT_EQ(names.size(), 2U);
    for (const std::string& name : names) {
        const long long left = server_->say({"PTTL", name}).integer;
        EXPECT_GT(left, 3'000'000) << name;
        EXPECT_LE(left, 3'600'000) << name;
    }
}

TEST_F(SecondTierTest, ThreadsThatMissTogetherFetchOnce) {
    Store here = make_machine();
    Store there = make_machine();
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
    await([&] { return tier_stats(there).shared == kThreads - 1; });
    server_->resume();
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(found, kThreads);
    EXPECT_EQ(server_->calls("get"), asked + 2) << "the head and its part, once";
    EXPECT_EQ(tier_stats(there).hits, 1U);
}

TEST_F(SecondTierTest, AFetchIsStagedForTheWholeMachine) {
    Store here = make_machine();
    const std::string name = new_name();
    Store mine = make_machine(name);
    Store other = Store::attach(name);
    ASSERT_TRUE(succeeds(put(here, 1)));
    // Another process of this machine is fetching it.
    Result<StoreReservation> staged = other.reserve(key_of(1), 1000);
    ASSERT_TRUE(succeeds(staged));
    trust::fill_numbered(staged->bytes(), 1);
    std::thread waiter([&] { EXPECT_TRUE(has(mine, 1)); });
    // The waiter has the head by then, and waits for that process instead of fetching too.
    await([&] { return server_->calls("getrange") >= 1; });
    EXPECT_TRUE(succeeds(staged->commit()));
    waiter.join();
    EXPECT_EQ(tier_stats(mine).hits, 0U);
    EXPECT_EQ(mine.stats().committed, 1U);
}

TEST_F(SecondTierTest, WithoutRoomInTheFirstTierAFetchIsACountedMiss) {
    Store here = make_machine();
    Store there = make_machine(options(), 1 << 20U);
    ASSERT_TRUE(succeeds(put(here, 1, 100'000)));
    ASSERT_TRUE(succeeds(put(here, 2, 2 << 20U)));
    Result<StoreReservation> full = first_of(there).reserve("full", (1 << 20U) - 4096);
    ASSERT_TRUE(succeeds(full));
    EXPECT_TRUE(lacks(there, 1));
    EXPECT_EQ(tier_stats(there).no_room, 1U);
    EXPECT_NE(tier_stats(there).last_error.find("no room"), std::string::npos);
    full->abort();
    EXPECT_TRUE(has(there, 1, 100'000));
    EXPECT_TRUE(lacks(there, 2));
    EXPECT_EQ(tier_stats(there).no_room, 2U);
    EXPECT_NE(tier_stats(there).last_error.find("larger than the first tier"), std::string::npos);
    EXPECT_EQ(tier_stats(there).misses, 0U) << "the second tier has both";
    EXPECT_TRUE(first_of(there).contains(key_of(1)))
        << "nothing was evicted for a value that can't fit";
}

TEST_F(SecondTierTest, ADeadProcessThatWasFetchingIsNotWaitedFor) {
    Store here = make_machine();
    const std::string name = new_name();
    Store mine = make_machine(name);
    ASSERT_TRUE(succeeds(put(here, 1, 100'000)));
    Child fetcher([&] {
        Store other = Store::attach(name);
        const Result<StoreReservation> staged = other.reserve(key_of(1), 100'000);
        if (staged) ::raise(SIGKILL);
    });
    EXPECT_EQ(fetcher.wait(), killed_by(SIGKILL));
    EXPECT_TRUE(has(mine, 1, 100'000));
    EXPECT_EQ(tier_stats(mine).hits, 1U);
}

// A caller's check of a fetched value: a refused value stays invisible to other readers.
TEST_F(SecondTierTest, AFetcherMayRefuseAValueBeforeOthersSeeIt) {
    Store here = make_machine();
    SecondTierOptions deleting = options();
    deleting.delete_corrupt = true;
    Store there = make_machine(deleting);
    ASSERT_TRUE(succeeds(put(here, 1, 100'000)));
    const auto answer = [&](FetchResult::Kind kind) {
        const FetchCheck check = [&](const FetchedValue& value) -> FetchResult {
            EXPECT_TRUE(is_value(value.bytes, 1, 100'000));
            EXPECT_FALSE(first_of(there).contains(key_of(1)));
            return {kind, "so it said"};
        };
        return there.get(key_of(1), {}, &check);
    };
    EXPECT_TRUE(fails(answer(FetchResult::Kind::Cancelled), ErrorCode::Cancelled, {"so it said"}));
    EXPECT_EQ(tier_stats(there).misses, 0U);
    EXPECT_TRUE(fails(answer(FetchResult::Kind::Incompatible), ErrorCode::NotFound));
    EXPECT_EQ(tier_stats(there).incompatible, 1U);
    EXPECT_NE(tier_stats(there).last_error.find("so it said"), std::string::npos);
    EXPECT_TRUE(succeeds(answer(FetchResult::Kind::Accept)));
    ASSERT_TRUE(succeeds(first_of(there).remove(key_of(1))));
    EXPECT_TRUE(fails(answer(FetchResult::Kind::Corrupt), ErrorCode::NotFound));
    EXPECT_EQ(tier_stats(there).corrupt, 1U);
    EXPECT_EQ(there.stats().staged, 0U);
    EXPECT_TRUE(server_->keys().empty()) << "it was deleted";
}

// ---- every call of a Store

TEST_F(SecondTierTest, BatchesPrefixesAndLooksGoThrough) {
    Store here = make_machine();
    Store there = make_machine();
    ASSERT_TRUE(succeeds(put(here, 1)));
    ASSERT_TRUE(succeeds(put(here, 2, 100'000)));
    EXPECT_EQ(there.look(key_of(2)).state, StoreLook::State::Remote);
    EXPECT_EQ(there.look(key_of(2)).nbytes, 100'000U);
    EXPECT_EQ(there.look(key_of(2), Deadline::now()).state, StoreLook::State::Miss);
    EXPECT_EQ(there.look(key_of(9)).state, StoreLook::State::Miss);
    const std::vector<std::string> keys{key_of(1), key_of(2), key_of(9), key_of(1)};
    const std::vector<std::string_view> wanted(keys.begin(), keys.end());
    const auto found = there.get_many(wanted, true);
    ASSERT_EQ(found.size(), 3U);
    EXPECT_TRUE(is_value(found[0]->bytes(), 1, 1000));
    EXPECT_TRUE(is_value(found[1]->bytes(), 2, 100'000));
    EXPECT_EQ(found[2].code(), ErrorCode::NotFound);
    EXPECT_EQ(there.look(key_of(2)).state, StoreLook::State::Hit);
    const std::vector<StoreRequest> requests{{"r1", 10}, {"r2", 10}};
    for (auto& room : here.reserve_many(requests)) ASSERT_TRUE(succeeds(room->commit()));
    EXPECT_TRUE(there.contains("r1") && there.contains("r2"));
}

TEST_F(SecondTierTest, KeysAreThoseOfBothTiers) {
    SecondTierOptions odd = options();
    odd.prefix = "a*[b]?\\:";
    SecondTierOptions other = options();
    other.prefix = "axb:";
    Store here = make_machine(odd);
    Store apart = make_machine(other);
    Store there = make_machine(odd);
    std::set<std::string> all;
    for (std::uint64_t i = 0; i < 2500; ++i) {
        ASSERT_TRUE(succeeds(put(i < 2400 ? here : apart, i, 10)));
        if (i < 2400) all.insert(key_of(i));
    }
    EXPECT_TRUE(has(there, 7, 10));
    Store reader = make_machine([&] {
        SecondTierOptions reading = odd;
        reading.policy = TierPolicy::ReadOnly;
        return reading;
    }());
    ASSERT_TRUE(succeeds(put(reader, 5000)));
    all.insert(key_of(5000));
    const std::vector<std::string> keys = reader.keys();
    EXPECT_EQ(keys.size(), all.size()) << "each once";
    EXPECT_EQ(std::set<std::string>(keys.begin(), keys.end()), all);
    EXPECT_EQ(reader.keys(Deadline::now()), Words{key_of(5000)});
    server_->kill();
    EXPECT_TRUE(refuses(ErrorCode::PeerDied, [&] { static_cast<void>(reader.keys()); }));
}

TEST_F(SecondTierTest, AWaitSeesAnotherMachinesObject) {
    Store here = make_machine();
    Store there = make_machine();
    std::thread waiter([&] {
        Result<StoreObject> object = there.wait(key_of(1), kLong);
        ASSERT_TRUE(succeeds(object));
        EXPECT_TRUE(is_value(object->bytes(), 1, 1000));
    });
    await([&] { return tier_stats(there).misses > 1; });
    ASSERT_TRUE(succeeds(put(here, 1)));
    waiter.join();
    EXPECT_TRUE(fails(there.wait(key_of(2), 10ms), ErrorCode::Timeout));
    EXPECT_TRUE(fails(there.wait(key_of(2), Deadline::now()), ErrorCode::Timeout));
}

TEST_F(SecondTierTest, ATouchReachesEveryPart) {
    SecondTierOptions parted = options();
    parted.part_bytes = 100'000;
    Store here = make_machine(parted);
    Store there = make_machine(parted);
    ASSERT_TRUE(succeeds(put(here, 1, 250'000)));
    const std::uint64_t touched = server_->calls("touch");
    EXPECT_TRUE(there.touch(key_of(1)));
    EXPECT_EQ(server_->calls("touch"), touched + 2) << "the head, and all its parts";
    EXPECT_FALSE(there.touch(key_of(2)));
    EXPECT_FALSE(there.touch(key_of(1), Deadline::now())) << "the first tier has it not";
    server_->kill();
    EXPECT_TRUE(here.touch(key_of(1))) << "the first tier has it";
}

// A fetch under way does not bring back an object that is removed meanwhile.
TEST_F(SecondTierTest, AnObjectRemovedDuringItsFetchStaysRemoved) {
    Store here = make_machine();
    Store there = make_machine();
    ASSERT_TRUE(succeeds(put(here, 1, 100'000)));
    // At the check the value is complete, and not committed.
    const FetchCheck check = [&](const FetchedValue&) -> FetchResult {
        std::thread([&] { EXPECT_TRUE(succeeds(there.remove(key_of(1)))); }).join();
        return {};
    };
    EXPECT_TRUE(fails(there.get(key_of(1), {}, &check), ErrorCode::NotFound));
    EXPECT_TRUE(server_->keys().empty());
    EXPECT_TRUE(lacks(there, 1));
    EXPECT_EQ(there.stats().staged, 0U);
    ASSERT_TRUE(succeeds(put(there, 1)));
    EXPECT_TRUE(has(there, 1)) << "a later put stays";
}

TEST_F(SecondTierTest, AThreadDoesNotWaitForItsOwnFetch) {
    Store here = make_machine();
    Store there = make_machine();
    ASSERT_TRUE(succeeds(put(here, 1)));
    ASSERT_TRUE(succeeds(put(here, 2)));
    const FetchCheck check = [&](const FetchedValue&) -> FetchResult {
        EXPECT_TRUE(fails(there.get(key_of(1)), ErrorCode::Busy, {"this thread"}));
        EXPECT_TRUE(has(there, 2)) << "another it may fetch";
        return {};
    };
    EXPECT_TRUE(succeeds(there.get(key_of(1), {}, &check)));
    EXPECT_TRUE(has(there, 1));
}

// Prompt answers do not keep a cancellation from being noticed.
TEST_F(SecondTierTest, ManyShortRequestsCanBeCancelled) {
    Store store = make_machine();
    Cancel cancel;
    Wait wait;
    wait.cancel = &cancel;
    std::vector<std::string> names(20'000);
    for (std::size_t i = 0; i < names.size(); ++i) names[i] = "none-" + std::to_string(i);
    const std::vector<std::string_view> keys(names.begin(), names.end());
    std::thread stopper([&] {
        await([&] { return tier_stats(store).misses > 10; });
        cancel.cancel();
    });
    const auto outcomes = store.get_many(keys, false, wait);
    stopper.join();
    ASSERT_EQ(outcomes.size(), keys.size());
    EXPECT_EQ(outcomes.back().code(), ErrorCode::Cancelled);
    EXPECT_LT(tier_stats(store).misses, keys.size());
    EXPECT_TRUE(refuses(ErrorCode::Cancelled, [&] { static_cast<void>(store.keys(wait)); }));
    Wait interrupted;
    interrupted.interrupted = [](void*) noexcept { return true; };
    EXPECT_EQ(store.get_many(keys, false, interrupted).back().code(), ErrorCode::Cancelled);
}

// ---- damaged values

class DamageTest : public TierTest {
protected:
    // A second machine's statistics after a look-up of object 1, spoiled by `damage`.
    template <typename Damage>
    TierStats read_after(std::size_t size, Damage&& damage, bool deletes = false) {
        Store here = make_machine();
        EXPECT_TRUE(succeeds(put(here, 1, size)));
        damage();
        SecondTierOptions wanted = options();
        wanted.delete_corrupt = deletes;
        Store there = make_machine(wanted);
        EXPECT_TRUE(lacks(there, 1));
        EXPECT_EQ(there.stats().staged, 0U) << "nothing stays reserved";
        EXPECT_EQ(tier_stats(there).hits, 0U);
        EXPECT_EQ(tier_stats(there).misses, 1U);
        EXPECT_EQ(tier_stats(there).circuit, CircuitState::Closed);
        return tier_stats(there);
    }
    void overwrite(const std::string& name, std::size_t at, const std::string& text) {
        server_->say({"SETRANGE", name, std::to_string(at), text});
    }
    [[nodiscard]] std::string a_part() const { return server_->keys("penstock:p:").front(); }
};

TEST_F(DamageTest, EveryByteOfASmallValueIsGuarded) {
    constexpr std::size_t kSize = 40;
    Store here = make_machine();
    ASSERT_TRUE(succeeds(put(here, 1, kSize)));
    Store there = make_machine();
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
    const TierStats stats = tier_stats(there);
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
    Store here = make_machine();
    for (const std::uint64_t part_bytes : {std::uint64_t{900'000}, detail::kPartLeast}) {
        SecondTierOptions parted = options();
        parted.part_bytes = part_bytes;
        Store writer = make_machine(parted);
        ASSERT_TRUE(succeeds(put(writer, 1, 900'000)));
        for (const bool is_last : {false, true}) {
            const std::vector<std::string> parts = server_->keys("penstock:p:");
            if (parts.empty()) break;
            server_->say({"DEL", is_last ? parts.back() : parts.front()});
            Store there = make_machine(options(TierPolicy::ReadOnly), 1 << 20U);
            for (std::uint64_t i = 10; i < 25; ++i) ASSERT_TRUE(succeeds(put(there, i, 60'000)));
            ASSERT_EQ(there.stats().evicted, 0U);
            EXPECT_TRUE(lacks(there, 1));
            EXPECT_EQ(tier_stats(there).misses, 1U);
            EXPECT_EQ(there.stats().evicted, 0U);
            EXPECT_EQ(there.stats().aborted, 0U) << "no room was ever taken";
        }
        ASSERT_TRUE(succeeds(writer.remove(key_of(1))));
    }
}

// Parts are removed 256 to a request: a hostile head may name a million.
TEST_F(DamageTest, RemovingManyPartsTakesFewRequests) {
    constexpr std::uint64_t kParts = 20'000;
    detail::ValueHead head;
    head.part_bytes = detail::kPartLeast;
    head.nbytes = kParts * head.part_bytes;
    server_->say({"SET", head_of(1), detail::encode_head(head, {}, key_of(1))});
    const std::string last = detail::part_name("penstock:", key_of(1), head, kParts - 1);
    server_->say({"SET", last, "x"});
    Store store = make_machine();
    EXPECT_TRUE(succeeds(store.remove(key_of(1))));
    EXPECT_TRUE(server_->keys().empty());
    EXPECT_LT(server_->calls("unlink"), kParts / 100);
}

TEST_F(DamageTest, AValueOfAnotherKeyIsAMiss) {
    Store here = make_machine();
    Store there = make_machine();
    ASSERT_TRUE(succeeds(put(here, 1)));
    server_->say({"SET", head_of(5), server_->say({"GET", head_of(1)}).text});
    EXPECT_TRUE(has(there, 1)) << "under its own name it is sound";
    EXPECT_TRUE(lacks(there, 5));
    EXPECT_EQ(tier_stats(there).corrupt, 1U);
}

TEST_F(DamageTest, AValueOfAnotherTypeIsAMiss) {
    Store store = make_machine();
    server_->say({"LPUSH", head_of(1), "x"});
    EXPECT_TRUE(lacks(store, 1));
    EXPECT_EQ(tier_stats(store).errors, 1U);
    EXPECT_EQ(tier_stats(store).circuit, CircuitState::Closed);
    EXPECT_NE(tier_stats(store).last_error.find("WRONGTYPE"), std::string::npos);
}

TEST_F(DamageTest, AValueWithoutEndIsAMiss) {
    Store store = make_machine();
    server_->say({"SETRANGE", head_of(1), "20000000", "x"});
    EXPECT_TRUE(lacks(store, 1));
    EXPECT_EQ(tier_stats(store).corrupt, 1U);
    EXPECT_EQ(tier_stats(store).circuit, CircuitState::Closed);
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
    read_after(1000, [&] { overwrite(head_of(1), 8, "\x03"); }, true);
    EXPECT_EQ(server_->keys().size(), 1U);
}

// ---- set-up

TEST_F(SecondTierTest, ARefusedConstructionLeavesNoStore) {
    RedisServer guarded({"--requirepass", "secret"});
    const std::string name = new_name();
    StoreOptions first = small_store();
    first.persistent = true;
    first.second_tier = options();
    const auto refused = [&](ErrorCode code, const std::string& url) {
        first.second_tier->urls = {url};
        return refuses(code, [&] { Store::create(name, first); });
    };
    EXPECT_TRUE(refused(ErrorCode::PermissionDenied, guarded.url()));
    EXPECT_TRUE(refused(ErrorCode::InvalidArgument, "http://host"));
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [&] { Store::attach(name); }));
    Store plain = Store::create(name, small_store());
    ASSERT_TRUE(succeeds(put(plain, 1)));
    const auto attach = [&] { return Store::attach(name, {}, {}, {}, first.second_tier); };
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, attach));
    EXPECT_TRUE(has(plain, 1)) << "whose it is goes on";
    first.second_tier->urls = {server_->url()};
    Store store = attach();
    EXPECT_TRUE(has(store, 1));
    EXPECT_FALSE(plain.stats().second_tier) << "it is a handle's";
}

// The trial of a hanging server can be cancelled, and then leaves no store.
TEST_F(SecondTierTest, WhoOpensItCanStopWaiting) {
    server_->stop();
    const std::string name = new_name();
    StoreOptions first = small_store();
    first.persistent = true;
    first.second_tier = options();
    first.memory.wait.interrupted = [](void*) noexcept { return true; };
    EXPECT_TRUE(refuses(ErrorCode::Cancelled, [&] { Store::create(name, first); }));
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [&] { Store::attach(name); }));
    Store plain = Store::create(name, small_store());
    Cancel cancel;
    cancel.cancel();
    Wait wait;
    wait.cancel = &cancel;
    const auto attach = [&](const Wait& until) {
        return Store::attach(name, until, {}, {}, options());
    };
    EXPECT_TRUE(refuses(ErrorCode::Cancelled, [&] { attach(wait); }));
    Store late = attach(10ms);
    EXPECT_EQ(tier_stats(late).circuit, CircuitState::Open) << "an outage, which may end";
    server_->resume();
    await([&] { return tier_stats(late).circuit == CircuitState::Closed; });
}

TEST_F(SecondTierTest, AServersPasswordIsRequired) {
    RedisServer guarded({"--requirepass", "secret"});
    SecondTierOptions wanted = options();
    wanted.urls = {guarded.url()};
    EXPECT_TRUE(refuses(ErrorCode::PermissionDenied, [&] { make_machine(wanted); }, {"NOAUTH"}));
    wanted.urls = {"unix://:secret@" + guarded.endpoint().path};
    Store store = make_machine(wanted);
    EXPECT_TRUE(succeeds(put(store, 1)));
}

TEST_F(SecondTierTest, AWrongPasswordIsReportedAtOnce) {
    const std::uint16_t port = free_port();
    RedisServer guarded(port, {"--requirepass", "open:se@same"});
    const std::string place = "127.0.0.1:" + std::to_string(port);
    SecondTierOptions wanted = options();
    wanted.urls = {"redis://:wrong@" + place};
    EXPECT_TRUE(
        refuses(ErrorCode::PermissionDenied, [&] { make_machine(wanted); }, {place, "WRONGPASS"}));
    wanted.urls = {"redis://default:open%3ase%40same@" + place + "/2"};
    Store store = make_machine(wanted);
    EXPECT_TRUE(succeeds(put(store, 1)));
    wanted.urls = {"redis://:open%3Ase%40same@" + place + "/2"};
    Store other = make_machine(wanted);
    EXPECT_TRUE(has(other, 1));
}

TEST_F(SecondTierTest, ImpossibleOptionsAreRefused) {
    const auto refused = [&](auto&& change) {
        SecondTierOptions wanted = options();
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
    EXPECT_TRUE(refused([](auto& wanted) { wanted.urls = {"redis+cluster://host/1"}; }));
}

TEST_F(SecondTierTest, AClosedHandleReportsClosed) {
    Store store = make_machine();
    ASSERT_TRUE(succeeds(put(store, 1)));
    Result<StoreReservation> staged = store.reserve(key_of(2), 10);
    ASSERT_TRUE(succeeds(staged));
    EXPECT_TRUE(store.close().is_nothing());
    EXPECT_FALSE(store.is_open());
    EXPECT_TRUE(fails(store.get(key_of(1)), ErrorCode::Closed));
    EXPECT_TRUE(fails(put(store, 3), ErrorCode::Closed));
    EXPECT_FALSE(store.contains(key_of(1)));
    // The reservation outlives the handle; its commit reports where the object is missing.
    EXPECT_TRUE(fails(staged->commit(), ErrorCode::Cancelled));
}

TEST_F(SecondTierTest, AFinishedHandleStillHasItsFirstTier) {
    Store store = make_machine(options(TierPolicy::WriteBack));
    ASSERT_TRUE(succeeds(put(store, 1)));
    EXPECT_TRUE(store.finish(kLong).is_nothing());
    EXPECT_EQ(server_->keys(), Words{head_of(1)});
    EXPECT_TRUE(has(store, 1));
    EXPECT_TRUE(fails(store.get(key_of(2)), ErrorCode::Cancelled));
    EXPECT_TRUE(fails(put(store, 3), ErrorCode::Closed)) << "the second tier will never have it";
    EXPECT_TRUE(has(store, 3));
    EXPECT_EQ(tier_stats(store).dropped, 1U);
    EXPECT_EQ(store.finish(kLong).dropped, 1U);
}

TEST_F(SecondTierTest, AForkedChildIsRefused) {
    Store store = make_machine(options(TierPolicy::WriteBack));
    ASSERT_TRUE(succeeds(put(store, 1)));
    Child child([&] {
        require(store.get(key_of(1)).code() == ErrorCode::WrongProcess);
        require(put(store, 2).code() == ErrorCode::WrongProcess);
        require(store.remove(key_of(1)).code() == ErrorCode::WrongProcess);
        require(!store.contains(key_of(1)));
        require(store.flush().is_nothing());
        require(store.look(key_of(1)).state == StoreLook::State::Miss);
        require(!store.touch(key_of(1)));
        Store gone = std::move(store);  // ends here without waiting for a thread
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_TRUE(store.flush(kLong).is_nothing());
    EXPECT_TRUE(has(store, 1));
}

}  // namespace
}  // namespace penstock

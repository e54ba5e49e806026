// A Store after a death: staged objects are gone, pins are released, and the memory is there for
// the next caller that needs it.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <ctime>
#include <memory>
#include <random>
#include <string>
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

// A process that attaches, runs `deed`, keeps its result, and sleeps.
class Doomed {
public:
    template <typename Deed>
    Doomed(const std::string& name, Deed deed)
        : child_([this, name, deed] {
              Store store = Store::attach(name);
              [[maybe_unused]] const auto kept = deed(store);
              ready_.open();
              for (;;) ::pause();
          }) {
        ready_.pass();
    }
    void kill() const { child_.kill_unreaped(); }
    void stop() const { child_.stop(); }

private:
    Gate ready_;
    Child child_;
};

TEST_F(StoreTest, TheMemoryOfADeadWriterIsReused) {
    Store store = Store::create(name_, small_store(Eviction::None));
    const Doomed writer(name_, [](Store& its) { return its.reserve("kv", 900'000); });
    EXPECT_TRUE(fails(store.reserve("other", 900'000), ErrorCode::NoSpace));
    EXPECT_TRUE(fails(store.reserve("kv", 10), ErrorCode::Busy));
    writer.kill();
    EXPECT_TRUE(succeeds(store.reserve("other", 900'000)));
    EXPECT_TRUE(succeeds(store.put("kv", make_value(1, 10))));
    EXPECT_EQ(store.stats().deaths, 1U);
    store.clear();
    EXPECT_TRUE(test::is_empty(store));
}

TEST_F(StoreTest, TheKeyOfADeadWriterIsFree) {
    Store store = Store::create(name_, small_store());
    const Doomed writer(name_, [](Store& its) { return its.reserve("kv", 100); });
    writer.kill();
    EXPECT_TRUE(succeeds(store.put("kv", make_value(1, 100)))) << "not reaped before";
}

TEST_F(StoreTest, ThePinsOfADeadReaderAreGone) {
    Store store = Store::create(name_, small_store());
    put(store, 1, 900'000).or_throw();
    const Doomed reader(name_, [](Store& its) { return its.get(key_of(1)); });
    EXPECT_TRUE(fails(put(store, 2, 900'000), ErrorCode::NoSpace));
    reader.kill();
    EXPECT_TRUE(succeeds(put(store, 2, 900'000)));
    EXPECT_EQ(store.stats().in_use, 0U);
}

TEST_F(StoreTest, ADoomedObjectGoesWithItsDeadReader) {
    Store store = Store::create(name_, small_store());
    put(store, 1, 900'000).or_throw();
    const Doomed reader(name_, [](Store& its) { return its.get(key_of(1)); });
    store.remove(key_of(1)).or_throw();
    EXPECT_EQ(store.stats().doomed, 1U);
    reader.kill();
    store.reap_dead();
    EXPECT_TRUE(test::is_empty(store));
}

TEST_F(StoreTest, AStoppedProcessKeepsItsPinAndItsReservation) {
    Store store = Store::create(name_, small_store());
    put(store, 1, 400'000).or_throw();
    const Doomed both(name_, [](Store& its) {
        auto held = its.get(key_of(1));
        return std::pair(std::move(held), its.reserve("kv", 400'000));
    });
    both.stop();
    EXPECT_TRUE(fails(put(store, 2, 400'000), ErrorCode::NoSpace));
    EXPECT_TRUE(fails(store.reserve("kv", 10), ErrorCode::Busy));
    EXPECT_TRUE(succeeds(put(store, 3, 10'000))) << "and blocks none that has room";
}

TEST_F(StoreTest, ASuccessorInADeadSlotStartsClean) {
    StoreOptions options = small_store();
    options.participants = 2;
    Store store = Store::create(name_, options);
    put(store, 1, 1000).or_throw();
    const Doomed first(name_, [](Store& its) {
        auto held = its.get(key_of(1));
        return std::pair(std::move(held), its.reserve("kv", 400'000));
    });
    EXPECT_TRUE(refuses(ErrorCode::Busy, [&] { Store::attach(name_); }));
    first.kill();
    Store second = Store::attach(name_);
    EXPECT_EQ(store.stats().in_use, 0U);
    EXPECT_EQ(store.stats().staged, 0U);
    EXPECT_TRUE(succeeds(second.put("kv", make_value(1, 10))));
}

// A janitor that begins on command and stops at a crash point.
class SlowJanitor {
public:
    // `deed(await_order)`: runs steps before and after the command.
    template <typename Deed>
    SlowJanitor(const std::string& point, const Deed& deed)
        : child_([this, point, deed] {
              deed([&] {
                  is_ready_.open();
                  may_begin_.pass();
                  os::arm_crash_point((point + ":1:stop").c_str());
              });
              for (;;) ::pause();
          }) {
        is_ready_.pass();
    }
    ~SlowJanitor() {
        if (helper_.joinable()) helper_.join();
    }
    void begin() const {
        may_begin_.open();
        child_.await_stop();
    }
    // Resumes well within the time for which others wait.
    void resume_soon() {
        helper_ = std::thread([this] {
            std::this_thread::sleep_for(10ms);
            child_.resume();
        });
    }
    void kill() const { child_.kill_unreaped(); }

private:
    Gate is_ready_;
    Gate may_begin_;
    Child child_;
    std::thread helper_;
};

// A participant that becomes a janitor.
SlowJanitor member_stopped_at(const std::string& point, const std::string& name) {
    return {point, [name](auto&& await_order) {
                Store own = Store::attach(name);
                await_order();
                own.reap_dead();
            }};
}

// The call succeeds, unless the janitor, on a busy machine, took longer than the patience: then the
// call waited at least that long.
template <typename Call>
testing::AssertionResult waits_for_a_janitor(Call&& call) {
    constexpr auto kPatience = 50ms;
    const auto before = std::chrono::steady_clock::now();
    const auto outcome = succeeds(std::forward<Call>(call)());
    if (outcome || std::chrono::steady_clock::now() - before >= kPatience) {
        return testing::AssertionSuccess();
    }
    return outcome;
}

TEST_F(StoreTest, ARunningJanitorsMemoryIsWaitedFor) {
    for (const char* point : {"membership.reap.locked", "store.janitor.finished"}) {
        SCOPED_TRACE(point);
        const std::string name = name_ + point;
        Store store = Store::create(name, small_store(Eviction::None));
        const Doomed writer(name, [](Store& its) { return its.reserve("kv", 900'000); });
        SlowJanitor janitor = member_stopped_at(point, name);
        writer.kill();
        janitor.begin();
        janitor.resume_soon();
        EXPECT_TRUE(waits_for_a_janitor([&] { return store.reserve("other", 900'000); }));
    }
}

TEST_F(StoreTest, ARunningJanitorsKeyIsWaitedFor) {
    Store store = Store::create(name_, small_store());
    const Doomed writer(name_, [](Store& its) { return its.reserve("kv", 100); });
    SlowJanitor janitor = member_stopped_at("store.janitor.finished", name_);
    writer.kill();
    janitor.begin();
    janitor.resume_soon();
    EXPECT_TRUE(waits_for_a_janitor([&] { return store.put("kv", make_value(1, 100)); }));
}

TEST_F(StoreTest, ARunningJanitorsSlotIsWaitedFor) {
    StoreOptions options = small_store();
    options.participants = 3;
    Store store = Store::create(name_, options);
    const Doomed writer(name_, [](Store& its) { return its.reserve("kv", 100); });
    SlowJanitor janitor = member_stopped_at("store.janitor.finished", name_);
    EXPECT_TRUE(refuses(ErrorCode::Busy, [&] { Store::attach(name_); }));
    writer.kill();
    janitor.begin();
    janitor.resume_soon();
    EXPECT_TRUE(waits_for_a_janitor([&]() -> Status {
        try {
            Store::attach(name_);
            return Status::ok();
        } catch (const Error& error) {
            return {error.code(), error.what()};
        }
    }));
}

// An attach in a dead participant's slot reaps it first.
TEST_F(StoreTest, TheMemoryThatASuccessorReapsIsWaitedFor) {
    for (const char* point : {"membership.join.locked", "store.janitor.finished"}) {
        SCOPED_TRACE(point);
        const std::string name = name_ + point;
        Store store = Store::create(name, small_store(Eviction::None));
        const Doomed writer(name, [](Store& its) { return its.reserve("kv", 900'000); });
        SlowJanitor successor(point, [name](auto&& await_order) {
            await_order();
            Store::attach(name);
        });
        writer.kill();
        successor.begin();
        successor.resume_soon();
        EXPECT_TRUE(waits_for_a_janitor([&] { return store.reserve("other", 900'000); }));
    }
}

// The janitor has made the dead participant's entry its own, in a slot that the waiter has already
// looked at.
TEST_F(StoreTest, TheMemoryOfTheDeadIsFreedWhenItsJanitorDiesToo) {
    Store store = Store::create(name_, small_store(Eviction::None));
    SlowJanitor janitor = member_stopped_at("store.janitor.freeing", name_);
    const Doomed writer(name_, [](Store& its) { return its.reserve("kv", 900'000); });
    Gate is_ready;
    Gate may_begin;
    Child next([&] {
        Store own = Store::attach(name_);
        is_ready.open();
        may_begin.pass();
        os::arm_crash_point("membership.janitor.awaited:1:stop");
        own.reserve("other", 900'000).or_throw();
    });
    is_ready.pass();
    writer.kill();
    janitor.begin();
    may_begin.open();
    next.await_stop();
    janitor.kill();
    next.resume();
    EXPECT_EQ(next.wait(), 0);
}

TEST_F(StoreTest, WaitingForAJanitorUsesNoProcessorTime) {
    const auto processor_time = [] {
        timespec used{};
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
        return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
    };
    Store store = Store::create(name_, small_store());
    const Doomed writer(name_, [](Store& its) { return its.reserve("kv", 100); });
    const SlowJanitor janitor = member_stopped_at("store.janitor.finished", name_);
    writer.kill();
    janitor.begin();
    const auto before = processor_time();
    store.reap_dead();
    EXPECT_LT(processor_time() - before, 15ms) << "of the 50 that it waits";
}

// A wait for a key looks again anyway, and needs nothing that the dead participant held.
TEST_F(StoreTest, AStoppedJanitorDelaysNoWaitBeyondItsDeadline) {
    Store store = Store::create(name_, small_store());
    Store second = Store::attach(name_);
    Store third = Store::attach(name_);
    const Doomed writer(name_, [](Store& its) { return its.reserve("kv", 100); });
    const SlowJanitor janitor = member_stopped_at("store.janitor.finished", name_);
    writer.kill();
    janitor.begin();
    auto least = std::chrono::steady_clock::duration::max();
    for (Store* one : {&store, &second, &third}) {
        const auto before = std::chrono::steady_clock::now();
        EXPECT_TRUE(fails(one->wait("kv", Deadline::now()), ErrorCode::Timeout));
        least = std::min(least, std::chrono::steady_clock::now() - before);
    }
    EXPECT_LT(least, 40ms);
}

TEST_F(StoreTest, AJanitorThatDiedWhenDoneIsNotWaitedFor) {
    Store store = Store::create(name_, small_store());
    Store second = Store::attach(name_);
    Store third = Store::attach(name_);
    const Doomed writer(name_, [](Store& its) { return its.reserve("kv", 100); });
    Gate is_ready;
    Gate may_begin;
    Child janitor([&] {
        Store own = Store::attach(name_);
        is_ready.open();
        may_begin.pass();
        os::arm_crash_point("participants.retire.free:1:kill");
        own.reap_dead();
    });
    is_ready.pass();
    writer.kill();
    may_begin.open();
    EXPECT_EQ(janitor.wait(), killed_by(SIGKILL));
    auto least = std::chrono::steady_clock::duration::max();
    for (Store* one : {&store, &second, &third}) {
        const auto before = std::chrono::steady_clock::now();
        one->reap_dead();
        least = std::min(least, std::chrono::steady_clock::now() - before);
    }
    EXPECT_LT(least, 40ms);
}

// Of the 32 entries near the key 31 are staged; the only one that can be evicted is being evicted
// by a stopped process.
TEST_F(StoreTest, AStoppedEvictorBlocksNoEntry) {
    StoreOptions options = small_store();
    options.objects = 16;  // 32 entries: all of them are near every key
    Store store = Store::create(name_, options);
    put(store, 1).or_throw();
    std::vector<StoreReservation> staged;
    for (std::uint64_t number = 2; number <= 32; ++number) {
        staged.push_back(store.reserve(key_of(number), 100).or_throw());
    }
    const Child evictor([&] {
        Store own = Store::attach(name_);
        os::arm_crash_point("store.evict.evicting:1:stop");
        put(own, 33).or_throw();
    });
    evictor.await_stop();
    EXPECT_TRUE(succeeds(put(store, 34)));
    EXPECT_TRUE(has(store, 34));
}

// A trim takes the free memory in parts, also in a small store.
TEST_F(StoreTest, AStoppedTrimmerBlocksLittleMemory) {
    Store store = Store::create(name_, small_store());
    put(store, 1, 900'000).or_throw();
    store.remove(key_of(1)).or_throw();
    const Child trimmer([&] {
        Store own = Store::attach(name_);
        os::arm_crash_point("heap.trim.taken:1:stop");
        own.trim();
    });
    trimmer.await_stop();
    EXPECT_TRUE(succeeds(put(store, 2, 800'000)));
}

// The position of a block is read from shared memory once: a later overwrite has no effect.
TEST_F(StoreTest, AnOverwrittenNameLeadsNoWriterOutOfTheMapping) {
    Store store = Store::create(name_, small_store());
    Child writer([&] {
        Store own = Store::attach(name_);
        os::arm_crash_point("store.reserve.allocated:1:stop");
        static_cast<void>(put(own, 1, 900'000).is_ok());
    });
    writer.await_stop();
    {
        detail::Visit visit(name_);
        const detail::StoreShape shape = detail::store_shape_of(visit.header());
        const detail::StoreView view(shape, visit.control());
        // The last granule claims to be a block, and every name points at it.
        constexpr std::uint64_t kUsedOfOne = 1U | 1023U << 2U | 1U << 12U;
        const std::uint32_t last = shape.heap.granules;
        reinterpret_cast<layout::Word*>(view.heap_control())[last - 1].store(kUsedOfOne);
        for (std::uint32_t entry = 0; entry < shape.entries(); ++entry) {
            if (view.entry(entry).block.load() != 0) view.entry(entry).block.store(last);
        }
    }
    writer.resume();
    EXPECT_EQ(writer.wait(), 0);
}

// Deaths and stops at each step of each operation are in tests/crash. Here: random deaths under
// load, every hit checked, and every byte accounted for at the end.
TEST_F(StoreTest, RandomDeathsUnderPressure) {
    struct Board {
        std::atomic<std::uint64_t> turns{0};
        std::atomic<std::uint64_t> hits{0};
        std::atomic<std::uint64_t> wrong{0};
        std::atomic<bool> is_over{false};
    };
    Shared<Board> board;
    Store store = Store::create(name_, small_store());
    std::array<std::unique_ptr<Child>, 3> children;
    const auto start = [&](unsigned at) {
        children[at] = std::make_unique<Child>([&] {
            Store own = Store::attach(name_, kLong);
            std::mt19937 random(static_cast<unsigned>(::getpid()));
            std::vector<StoreObject> held;
            while (!board->is_over) {
                const std::uint64_t number = random() % 60;
                const std::size_t size = 500 + number * 700;
                if (held.size() > 3) held.erase(held.begin());
                if (random() % 20 == 0) {
                    static_cast<void>(own.remove(key_of(number)));
                } else if (auto object = own.get(key_of(number))) {
                    ++board->hits;
                    if (!is_value(object->bytes(), number, size)) ++board->wrong;
                    held.push_back(*std::move(object));
                } else {
                    static_cast<void>(put(own, number, size));
                }
                ++board->turns;
            }
        });
    };
    for (unsigned at = 0; at < children.size(); ++at) start(at);
    std::mt19937 random(3);
    for (int death = 0; death < 60; ++death) {
        const std::uint64_t before = board->turns;
        const std::uint64_t some = random() % 200;
        await([&] { return board->turns >= before + some; });
        const auto at = static_cast<unsigned>(random() % children.size());
        children[at]->send(SIGKILL);
        EXPECT_EQ(children[at]->wait(), killed_by(SIGKILL));
        start(at);
    }
    board->is_over = true;
    for (auto& child : children) EXPECT_EQ(child->wait(), 0);
    EXPECT_EQ(board->wrong, 0U);
    EXPECT_GT(board->hits, 100U);
    store.reap_dead();
    EXPECT_TRUE(adds_up(store.stats()));
    EXPECT_EQ(store.stats().in_use, 0U);
    EXPECT_EQ(store.stats().staged, 0U);
    store.clear();
    EXPECT_TRUE(test::is_empty(store));
}

}  // namespace
}  // namespace penstock

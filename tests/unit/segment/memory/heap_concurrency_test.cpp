// The heap under concurrency: no byte ever has two owners while processes allocate, free, resize,
// trim and die at the same time; the named blocks of the dead can be freed.
#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "os/crash_point.hpp"
#include "segment/memory/heap.hpp"
#include "tests/unit/segment/memory/heap_stage.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/refused_calls.hpp"

namespace penstock::detail {
namespace {

using test::Child;
using test::HeapStage;
using test::killed_by;
using test::require;
using test::Shared;

constexpr std::uint32_t kGranules = 512;
constexpr unsigned kChildren = 3;
constexpr std::uint64_t kNamesEach = 64;

// The recorded owner of each granule: see arena_concurrency_test.cpp.
struct Register {
    std::array<std::atomic<unsigned>, kGranules> owners{};
    std::atomic<std::uint64_t> turns{0};
    std::atomic<unsigned> quarrels{0};
    std::atomic<bool> is_over{false};

    void sign(HeapBlock block, unsigned who) {
        for (std::uint32_t at = 0; at < block.length; ++at) {
            if (owners[block.first + at].exchange(who) != 0) ++quarrels;
        }
    }
    void strike_out(HeapBlock block, unsigned who) {
        for (std::uint32_t at = 0; at < block.length; ++at) {
            if (owners[block.first + at].exchange(0) != who) ++quarrels;
        }
    }
    void strike_out_all(unsigned who) {
        for (auto& owner : owners) {
            unsigned expected = who;
            owner.compare_exchange_strong(expected, 0);
        }
    }
};

// Allocates, resizes and frees blocks at random under its own names.
class Customer {
public:
    Customer(HeapStage& stage, Register& book, unsigned who)
        : stage_(stage), book_(book), who_(who), random_(static_cast<unsigned>(::getpid())) {}

    void turn() {
        const std::uint64_t name = who_ * kNamesEach + random_() % kNamesEach;
        const HeapBlock block =
            stage_.heap.block_named(payload_of(stage_.words.read(stage_.name(name))));
        if (block.length == 0) {
            const std::uint64_t alignment = std::uint64_t{64} << random_() % 9;
            const HeapBlock taken = stage_.take(name, 1 + random_() % (40 * 1024), alignment);
            if (taken.length > 0) book_.sign(taken, who_);
        } else if (random_() % 3 != 0) {
            book_.strike_out(block, who_);
            require(stage_.give(name));
        } else if (random_() % 8 != 0) {
            resize(block);
        } else {
            stage_.heap.trim(who_, 0);
        }
        ++book_.turns;
    }

private:
    void resize(HeapBlock block) {
        book_.strike_out(block, who_);
        const Heap::Fit fit = stage_.heap.resize(block, 1 + random_() % (40 * 1024));
        require(fit == Heap::Fit::Found || fit == Heap::Fit::NoRun);
        book_.sign(block, who_);
    }

    HeapStage& stage_;
    Register& book_;
    unsigned who_;
    std::mt19937 random_;
};

void free_all(HeapStage& stage, unsigned who) {
    for (std::uint64_t name = who * kNamesEach; name < (who + 1) * kNamesEach; ++name) {
        if (payload_of(stage.words.read(stage.name(name))) != 0) {
            ASSERT_TRUE(stage.give(name));
        }
    }
}

TEST(HeapConcurrencyTest, NoGranuleHasTwoOwnersDespiteDeaths) {
    HeapStage stage(1024, kGranules);
    Shared<Register> book;
    std::array<std::unique_ptr<Child>, kChildren> children;
    const auto start = [&](unsigned who) {
        children[who - 1] = std::make_unique<Child>([&stage, &book, who] {
            stage.join(who);
            Customer customer(stage, *book, who);
            while (!book->is_over) customer.turn();
        });
    };
    for (unsigned who = 1; who <= kChildren; ++who) start(who);
    std::mt19937 random(11);
    for (int death = 0; death < 120; ++death) {
        const std::uint64_t before = book->turns;
        const std::uint64_t some = random() % 100;
        test::await([&] { return book->turns >= before + some; });
        const auto who = static_cast<unsigned>(1 + random() % kChildren);
        children[who - 1]->send(SIGKILL);
        ASSERT_EQ(children[who - 1]->wait(), killed_by(SIGKILL));
        // The steps of a janitor.
        stage.words.finish(who);
        book->strike_out_all(who);
        stage.heap.reap(who);
        free_all(stage, who);
        stage.heap.restore_hints();
        start(who);
    }
    book->is_over = true;
    for (auto& child : children) EXPECT_EQ(child->wait(), 0);
    EXPECT_EQ(book->quarrels, 0U);
    stage.check();
    for (unsigned who = 1; who <= kChildren; ++who) free_all(stage, who);
    stage.check();
    EXPECT_EQ(stage.heap.use().largest_free, stage.geometry().bytes());
}

// A process stopped in the middle of a change blocks nothing but the block that it is allocating.
TEST(HeapConcurrencyTest, AStoppedProcessBlocksNoOther) {
    for (const char* point : {"words.change.described:1:stop", "words.change.installed:1:stop",
                              "words.change.installed:3:stop", "words.change.decided:1:stop",
                              "words.change.replaced:1:stop", "heap.carve.carved:1:stop"}) {
        HeapStage stage(1024, kGranules);
        Child child([&] {
            stage.join(1);
            os::arm_crash_point(point);
            stage.take(0, 10 * 1024);
        });
        child.await_stop();
        std::uint64_t taken = 0;
        for (std::uint64_t name = 64; name < 64 + kGranules; ++name) {
            taken += stage.take(name, 1024).length;
        }
        EXPECT_GE(taken, kGranules - 10) << point;
        child.resume();
        EXPECT_EQ(child.wait(), 0) << point;
        stage.check();
    }
}

// Hints that the stopped process did not write to the map are found in its note.
TEST(HeapConcurrencyTest, AStoppedProcessHidesNothing) {
    constexpr std::uint32_t kMany = 64 * 64;  // 64 regions, in two levels of the map
    for (const char* point :
         {"heap.carve.carved:1:stop", "heap.map.raised:1:stop", "heap.map.raised:2:stop"}) {
        HeapStage stage(1024, kMany);
        Child child([&] {
            stage.join(1);
            os::arm_crash_point(point);
            stage.take(0, 1000 * 1024);  // the rest begins in a region of another word
        });
        child.await_stop();
        EXPECT_EQ(stage.take(1, 3096 * 1024).length, 3096U) << point;
        child.resume();
        EXPECT_EQ(child.wait(), 0) << point;
        stage.check();
    }
    for (const char* point : {"heap.free.freed:1:stop", "heap.map.raised:1:stop"}) {
        HeapStage stage(1024, kMany);
        ASSERT_GT(stage.take(0, 1000 * 1024).length, 0U);
        ASSERT_GT(stage.take(1, 1000 * 1024).length, 0U);
        ASSERT_GT(stage.take(2, 2096 * 1024).length, 0U);
        EXPECT_EQ(stage.take(3, 1024).length, 0U);
        Child child([&] {
            stage.join(1);
            os::arm_crash_point(point);
            stage.give(1);
        });
        child.await_stop();
        EXPECT_EQ(stage.take(3, 1000 * 1024).length, 1000U) << point;
        child.resume();
        EXPECT_EQ(child.wait(), 0) << point;
        stage.check();
    }
}

// A free block is in the notes before it is in the map, and leaves them after. A search that reads
// the map too early and the notes too late has to read the map again.
TEST(HeapConcurrencyTest, ABlockOnItsWayFromNotesToMapIsFound) {
    HeapStage stage(1024, kGranules);
    ASSERT_EQ(stage.take(0, std::uint64_t{kGranules} * 1024).length, kGranules);
    ASSERT_EQ(stage.take(1, 1024).length, 0U);  // the map says so from here on
    Child owner([&] {
        stage.join(1);
        os::arm_crash_point("heap.free.freed:1:stop");
        require(stage.give(0));
    });
    owner.await_stop();
    Child asker([&] {
        stage.join(2);
        os::arm_crash_point("heap.allocate.missed:1:stop");
        require(stage.take(1, 1024).length == 1);
    });
    asker.await_stop();
    owner.resume();
    EXPECT_EQ(owner.wait(), 0);
    asker.resume();
    EXPECT_EQ(asker.wait(), 0);
    stage.check();
}

// Two blocks share a chunk of memory. An allocation that fails to reserve its remainder must not
// give back the memory of the other.
TEST(HeapConcurrencyTest, AFailedReservationSparesTheMemoryOfOthers) {
    HeapStage stage(1024, 32U << 10U);
    Child first([&] {
        stage.join(1);
        os::arm_crash_point("heap.reserve.reserved:1:stop");
        require(stage.take(0, 10 * 1024).length == 10);
    });
    first.await_stop();
    Child second([&] {
        // No memory beyond the first 16 MiB.
        constexpr std::uint32_t kFar = 16U << 20U;
        if (!test::refuse_calls({{SYS_fallocate, ENOSPC, 2, kFar, kFar}})) {
            ::_exit(test::kCannotRefuse);
        }
        stage.join(2);
        require(stage.heap.allocate({20U << 20U, 64}, stage.name(1), 0).fit == Heap::Fit::NoMemory);
    });
    const int outcome = second.wait();
    first.resume();
    EXPECT_EQ(first.wait(), 0);
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "seccomp is not to be had";
    EXPECT_EQ(outcome, 0);
    EXPECT_EQ(stage.heap.use().used_bytes, 10U * 1024);
    EXPECT_GE(stage.reserved(), stage.geometry().chunk_bytes());
    stage.check();
}

// A block that was freed by its name, and allocated again meanwhile, must not be freed twice.
TEST(HeapConcurrencyTest, AFailedReservationFreesOnlyItsOwnBlock) {
    HeapStage stage(1024, kGranules);
    Child first([&] {
        if (!test::refuse_calls({test::kNoSpaceLeft})) ::_exit(test::kCannotRefuse);
        stage.join(1);
        os::arm_crash_point("heap.carve.carved:1:stop");
        const auto fit = stage.heap.allocate({10 * 1024, 64}, stage.name(0), 0).fit;
        require(fit == Heap::Fit::NameGone);
    });
    first.await_stop();
    ASSERT_TRUE(stage.give(0));
    Child second([&] {
        stage.join(2);
        os::arm_crash_point("heap.carve.carved:1:stop");
        require(stage.take(1, 10 * 1024).length == 10);
    });
    second.await_stop();
    first.resume();
    const int outcome = first.wait();
    second.resume();
    EXPECT_EQ(second.wait(), 0);
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "seccomp is not to be had";
    EXPECT_EQ(outcome, 0);
    EXPECT_EQ(stage.heap.use().used_bytes, 10U * 1024);
    stage.check();
}

}  // namespace
}  // namespace penstock::detail

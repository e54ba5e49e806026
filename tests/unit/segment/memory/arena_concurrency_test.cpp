// The arena under concurrency: no granule ever has two owners while threads and processes allocate,
// free, trim, die and reap at the same time.
#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "os/crash_point.hpp"
#include "segment/memory/arena.hpp"
#include "segment/waiting/signal.hpp"
#include "tests/unit/segment/memory/arena_stage.hpp"
#include "tests/unit/support/child.hpp"

namespace penstock::detail {
namespace {

using test::ArenaStage;
using test::Child;
using test::require;
using test::Shared;

constexpr std::uint64_t kGranule = ArenaStage::kGranule;
constexpr std::uint32_t kGranules = ArenaStage::kGranules;

// The recorded owner of each granule. An owner enters itself after an allocation and withdraws
// before it frees: two entries at once mean that the arena gave a granule to two owners.
struct Register {
    std::array<std::atomic<unsigned>, kGranules> owners{};
    std::atomic<std::uint64_t> allocations{0};
    std::atomic<unsigned> quarrels{0};
    std::atomic<unsigned> torn{0};
    std::atomic<bool> is_over{false};

    void sign(std::uint32_t granule, unsigned who) {
        if (owners[granule].exchange(who) != 0) ++quarrels;
    }
    void strike_out(std::uint32_t granule, unsigned who) {
        if (owners[granule].exchange(0) != who) ++quarrels;
    }
    // Called for a dead owner, before its blocks are reaped.
    void strike_out_all(unsigned who) {
        for (auto& owner : owners) {
            unsigned expected = who;
            owner.compare_exchange_strong(expected, 0);
        }
    }
};

std::uint64_t mark_of(unsigned who, std::uint64_t turn) {
    return (turn << 8U) | who;
}

// Allocates blocks of random sizes, writes to every granule, and finds it unchanged later.
class Customer {
public:
    Customer(Arena& arena, Register& book, unsigned who) : arena_(arena), book_(book), who_(who) {}

    void take_one() {
        const auto granules = static_cast<std::uint32_t>(1 + random_() % 7);
        const Result<BlockId> block = arena_.allocate(granules * kGranule, who_);
        if (!block) {
            require(block.code() == ErrorCode::Busy);
            return;
        }
        ++book_.allocations;
        const Taken taken{*block, granules, mark_of(who_, ++turn_)};
        for (std::uint32_t i = 0; i < granules; ++i) {
            book_.sign(block->granule + i, who_);
            store(taken, i);
        }
        taken_.push_back(taken);
    }

    void give_one_back() {
        const std::size_t at = random_() % taken_.size();
        const Taken taken = taken_[at];
        taken_[at] = taken_.back();
        taken_.pop_back();
        for (std::uint32_t i = 0; i < taken.granules; ++i) {
            if (load(taken, i) != taken.mark) ++book_.torn;
            book_.strike_out(taken.block.granule + i, who_);
        }
        arena_.free(taken.block, who_);
    }

    void do_something() {
        constexpr std::size_t kMaxTaken = 6;
        if (taken_.size() < kMaxTaken && (taken_.empty() || random_() % 2 == 0)) {
            take_one();
        } else {
            give_one_back();
        }
        if (random_() % 64 == 0) arena_.trim(who_, random_() % 8 * kGranule);
    }

    void give_all_back() {
        while (!taken_.empty()) give_one_back();
    }

private:
    struct Taken {
        BlockId block;
        std::uint32_t granules = 0;
        std::uint64_t mark = 0;
    };

    [[nodiscard]] std::atomic_ref<std::uint64_t> cell(const Taken& taken, std::uint32_t i) const {
        return std::atomic_ref(
            *reinterpret_cast<std::uint64_t*>(arena_.data(taken.block) + i * kGranule));
    }
    void store(const Taken& taken, std::uint32_t i) const { cell(taken, i) = taken.mark; }
    [[nodiscard]] std::uint64_t load(const Taken& taken, std::uint32_t i) const {
        return cell(taken, i);
    }

    Arena& arena_;
    Register& book_;
    unsigned who_;
    std::uint64_t turn_ = 0;
    std::vector<Taken> taken_;
    std::minstd_rand random_{who_};
};

class ArenaConcurrencyTest : public ::testing::Test {
protected:
    void expect_peace(std::uint64_t least_allocations) {
        EXPECT_EQ(book_->quarrels, 0U) << "granules with two owners";
        EXPECT_EQ(book_->torn, 0U) << "granules written to by another";
        EXPECT_GE(book_->allocations, least_allocations);
        EXPECT_EQ(stage_.arena.allocated_bytes(), 0U) << "leaked";
        stage_.arena.trim(1, 0);
        EXPECT_EQ(stage_.reserved(), 0U) << "memory that can't be given back";
    }

    ArenaStage stage_;
    Shared<Register> book_;
};

TEST_F(ArenaConcurrencyTest, Threads) {
    constexpr int kTurns = 30'000;
    std::vector<std::jthread> threads;
    for (unsigned who = 1; who <= 4; ++who) {
        threads.emplace_back([&, who] {
            Customer customer(stage_.arena, *book_, who);
            for (int turn = 0; turn < kTurns; ++turn) customer.do_something();
            customer.give_all_back();
        });
    }
    threads.clear();  // joins them
    expect_peace(kTurns);
}

TEST_F(ArenaConcurrencyTest, Processes) {
    constexpr int kTurns = 30'000;
    std::vector<std::unique_ptr<Child>> children;
    for (unsigned who = 1; who <= 3; ++who) {
        children.push_back(std::make_unique<Child>([&, who] {
            stage_.open();
            Customer customer(stage_.arena, *book_, who);
            for (int turn = 0; turn < kTurns; ++turn) customer.do_something();
            customer.give_all_back();
        }));
    }
    for (auto& child : children) EXPECT_EQ(child->wait(), 0);
    expect_peace(kTurns);
}

// A run that was claimed in vain and freed looked used to others, which now sleep: they are woken.
TEST_F(ArenaConcurrencyTest, AVainClaimWakesWaiters) {
    Shared<layout::SignalWord> word;
    Signal space(*word, false);
    Child late([&] {
        stage_.open();
        stage_.arena.announce_room_on(Signal(*word, false));
        os::arm_crash_point("arena.claim.head:1:stop");
        require(stage_.arena.allocate(kGranules * kGranule, 1).code() == ErrorCode::Busy);
    });
    late.await_stop();
    const Result<BlockId> behind = stage_.arena.allocate(kGranule, 2);
    ASSERT_TRUE(behind);
    EXPECT_EQ(behind->granule, 1U) << "in the way of the claim on the granule before it";
    EXPECT_EQ(stage_.arena.allocate((kGranules - 2) * kGranule + kGranule, 3).code(),
              ErrorCode::Busy);
    const std::uint32_t seen = space.announce();
    late.resume();
    EXPECT_EQ(late.wait(), 0);
    EXPECT_FALSE(space.is_standing(seen)) << "no waiter was told of granule 0";
    stage_.arena.free(*behind, 2);
    EXPECT_EQ(stage_.arena.allocated_bytes(), 0U);
}

TEST_F(ArenaConcurrencyTest, ProcessesThatAreKilled) {
    constexpr int kDeaths = 40;
    constexpr unsigned kVictim = 1;
    constexpr std::uint64_t kLifeSpan = 300;  // allocations by all
    std::vector<std::unique_ptr<Child>> survivors;
    for (unsigned who = 2; who <= 3; ++who) {
        survivors.push_back(std::make_unique<Child>([&, who] {
            stage_.open();
            Customer customer(stage_.arena, *book_, who);
            while (!book_->is_over) customer.do_something();
            customer.give_all_back();
        }));
    }
    for (int death = 0; death < kDeaths; ++death) {
        const std::uint64_t end = book_->allocations + kLifeSpan;
        Child victim([&] {
            stage_.open();
            Customer customer(stage_.arena, *book_, kVictim);
            for (;;) customer.do_something();
        });
        test::await([&] { return book_->allocations >= end; });
        victim.send(SIGKILL);
        ASSERT_EQ(victim.wait(), test::killed_by(SIGKILL));
        book_->strike_out_all(kVictim);
        stage_.arena.reap(kVictim);
    }
    book_->is_over = true;
    for (auto& child : survivors) EXPECT_EQ(child->wait(), 0);
    EXPECT_EQ(book_->quarrels, 0U) << "granules with two owners";
    EXPECT_EQ(book_->torn, 0U) << "granules written to by another";
    EXPECT_EQ(stage_.arena.allocated_bytes(), 0U) << "leaked";
}

}  // namespace
}  // namespace penstock::detail

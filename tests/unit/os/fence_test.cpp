// The asymmetric fence: of two processes that each store and then load, one with the light half and
// one with the heavy half, at least one sees the other's store.
#include "os/fence.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/unit/support/child.hpp"

namespace penstock::os {
namespace {

using test::Child;
using test::require;
using test::Shared;

// Words of two processes that meet in rounds, each on its own cache line.
struct Arena {
    alignas(128) std::atomic<int> left{0};
    alignas(128) std::atomic<int> right{0};
    alignas(128) std::atomic<int> arrived[2]{};
    alignas(128) int left_saw[1 << 15]{};
    alignas(128) int right_saw[1 << 15]{};
};

constexpr int kRounds = 1 << 15;

void meet(Arena& arena, int who, int round) {
    arena.arrived[who].store(round + 1, std::memory_order_release);
    for (int look = 0; arena.arrived[1 - who].load(std::memory_order_acquire) <= round; ++look) {
        if (look % 256 == 255) std::this_thread::yield();
    }
}

void play_light(Arena& arena) {
    for (int round = 0; round < kRounds; ++round) {
        meet(arena, 0, round);
        arena.left.store(round + 1, std::memory_order_relaxed);
        asymmetric_fence_light();
        arena.left_saw[round] = arena.right.load(std::memory_order_relaxed);
    }
}

void play_heavy(Arena& arena) {
    for (int round = 0; round < kRounds; ++round) {
        meet(arena, 1, round);
        arena.right.store(round + 1, std::memory_order_relaxed);
        asymmetric_fence_heavy();
        arena.right_saw[round] = arena.left.load(std::memory_order_relaxed);
    }
}

TEST(FenceTest, RegistersAgainAndAgain) {
    const bool first = register_asymmetric_fence();
    EXPECT_EQ(register_asymmetric_fence(), first);
}

TEST(FenceTest, NeverLetsBothSidesMissTheOther) {
    if (!register_asymmetric_fence()) GTEST_SKIP() << "no membarrier(2) here";
    const Shared<Arena> arena;
    Child child([&] {
        require(register_asymmetric_fence());
        play_light(*arena);
    });
    play_heavy(*arena);
    ASSERT_EQ(child.wait(), 0);
    int both_missed = 0;
    for (int round = 0; round < kRounds; ++round) {
        if (arena->left_saw[round] <= round && arena->right_saw[round] <= round) ++both_missed;
    }
    EXPECT_EQ(both_missed, 0) << "of " << kRounds << " rounds";
}

}  // namespace
}  // namespace penstock::os

// The map of free blocks: size classes that order lengths, and a tree that finds the first region
// that may serve.
#include "segment/memory/free_map.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <random>
#include <thread>
#include <vector>

namespace penstock::detail {
namespace {

using Random = std::mt19937;

// A number below `end`.
std::uint32_t pick(Random& random, std::uint32_t end) {
    return static_cast<std::uint32_t>(random() % end);
}

class Map {
    std::vector<std::atomic<std::uint64_t>> words_;

public:
    explicit Map(std::uint32_t regions)
        : words_(FreeMap::words_for(regions)), map(words_.data(), regions) {}
    FreeMap map;
};

TEST(SizeClassTest, ClassesGrowWithLengths) {
    SizeClass before = 0;
    for (std::uint64_t length = 1; length < 100'000; ++length) {
        const SizeClass size = class_of_length(length);
        ASSERT_GE(size, before);
        ASSERT_LE(size, before + 1);
        ASSERT_GE(class_that_holds(length), size);
        before = size;
    }
    EXPECT_LT(class_of_length((std::uint64_t{1} << 28U) - 1), 255);
}

TEST(SizeClassTest, EveryBlockOfAClassThatHoldsALengthIsLongEnough) {
    for (std::uint64_t length = 1; length < 3000; ++length) {
        const SizeClass holds = class_that_holds(length);
        for (std::uint64_t block = 1; block < length; ++block) {
            ASSERT_LT(class_of_length(block), holds) << block << " is no place for " << length;
        }
        ASSERT_GE(class_of_length(length + length / 4 + 1), holds);
    }
}

TEST(FreeMapTest, FindsTheFirstThatMayServe) {
    for (const std::uint32_t regions : {1U, 7U, 8U, 9U, 64U, 65U, 1000U, 5000U}) {
        Map of(regions);
        std::vector<SizeClass> truth(regions, 0);
        Random random(regions);
        for (int turn = 0; turn < 2000; ++turn) {
            const std::uint32_t region = pick(random, regions);
            const auto size = static_cast<SizeClass>(random() % 200);
            if (size > truth[region]) {
                of.map.raise(region, size);
            } else {
                of.map.lower(region, truth[region], size);
            }
            truth[region] = size;
            const std::uint32_t from = pick(random, regions);
            const auto wanted = static_cast<SizeClass>(1 + random() % 199);
            std::uint32_t expected = from;
            while (expected < regions && truth[expected] < wanted) ++expected;
            if (expected == regions) expected = FreeMap::kNowhere;
            ASSERT_EQ(of.map.find(from, wanted), expected)
                << regions << " regions, from " << from << ", class " << int{wanted};
        }
    }
}

// Raising stops where the map is high enough, and lowering looks again: the last hint of a region
// must be found, however the two meet in the levels above.
TEST(FreeMapTest, NothingIsLostBetweenRaisingAndLowering) {
    constexpr std::uint32_t kRegions = 512;
    constexpr int kThreads = 4;
    Map of(kRegions);
    for (int round = 0; round < 200; ++round) {
        std::vector<std::thread> threads;
        for (int thread = 0; thread < kThreads; ++thread) {
            threads.emplace_back([&of, thread, round] {
                Random random(static_cast<unsigned>(thread + round * kThreads));
                for (int turn = 0; turn < 500; ++turn) {
                    // Each thread has its own regions, in words and levels that all share.
                    const std::uint32_t region = pick(random, kRegions / kThreads) * kThreads +
                                                 static_cast<unsigned>(thread);
                    const SizeClass said = of.map.at(region);
                    if (turn % 2 == 0) {
                        of.map.lower(region, said, 0);
                    } else {
                        of.map.raise(region, static_cast<SizeClass>(1 + random() % 200));
                    }
                }
            });
        }
        for (std::thread& thread : threads) thread.join();
        for (std::uint32_t region = 0; region < kRegions; ++region) {
            const SizeClass size = of.map.at(region);
            if (size > 0) {
                ASSERT_EQ(of.map.find(region, size), region) << "region " << region << " is hidden";
            }
        }
    }
}

}  // namespace
}  // namespace penstock::detail

// Holder bits: a process's first hold on an entry sets its bit, the last release clears it, and no
// other bit changes.
#include "store/pins.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tests/unit/store/store_stage.hpp"

namespace penstock::test {
namespace {

using detail::Pins;

constexpr std::uint32_t kEntry = 5;
constexpr std::uint64_t kBit = std::uint64_t{1} << StoreStage::kSelf;

TEST(Pins, TheFirstHoldSetsTheBitAndTheLastClearsIt) {
    const StoreStage stage;
    Pins pins(stage.view, StoreStage::kSelf);
    std::atomic<std::uint64_t>& holders = stage.view.holders(kEntry, StoreStage::kSelf);
    pins.acquire(kEntry);
    EXPECT_EQ(holders.load(), kBit);
    EXPECT_TRUE(is_held(stage.view, kEntry));
    pins.acquire(kEntry);
    pins.acquire(kEntry);
    EXPECT_EQ(holders.load(), kBit);
    for (unsigned left = 2; left > 0; --left) {
        EXPECT_FALSE(pins.release(kEntry));
        EXPECT_EQ(holders.load(), kBit) << "held " << left << " times more";
    }
    EXPECT_TRUE(pins.release(kEntry));
    EXPECT_EQ(holders.load(), 0U);
    EXPECT_FALSE(is_held(stage.view, kEntry));
    pins.acquire(kEntry);
    EXPECT_EQ(holders.load(), kBit) << "and again";
}

TEST(Pins, EntriesAreHeldIndependently) {
    const StoreStage stage;
    Pins pins(stage.view, StoreStage::kSelf);
    const std::uint32_t last = stage.view.shape().entries() - 1;
    pins.acquire(kEntry);
    pins.acquire(last);
    EXPECT_TRUE(pins.release(kEntry));
    EXPECT_FALSE(is_held(stage.view, kEntry));
    EXPECT_TRUE(is_held(stage.view, last));
}

TEST(Pins, AnEntryIsHeldForAsLongAsAnyParticipantHoldsIt) {
    const StoreStage stage;
    Pins own(stage.view, StoreStage::kSelf);
    Pins other(stage.view, StoreStage::kOther);
    own.acquire(kEntry);
    other.acquire(kEntry);
    EXPECT_TRUE(own.release(kEntry));
    EXPECT_EQ(stage.view.holders(kEntry, StoreStage::kOther).load(),
              std::uint64_t{1} << StoreStage::kOther);
    EXPECT_TRUE(is_held(stage.view, kEntry));
    EXPECT_TRUE(other.release(kEntry));
    EXPECT_FALSE(is_held(stage.view, kEntry));
}

TEST(Pins, ParticipantsBeyondTheFirstWordHaveBitsToo) {
    constexpr unsigned kFar = 70;
    const StoreStage stage(Eviction::Sieve, kFar + 1);
    Pins pins(stage.view, kFar);
    pins.acquire(kEntry);
    EXPECT_EQ(stage.view.entry(kEntry).holders[0].load(), 0U);
    EXPECT_EQ(stage.view.holders(kEntry, kFar).load(), std::uint64_t{1} << (kFar - 64));
    EXPECT_TRUE(is_held(stage.view, kEntry));
    EXPECT_TRUE(pins.release(kEntry));
    EXPECT_FALSE(is_held(stage.view, kEntry));
}

// A thread that holds the entry sees the bit, whatever its siblings do at that moment.
TEST(Pins, ThreadsOfAProcessShareItsBit) {
    const StoreStage stage;
    Pins pins(stage.view, StoreStage::kSelf);
    std::atomic<std::uint64_t>& holders = stage.view.holders(kEntry, StoreStage::kSelf);
    std::atomic<unsigned> unheld{0};
    std::atomic<unsigned> last{0};
    std::vector<std::thread> threads;
    for (unsigned number = 0; number < 4; ++number) {
        threads.emplace_back([&] {
            for (unsigned turn = 0; turn < 20'000; ++turn) {
                pins.acquire(kEntry);
                unheld += holders.load() == kBit ? 0 : 1;
                last += pins.release(kEntry) ? 1 : 0;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(unheld, 0U);
    EXPECT_GT(last, 0U);
    EXPECT_EQ(holders.load(), 0U);
}

}  // namespace
}  // namespace penstock::test

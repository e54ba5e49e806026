// The shape of a Broadcast: what a creator may ask for, which shapes an attacher accepts, and how a
// rank is described.
#include "broadcast/control.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "segment/life/header.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock::detail {
namespace {

using test::Parts;
using test::refuses;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;

BroadcastOptions with(unsigned readers, std::uint64_t capacity, std::uint64_t large) {
    BroadcastOptions options;
    options.readers = readers;
    options.capacity = capacity;
    options.large = large;
    return options;
}

TEST(BroadcastShapeTest, RoundsUpRequestedSizes) {
    EXPECT_EQ(broadcast_shape_of(with(1, 1, 0)).capacity, 4096U);
    EXPECT_EQ(broadcast_shape_of(with(1, 4096, 0)).capacity, 4096U);
    EXPECT_EQ(broadcast_shape_of(with(1, 4097, 0)).capacity, 8192U);
    EXPECT_EQ(broadcast_shape_of(with(1, 3 * kMiB, 0)).capacity, 4 * kMiB);
    EXPECT_EQ(broadcast_shape_of(with(1, 4096, 0)).granules, 0U);
    EXPECT_EQ(broadcast_shape_of(with(1, 4096, 1)).granules, 1U);
    EXPECT_EQ(broadcast_shape_of(with(1, 4096, kMiB)).granules, 16U);
    EXPECT_EQ(broadcast_shape_of(with(1, 4096, 0)).longest_inline(), 1024U);
}

TEST(BroadcastShapeTest, HasAHolderBitForEachReaderOnEachGranule) {
    EXPECT_EQ(broadcast_shape_of(with(1, 4096, kMiB)).holder_words(), 1U);
    EXPECT_EQ(broadcast_shape_of(with(64, 4096, kMiB)).holder_words(), 1U);
    EXPECT_EQ(broadcast_shape_of(with(65, 4096, kMiB)).holder_words(), 2U);
    EXPECT_EQ(broadcast_shape_of(with(256, 4096, kMiB)).holder_words(), 4U);
    const BroadcastShape shape = broadcast_shape_of(with(65, 4096, kMiB));
    EXPECT_EQ(shape.control_bytes(), shape.holders_offset() + std::uint64_t{16} * 2 * 8);
}

TEST(BroadcastShapeTest, RefusesImpossibleOptions) {
    const auto invalid = [](unsigned readers, std::uint64_t capacity, std::uint64_t large,
                            Parts parts) {
        return refuses(
            ErrorCode::InvalidArgument, [&] { broadcast_shape_of(with(readers, capacity, large)); },
            parts);
    };
    EXPECT_TRUE(invalid(0, 4096, 0, {"readers must be 1 to 256, not 0"}));
    EXPECT_TRUE(invalid(257, 4096, 0, {"readers must be 1 to 256, not 257"}));
    EXPECT_TRUE(invalid(1, 0, 0, {"capacity must be 1 byte to 256 GiB, not 0"}));
    EXPECT_TRUE(invalid(1, (1ULL << 38U) + 1, 0, {"capacity must be"}));
    EXPECT_TRUE(invalid(1, 4096, (1ULL << 38U) + 1, {"large must be at most 256 GiB"}));
    EXPECT_EQ(broadcast_shape_of(with(256, 1ULL << 38U, 1ULL << 38U)).readers, 256U);
}

layout::SegmentHeader make_header_of(const BroadcastOptions& options) {
    return make_header("steps", plan_of(broadcast_shape_of(options)));
}

TEST(BroadcastShapeTest, SurvivesTheHeader) {
    BroadcastOptions options = with(70, 64 * 1024, 3 * kMiB);
    options.on_reader_death = OnReaderDeath::Drop;
    const BroadcastShape made = broadcast_shape_of(options);
    const BroadcastShape read = broadcast_shape_of(make_header_of(options));
    EXPECT_EQ(read.readers, made.readers);
    EXPECT_EQ(read.capacity, made.capacity);
    EXPECT_EQ(read.granules, made.granules);
    EXPECT_EQ(read.on_reader_death, OnReaderDeath::Drop);
    EXPECT_EQ(read.control_bytes(), made.control_bytes());
}

TEST(BroadcastShapeTest, OnlyTheRingIsReservedAtOnce) {
    const SegmentPlan plan = plan_of(broadcast_shape_of(with(2, kMiB, 8 * kMiB)));
    EXPECT_EQ(plan.kind, Kind::Broadcast);
    EXPECT_EQ(plan.slots, 3U);
    EXPECT_EQ(plan.payload_bytes, 9 * kMiB);
    EXPECT_EQ(plan.payload_reserved, kMiB);
}

struct Damage {
    const char* label;
    std::function<void(layout::SegmentHeader&)> spoil;
};

void PrintTo(const Damage& damage, std::ostream* out) {
    *out << damage.label;
}

class DamagedShapeTest : public ::testing::TestWithParam<Damage> {};

TEST_P(DamagedShapeTest, IsCorrupt) {
    layout::SegmentHeader header = make_header_of(with(2, kMiB, kMiB));
    GetParam().spoil(header);
    EXPECT_TRUE(refuses(ErrorCode::Corrupt, [&] { broadcast_shape_of(header); },
                        {"is damaged: its geometry does not fit its segment"}));
}

INSTANTIATE_TEST_SUITE_P(
    BroadcastShapeTest, DamagedShapeTest,
    ::testing::Values(
        Damage{"NoReaders", [](auto& header) { header.geometry[layout::kReaders] = 0; }},
        Damage{"TooManyReaders", [](auto& header) { header.geometry[layout::kReaders] = 257; }},
        Damage{"OtherReaders", [](auto& header) { header.geometry[layout::kReaders] = 1; }},
        Damage{"OtherSlots", [](auto& header) { header.slot_count = 4; }},
        Damage{"NoCapacity", [](auto& header) { header.geometry[layout::kCapacity] = 0; }},
        Damage{"OddCapacity", [](auto& header) { header.geometry[layout::kCapacity] = 5000; }},
        Damage{"TinyCapacity", [](auto& header) { header.geometry[layout::kCapacity] = 2048; }},
        Damage{"HugeCapacity",
               [](auto& header) { header.geometry[layout::kCapacity] = 1ULL << 39U; }},
        Damage{"OtherCapacity", [](auto& header) { header.geometry[layout::kCapacity] *= 2; }},
        Damage{"OtherGranules", [](auto& header) { ++header.geometry[layout::kGranules]; }},
        Damage{"HugeGranules", [](auto& header) { header.geometry[layout::kGranules] = ~0ULL; }},
        Damage{"OtherGranuleSize",
               [](auto& header) { header.geometry[layout::kGranuleBytes] = 4096; }},
        Damage{"UnknownPolicy", [](auto& header) { header.geometry[layout::kOnReaderDeath] = 2; }},
        Damage{"OtherControl", [](auto& header) { header.control_size += 8; }},
        Damage{"OtherPayload", [](auto& header) { header.payload_size -= 8; }}),
    [](const auto& chosen) { return std::string(chosen.param.label); });

BroadcastReaderState state_of(BroadcastReaderState::Life life, std::uint32_t pid) {
    BroadcastReaderState state;
    state.rank = 2;
    state.life = life;
    state.pid = pid;
    state.process = "worker.py";
    state.lag_messages = 12;
    return state;
}

TEST(ReaderStateTest, IsDescribedForPeople) {
    using Life = BroadcastReaderState::Life;
    EXPECT_EQ(state_of(Life::Expected, 0).describe(), "reader 2, which has not attached yet");
    EXPECT_EQ(state_of(Life::Vacant, 0).describe(), "reader 2, vacant");
    BroadcastReaderState active = state_of(Life::Active, 4711);
    active.alive = true;
    EXPECT_EQ(active.describe(), "reader 2 (pid 4711, worker.py), 12 messages behind");
    active.stopped = true;
    active.blocking_for = 0.34;
    EXPECT_EQ(active.describe(),
              "reader 2 (pid 4711, worker.py), stopped, 12 messages behind, blocking for 0.3 s");
    active.alive = false;
    active.blocking_for = 0;
    EXPECT_EQ(active.describe(), "reader 2 (pid 4711, worker.py), dead, 12 messages behind");
    active.how_it_died = "killed by signal 9 (SIGKILL)";
    EXPECT_EQ(active.describe(),
              "reader 2 (pid 4711, worker.py), dead: killed by signal 9 (SIGKILL), 12 messages "
              "behind");
}

}  // namespace
}  // namespace penstock::detail

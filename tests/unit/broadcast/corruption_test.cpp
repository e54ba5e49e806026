// A damaged ring: Corrupt, again and again, and never a wild read.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>

#include "broadcast/layout.hpp"
#include "penstock/broadcast.hpp"
#include "tests/unit/broadcast/broadcast_corruptor.hpp"
#include "tests/unit/broadcast/broadcast_fixture.hpp"

namespace penstock {
namespace {

using namespace test;
using layout::BlockRecord;
using layout::RecordHeader;
using layout::RecordKind;

struct Scribble {
    const char* label;
    std::function<void(const BroadcastCorruptor&)> scrawl;
    const char* sentence;
    std::size_t size = 100;  // of the message that is scribbled over
};

void PrintTo(const Scribble& scribble, std::ostream* out) {
    *out << scribble.label;
}

template <typename Change>
auto in_record(Change change) {
    return [change](const BroadcastCorruptor& corruptor) {
        RecordHeader record = corruptor.record();
        change(record);
        corruptor.put(record);
    };
}

template <typename Change>
auto in_block(Change change) {
    return [change](const BroadcastCorruptor& corruptor) {
        BlockRecord block = corruptor.block();
        change(block);
        corruptor.put(block);
    };
}

class CorruptionTest : public CleanTest, public ::testing::WithParamInterface<Scribble> {};

TEST_P(CorruptionTest, IsNoticed) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, GetParam().size)));
    ASSERT_TRUE(succeeds(send(writer, 1, 100)));
    GetParam().scrawl(BroadcastCorruptor(writer.name()));
    Bytes buffer(1000);
    for (int turn = 0; turn < 2; ++turn) {
        EXPECT_TRUE(fails(reader.recv(Deadline::now()), ErrorCode::Corrupt,
                          {"the ring of '" + writer.name() + "' is damaged", GetParam().sentence}));
        EXPECT_TRUE(fails(reader.recv_into(buffer, Deadline::now()), ErrorCode::Corrupt));
        EXPECT_TRUE(fails(reader.next_size(Deadline::now()), ErrorCode::Corrupt));
    }
    EXPECT_NO_THROW(static_cast<void>(writer.readers()));
    EXPECT_NO_THROW(static_cast<void>(inspect_broadcast(writer.name())));
}

INSTANTIATE_TEST_SUITE_P(
    Scribbles, CorruptionTest,
    ::testing::Values(
        Scribble{"NoRecord",
                 [](const BroadcastCorruptor& corruptor) { corruptor.put(RecordHeader{}); },
                 "no record"},
        Scribble{"LongerThanPublished",
                 in_record([](RecordHeader& record) { record.length = 3000; }),
                 "a record too long"},
        Scribble{"LongerThanTheRing",
                 in_record([](RecordHeader& record) { record.length = layout::kLongestPayload; }),
                 "a record too long"},
        Scribble{"SkipBeyondTheEnd",
                 [](const BroadcastCorruptor& corruptor) {
                     RecordHeader record = corruptor.record();
                     record.length = 220;
                     record.skip = 7;
                     corruptor.put(record);
                 },
                 "a record too long"},
        Scribble{"AnotherTag", in_record([](RecordHeader& record) { record.tag = 77; }),
                 "a record out of order"},
        Scribble{"AnInlineAsABlock",
                 in_record([](RecordHeader& record) { record.kind = RecordKind::Block; }),
                 "a block record of the wrong size"},
        Scribble{"ABlockBeyondTheEnd", in_block([](BlockRecord& block) { block.granule = 16; }),
                 "a block that does not exist", kGranule},
        Scribble{"ABlockFarOut", in_block([](BlockRecord& block) { block.granule = ~0U; }),
                 "a block that does not exist", kGranule},
        Scribble{"AFreeBlock", in_block([](BlockRecord& block) { block.granule = 3; }),
                 "a block that does not exist", kGranule},
        Scribble{"AnotherCheck", in_block([](BlockRecord& block) { ++block.check; }),
                 "a block that does not exist", kGranule},
        Scribble{"ABlockTooLong", in_block([](BlockRecord& block) { block.length = kGranule + 1; }),
                 "a block that does not exist", kGranule},
        Scribble{"ABlockFarTooLong", in_block([](BlockRecord& block) { block.length = ~0ULL; }),
                 "a block that does not exist", kGranule},
        Scribble{
            "APositionFarAhead",
            [](const BroadcastCorruptor& corruptor) { corruptor.writer().position = 1U << 20U; },
            "impossible positions"},
        Scribble{"APositionBehind",
                 [](const BroadcastCorruptor& corruptor) { corruptor.writer().position = ~0ULL; },
                 "impossible positions"},
        Scribble{"AnOriginBetweenWords",
                 [](const BroadcastCorruptor& corruptor) { corruptor.origin() = 4; },
                 "impossible positions"},
        Scribble{"AnOriginElsewhere",
                 [](const BroadcastCorruptor& corruptor) { corruptor.origin() = 2048; },
                 "no record"}),
    [](const auto& chosen) { return std::string(chosen.param.label); });

class CorruptTimeTest : public CleanTest {};

// Impossible times must cause no undefined arithmetic; the sanitizers would report it.
TEST_F(CorruptTimeTest, AnImpossibleBlockedTimeIsShownAsAtLeastZero) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    const BroadcastCorruptor corruptor(writer.name());
    for (const std::int64_t since : {std::numeric_limits<std::int64_t>::min(), std::int64_t{-1},
                                     std::numeric_limits<std::int64_t>::max()}) {
        corruptor.state().blocked_since = since;
        EXPECT_GE(inspect_broadcast(writer.name()).writer_blocked_for, 0);
        EXPECT_NO_THROW(static_cast<void>(writer.blocked_by()));
    }
}

class LostMessageTest : public CleanTest {};

TEST_F(LostMessageTest, ALostMessageIsNoticedAtTheNextOne) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, 100)));
    const BroadcastCorruptor corruptor(writer.name());
    RecordHeader record = corruptor.record();
    record.kind = RecordKind::Padding;
    corruptor.put(record);
    EXPECT_TRUE(fails(reader.recv(Deadline::now()), ErrorCode::Timeout)) << "passed over";
    ASSERT_TRUE(succeeds(send(writer, 1, 100)));
    EXPECT_TRUE(fails(reader.recv(Deadline::now()), ErrorCode::Corrupt, {"out of order"}));
}

}  // namespace
}  // namespace penstock

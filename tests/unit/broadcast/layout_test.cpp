// The bytes of the ring: record headers keep every field, and records add up.
#include "broadcast/layout.hpp"

#include <gtest/gtest.h>

#include <cstdint>

namespace penstock::layout {
namespace {

TEST(BroadcastLayoutTest, ARecordHeaderKeepsEveryField) {
    for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{1}, kLongestPayload}) {
        for (const RecordKind kind :
             {RecordKind::Invalid, RecordKind::Inline, RecordKind::Block, RecordKind::Padding}) {
            for (const std::uint8_t step : {std::uint8_t{0}, std::uint8_t{1}, std::uint8_t{7}}) {
                for (const std::uint16_t tag :
                     {std::uint16_t{0}, std::uint16_t{1}, std::uint16_t{0x7FFF}}) {
                    const RecordHeader header{length, kind, step, step, tag};
                    const RecordHeader same = decode_record(encode_record(header));
                    EXPECT_EQ(same.length, length);
                    EXPECT_EQ(same.kind, kind);
                    EXPECT_EQ(same.skip, step);
                    EXPECT_EQ(same.format, step);
                    EXPECT_EQ(same.tag, tag);
                }
            }
        }
    }
}

TEST(BroadcastLayoutTest, NothingWrittenIsNoRecord) {
    EXPECT_EQ(decode_record(0).kind, RecordKind::Invalid);
}

TEST(BroadcastLayoutTest, RecordsEndWhereTheNextMayStart) {
    EXPECT_EQ(record_bytes(0, 0), 8U);
    EXPECT_EQ(record_bytes(1, 0), 16U);
    EXPECT_EQ(record_bytes(8, 0), 16U);
    EXPECT_EQ(record_bytes(9, 0), 24U);
    EXPECT_EQ(record_bytes(0, 7), 64U);
    EXPECT_EQ(record_bytes(64, 7), 128U);
}

TEST(BroadcastLayoutTest, TheWriterHasASlotToo) {
    EXPECT_EQ(slot_of_rank(0), 1U);
    EXPECT_EQ(slot_of_rank(255), 256U);
    EXPECT_LT(slot_of_rank(kMaxReaders - 1), kMaxSlots);
}

}  // namespace
}  // namespace penstock::layout

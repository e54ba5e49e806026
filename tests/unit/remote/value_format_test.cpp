// Heads of values: valid ones round-trip, all others are refused.
#include "remote/value_format.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "tests/support/numbered.hpp"

namespace penstock::detail {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
    return std::as_bytes(std::span(text));
}

TEST(ValueFormatTest, AHeadRoundTrips) {
    std::vector<std::byte> meta(100);
    trust::fill_numbered(meta, 1);
    ValueHead head;
    head.format = Format::Typed;
    head.nbytes = std::uint64_t{3} << 30U;
    head.part_bytes = std::uint64_t{64} << 20U;
    head.checksum = {1, 2};
    const std::string value = encode_head(head, meta, "key");
    const ReadHead read = decode_head(bytes_of(value), "key");
    ASSERT_EQ(read.kind, HeadKind::Sound);
    EXPECT_EQ(read.head.format, Format::Typed);
    EXPECT_EQ(read.head.nbytes, head.nbytes);
    EXPECT_EQ(read.head.parts(), 48U);
    EXPECT_EQ(read.head.checksum, head.checksum);
    EXPECT_EQ(trust::check_numbered(read.meta, 1), "");
    EXPECT_TRUE(read.data.empty());
    EXPECT_EQ(decode_head(bytes_of(value), "kez").kind, HeadKind::Damaged);
}

TEST(ValueFormatTest, EveryFormatIsKnownAndOthersAreRefused) {
    for (unsigned format = 0; format <= static_cast<unsigned>(kLastFormat) + 1; ++format) {
        ValueHead head;
        head.format = static_cast<Format>(format);
        const std::string value = encode_head(head, {}, "key");
        const bool is_known = format <= static_cast<unsigned>(kLastFormat);
        EXPECT_EQ(decode_head(bytes_of(value), "key").kind,
                  is_known ? HeadKind::Sound : HeadKind::Foreign);
    }
}

// The stored bytes outlive this version: they may change only with the version number.
TEST(ValueFormatTest, TheStoredBytesAreStable) {
    ValueHead head;
    head.format = Format::Pickle;
    head.nbytes = 3;
    head.checksum = {0x0807060504030201, 0x100F0E0D0C0B0A09};
    const std::string value = encode_head(head, bytes_of("mm"), "k") + "abc";
    const std::string expected(
        "PSTKOBJ\n"
        "\x01\0\0\0\x02\0\0\0"
        "\x03\0\0\0\0\0\0\0"
        "\0\0\0\0\0\0\0\0"
        "\x02\0\0\0\0\0\0\0"
        "\x01\x02\x03\x04\x05\x06\x07\x08"
        "\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10",
        56);
    EXPECT_EQ(value.substr(0, 56), expected);
    EXPECT_EQ(value.substr(64), "mmabc");
    const ReadHead read = decode_head(bytes_of(value), "k");
    ASSERT_EQ(read.kind, HeadKind::Sound);
    EXPECT_EQ(read.data.size(), 3U);
    const Checksum known = checksum_of(bytes_of("abc"));
    EXPECT_EQ(known.low, 0x78AF5F94892F3950U) << "XXH3 of the same bytes, by its own tool";
}

std::string sealed_value(const std::string& data, std::span<const std::byte> meta) {
    ValueHead head;
    head.nbytes = data.size();
    const Seal seal = seal_of(checksum_of(bytes_of(data)));
    return encode_head(head, meta, "k") + data +
           std::string(reinterpret_cast<const char*>(seal.data()), seal.size());
}

TEST(ValueFormatTest, TheStoredBytesOfASealedHeadAreStable) {
    const std::string data(kInlineMost + 1, 'a');
    const std::string value = sealed_value(data, bytes_of("mm"));
    const std::string expected(
        "PSTKOBJ\n"
        "\x02\0\0\0\0\0\0\0"
        "\x01\0\x01\0\0\0\0\0"
        "\0\0\0\0\0\0\0\0"
        "\x02\0\0\0\0\0\0\0"
        "\0\0\0\0\0\0\0\0"
        "\0\0\0\0\0\0\0\0",
        56);
    EXPECT_EQ(value.substr(0, 56), expected);
    EXPECT_EQ(value.substr(64, data.size() + 2), "mm" + data);
    EXPECT_EQ(value.size(), 64 + 2 + data.size() + 16);
    const ReadHead read = decode_head(bytes_of(value), "k");
    ASSERT_EQ(read.kind, HeadKind::Sound);
    EXPECT_TRUE(read.head.is_sealed());
    EXPECT_EQ(read.data.size(), data.size());
    EXPECT_EQ(read.head.checksum, checksum_of(read.data));
    EXPECT_EQ(seal_of({0x0807060504030201, 0x100F0E0D0C0B0A09})[8], std::byte{9});
}

TEST(ValueFormatTest, TheFirstBytesOfAHeadTellWhatFollows) {
    const std::string value = sealed_value(std::string(100'000, 'a'), bytes_of("mm"));
    const auto read_first = [&](std::size_t bytes, std::optional<std::uint64_t> all) {
        return decode_head(bytes_of(value).first(bytes), "k", all);
    };
    for (const std::size_t bytes : {std::size_t{66}, std::size_t{5000}, value.size() - 1}) {
        const ReadHead read = read_first(bytes, value.size());
        ASSERT_EQ(read.kind, HeadKind::Sound) << bytes;
        EXPECT_EQ(read.head.nbytes, 100'000U);
        EXPECT_EQ(read.head.checksum, Checksum{}) << "its seal is not there";
        EXPECT_EQ(read_first(bytes, std::nullopt).kind, HeadKind::Sound);
        EXPECT_EQ(read_first(bytes, value.size() + 1).kind, HeadKind::Damaged);
        EXPECT_EQ(read_first(bytes, value.size() - 1).kind, HeadKind::Damaged);
    }
    EXPECT_EQ(read_first(65, value.size()).kind, HeadKind::Cut);
    EXPECT_EQ(read_first(65, std::nullopt).kind, HeadKind::Cut);
    EXPECT_EQ(read_first(65, 65).kind, HeadKind::Damaged);
    EXPECT_EQ(read_first(63, value.size()).kind, HeadKind::Damaged);
}

// What has a checksum under one version is no value under the other.
TEST(ValueFormatTest, AVersionHasItsSizes) {
    ValueHead head;
    for (const std::uint64_t nbytes :
         {kSealedMost + 1, std::uint64_t{1} << 40U, ~std::uint64_t{0}}) {
        head.nbytes = nbytes;
        EXPECT_EQ(decode_head(bytes_of(encode_head(head, {}, "k")), "k", std::nullopt).kind,
                  HeadKind::Damaged);
    }
    head.nbytes = kSealedMost;
    EXPECT_EQ(decode_head(bytes_of(encode_head(head, {}, "k")), "k", std::nullopt).kind,
              HeadKind::Sound);
}

TEST(ValueFormatTest, AChecksumOfPiecesIsThatOfTheWhole) {
    std::vector<std::byte> data(300'001);
    trust::fill_numbered(data, 3);
    const std::span<const std::byte> whole(data);
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{240},
                                   std::size_t{241}, std::size_t{70'000}, data.size()}) {
        for (const std::size_t piece : {std::size_t{1000}, std::size_t{131'072}}) {
            RunningChecksum sum;
            for (std::size_t at = 0; at < size; at += piece) {
                sum.add(whole.subspan(at, std::min(piece, size - at)));
            }
            EXPECT_EQ(sum.value(), checksum_of(whole.first(size))) << size;
        }
    }
    RunningChecksum sum;
    sum.add(whole.first(100'000));
    sum.mark();
    sum.add(whole.first(5));
    sum.rewind();
    sum.add(whole.subspan(100'000));
    EXPECT_EQ(sum.value(), checksum_of(whole)) << "a piece that came twice counts once";
}

TEST(ValueFormatTest, PartsCoverTheDataAndNothingElse) {
    ValueHead head;
    head.part_bytes = 4096;
    const std::vector<std::byte> data(10'000);
    head.nbytes = data.size();
    ASSERT_EQ(head.parts(), 3U);
    std::size_t covered = 0;
    for (std::uint64_t i = 0; i < head.parts(); ++i) {
        const auto part = head.part(std::span(data), i);
        EXPECT_EQ(part.data(), data.data() + covered);
        covered += part.size();
    }
    EXPECT_EQ(covered, data.size());
}

TEST(ValueFormatTest, KeysOfPartsAreDistinct) {
    ValueHead head;
    head.part_bytes = 4096;
    ValueHead other = head;
    other.checksum.high = 1;
    ValueHead coarser = head;
    coarser.part_bytes = 8192;
    EXPECT_EQ(head_name("a:", "k"), "a:o:k");
    EXPECT_EQ(part_name("a:", "k", head, 7), "a:p:00000000000000000000000000000000:4096:7:k");
    EXPECT_NE(part_name("a:", "k", head, 0), part_name("a:", "k", other, 0));
    EXPECT_NE(part_name("a:", "k", head, 0), part_name("a:", "k", coarser, 0));
    EXPECT_NE(part_name("a:", "k", head, 0), part_name("a:", "k", head, 1));
}

TEST(ValueFormatTest, RandomBytesAreNeverSound) {
    trust::Dice dice(7);
    ValueHead head;
    const std::string sound = encode_head(head, {}, "key");
    for (int round = 0; round < 20'000; ++round) {
        std::string value = sound;
        const std::uint64_t flips = dice.between(1, 8);
        for (std::uint64_t i = 0; i < flips; ++i) {
            const std::size_t at = dice.next() % value.size();
            value[at] = static_cast<char>(value[at] + static_cast<char>(dice.between(1, 127)));
        }
        value.resize(dice.between(0, value.size()));
        EXPECT_NE(decode_head(bytes_of(value), "key").kind, HeadKind::Sound);
    }
}

}  // namespace
}  // namespace penstock::detail

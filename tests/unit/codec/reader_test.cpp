// The MessagePack reader: every form, every way to be cut short, and walking without a stack.
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <vector>

#include "penstock/codec.hpp"

namespace penstock::codec {
namespace {

using Bytes = std::vector<std::byte>;

Bytes bytes_of(std::initializer_list<int> values) {
    Bytes result;
    for (const int value : values) {
        result.push_back(static_cast<std::byte>(value));
    }
    return result;
}

// Token::bytes points into the input: the bytes must outlive the token.
Token only(const Bytes& bytes) {
    Reader in(bytes);
    Token token;
    EXPECT_TRUE(in.next(token));
    EXPECT_TRUE(in.at_end());
    EXPECT_EQ(in.fault(), Fault::None);
    return token;
}

Fault fault_of(const Bytes& bytes) {
    Reader in(bytes);
    Token token;
    EXPECT_FALSE(in.next(token));
    EXPECT_FALSE(in.next(token)) << "a fault must stick";
    return in.fault();
}

std::int64_t integer(std::initializer_list<int> values) {
    const Token token = only(bytes_of(values));
    EXPECT_EQ(token.kind, Kind::Integer);
    return token.integer;
}

TEST(Reader, EveryFormOfInteger) {
    EXPECT_EQ(integer({0x00}), 0);
    EXPECT_EQ(integer({0x7f}), 127);
    EXPECT_EQ(integer({0xe0}), -32);
    EXPECT_EQ(integer({0xff}), -1);
    EXPECT_EQ(integer({0xcc, 0xff}), 255);
    EXPECT_EQ(integer({0xcd, 0xff, 0xfe}), 65534);
    EXPECT_EQ(integer({0xce, 0xff, 0xff, 0xff, 0xfe}), 4294967294);
    EXPECT_EQ(integer({0xcf, 0x7f, 0, 0, 0, 0, 0, 0, 1}), 0x7f00000000000001);
    EXPECT_EQ(integer({0xd0, 0x80}), -128);
    EXPECT_EQ(integer({0xd0, 5}), 5);
    EXPECT_EQ(integer({0xd1, 0x80, 0}), -32768);
    EXPECT_EQ(integer({0xd2, 0x80, 0, 0, 0}), -2147483648LL);
    EXPECT_EQ(integer({0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0}), std::numeric_limits<std::int64_t>::min());
}

TEST(Reader, IntegersAboveTheSignedOnes) {
    const Token token = only(bytes_of({0xcf, 0x80, 0, 0, 0, 0, 0, 0, 3}));
    EXPECT_EQ(token.kind, Kind::Natural);
    EXPECT_EQ(token.natural, 0x8000000000000003);
}

TEST(Reader, OtherScalars) {
    EXPECT_EQ(only(bytes_of({0xc0})).kind, Kind::Nil);
    EXPECT_FALSE(only(bytes_of({0xc2})).boolean);
    EXPECT_TRUE(only(bytes_of({0xc3})).boolean);
    EXPECT_EQ(only(bytes_of({0xca, 0x3f, 0xc0, 0, 0})).real, 1.5);
    EXPECT_EQ(only(bytes_of({0xcb, 0xbf, 0xf0, 0, 0, 0, 0, 0, 0})).real, -1.0);
    const double nan = only(bytes_of({0xcb, 0x7f, 0xf8, 0, 0, 0, 0xde, 0xad, 0})).real;
    EXPECT_EQ(std::bit_cast<std::uint64_t>(nan), 0x7ff8000000dead00);
}

TEST(Reader, EveryFormOfText) {
    const Bytes empty = bytes_of({0xa0});
    EXPECT_EQ(only(empty).text(), "");
    for (const Bytes& bytes :
         {bytes_of({0xa2, 'h', 'i'}), bytes_of({0xd9, 2, 'h', 'i'}),
          bytes_of({0xda, 0, 2, 'h', 'i'}), bytes_of({0xdb, 0, 0, 0, 2, 'h', 'i'})}) {
        const Token token = only(bytes);
        EXPECT_EQ(token.kind, Kind::Text);
        EXPECT_EQ(token.text(), "hi");
    }
}

TEST(Reader, EveryFormOfBytes) {
    for (const Bytes& bytes : {bytes_of({0xc4, 2, 1, 2}), bytes_of({0xc5, 0, 2, 1, 2}),
                               bytes_of({0xc6, 0, 0, 0, 2, 1, 2})}) {
        const Token token = only(bytes);
        EXPECT_EQ(token.kind, Kind::Bytes);
        EXPECT_EQ(token.bytes.size(), 2U);
        EXPECT_EQ(token.bytes[1], std::byte{2});
    }
}

TEST(Reader, EveryFormOfExtension) {
    for (const unsigned size : {1U, 2U, 4U, 8U, 16U}) {
        Bytes bytes = bytes_of({0xd4 + std::countr_zero(size), 3});
        bytes.resize(2 + size);
        const Token token = only(bytes);
        EXPECT_EQ(token.kind, Kind::Extension);
        EXPECT_EQ(token.extension, Extension::Complex);
        EXPECT_EQ(token.bytes.size(), size);
    }
    for (const Bytes& bytes : {bytes_of({0xc7, 3, 9, 1, 2, 3}), bytes_of({0xc8, 0, 3, 9, 1, 2, 3}),
                               bytes_of({0xc9, 0, 0, 0, 3, 9, 1, 2, 3})}) {
        const Token token = only(bytes);
        EXPECT_EQ(token.extension, Extension::DescribedScalar);
        EXPECT_EQ(token.bytes.size(), 3U);
        EXPECT_EQ(token.bytes[2], std::byte{3});
    }
}

std::size_t count_of(Bytes head, std::size_t values, Kind kind) {
    head.resize(head.size() + values);
    Reader in(head);
    Token token;
    EXPECT_TRUE(in.next(token));
    EXPECT_EQ(token.kind, kind);
    EXPECT_EQ(in.remaining(), values);
    return token.count;
}

TEST(Reader, EveryFormOfContainer) {
    EXPECT_EQ(count_of(bytes_of({0x93}), 3, Kind::Array), 3U);
    EXPECT_EQ(count_of(bytes_of({0xdc, 1, 0}), 256, Kind::Array), 256U);
    EXPECT_EQ(count_of(bytes_of({0xdd, 0, 1, 0, 0}), 65536, Kind::Array), 65536U);
    EXPECT_EQ(count_of(bytes_of({0x83}), 6, Kind::Map), 3U);
    EXPECT_EQ(count_of(bytes_of({0xde, 1, 0}), 512, Kind::Map), 256U);
    EXPECT_EQ(count_of(bytes_of({0xdf, 0, 1, 0, 0}), 131072, Kind::Map), 65536U);
}

// One value of every form that is longer than a byte.
const std::vector<Bytes>& long_forms() {
    static const std::vector<Bytes> forms{
        bytes_of({0xcc, 1}),
        bytes_of({0xcd, 1, 2}),
        bytes_of({0xce, 1, 2, 3, 4}),
        bytes_of({0xcf, 1, 2, 3, 4, 5, 6, 7, 8}),
        bytes_of({0xd0, 1}),
        bytes_of({0xd1, 1, 2}),
        bytes_of({0xd2, 1, 2, 3, 4}),
        bytes_of({0xd3, 1, 2, 3, 4, 5, 6, 7, 8}),
        bytes_of({0xca, 1, 2, 3, 4}),
        bytes_of({0xcb, 1, 2, 3, 4, 5, 6, 7, 8}),
        bytes_of({0xa3, 1, 2, 3}),
        bytes_of({0xd9, 2, 1, 2}),
        bytes_of({0xda, 0, 2, 1, 2}),
        bytes_of({0xdb, 0, 0, 0, 2, 1, 2}),
        bytes_of({0xc4, 2, 1, 2}),
        bytes_of({0xc5, 0, 2, 1, 2}),
        bytes_of({0xc6, 0, 0, 0, 2, 1, 2}),
        bytes_of({0xd4, 1, 1}),
        bytes_of({0xd8, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6}),
        bytes_of({0xc7, 2, 1, 1, 2}),
        bytes_of({0xc8, 0, 2, 1, 1, 2}),
        bytes_of({0xc9, 0, 0, 0, 2, 1, 1, 2}),
        bytes_of({0x92, 0, 0}),
        bytes_of({0x81, 0, 0}),
        bytes_of({0xdc, 0, 1, 0}),
        bytes_of({0xdd, 0, 0, 0, 1, 0}),
        bytes_of({0xde, 0, 1, 0, 0}),
        bytes_of({0xdf, 0, 0, 0, 1, 0, 0}),
    };
    return forms;
}

TEST(Reader, CutShortAnywhere) {
    for (const Bytes& whole : long_forms()) {
        for (std::size_t size = 1; size < whole.size(); ++size) {
            const Bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
            EXPECT_EQ(fault_of(part), Fault::Truncated)
                << "marker " << static_cast<int>(whole[0]) << " cut to " << size;
        }
    }
}

TEST(Reader, SkipPassesOverEveryForm) {
    for (const Bytes& whole : long_forms()) {
        Reader in(whole);
        EXPECT_TRUE(in.skip());
        EXPECT_TRUE(in.at_end());
    }
}

TEST(Reader, CountsThatNoMemoryCouldHoldAreCutShort) {
    for (const int marker : {0xdd, 0xdf, 0xdb, 0xc6, 0xc9}) {
        EXPECT_EQ(fault_of(bytes_of({marker, 0xff, 0xff, 0xff, 0xff, 0})), Fault::Truncated);
    }
}

TEST(Reader, TheUnusedMarker) {
    EXPECT_EQ(fault_of(bytes_of({0xc1})), Fault::BadMarker);
}

TEST(Reader, TheEndIsNoFault) {
    Reader in;
    Token token;
    EXPECT_TRUE(in.at_end());
    EXPECT_FALSE(in.next(token));
    EXPECT_EQ(in.fault(), Fault::None);
}

TEST(Reader, SkipPassesOverWholeValues) {
    // [1, {"a": [nil, "x"]}, ext] and then true
    const Bytes bytes =
        bytes_of({0x93, 1, 0x81, 0xa1, 'a', 0x92, 0xc0, 0xa1, 'x', 0xd4, 1, 0, 0xc3});
    Reader in(bytes);
    EXPECT_TRUE(in.skip());
    Token token;
    EXPECT_TRUE(in.next(token));
    EXPECT_EQ(token.kind, Kind::Boolean);
    EXPECT_TRUE(in.at_end());
}

TEST(Reader, SkipNeedsNoStack) {
    Bytes deep(1'000'000, std::byte{0x91});
    deep.push_back(std::byte{0xc0});
    Reader in(deep);
    EXPECT_TRUE(in.skip());
    EXPECT_TRUE(in.at_end());
}

TEST(Reader, SkipOfAnUnfinishedContainer) {
    for (const Bytes& bytes : {bytes_of({0x92, 0x91, 0}), bytes_of({0x92, 0x92, 0}), Bytes{}}) {
        Reader in(bytes);
        EXPECT_FALSE(in.skip());
        EXPECT_EQ(in.fault(), Fault::Truncated);
    }
}

}  // namespace
}  // namespace penstock::codec

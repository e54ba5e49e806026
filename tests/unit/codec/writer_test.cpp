// The MessagePack writer against the bytes that the specification gives for each value.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <string>
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

template <typename Write>
Bytes written(Write write) {
    Bytes room(200'000);
    Writer out(room);
    write(out);
    EXPECT_EQ(out.fault(), Fault::None);
    return {out.written().begin(), out.written().end()};
}

Bytes integer(std::int64_t value) {
    return written([&](Writer& out) { out.integer(value); });
}

TEST(Writer, IntegersTakeTheirShortestForm) {
    EXPECT_EQ(integer(0), bytes_of({0x00}));
    EXPECT_EQ(integer(127), bytes_of({0x7f}));
    EXPECT_EQ(integer(128), bytes_of({0xcc, 0x80}));
    EXPECT_EQ(integer(255), bytes_of({0xcc, 0xff}));
    EXPECT_EQ(integer(256), bytes_of({0xcd, 0x01, 0x00}));
    EXPECT_EQ(integer(65535), bytes_of({0xcd, 0xff, 0xff}));
    EXPECT_EQ(integer(65536), bytes_of({0xce, 0x00, 0x01, 0x00, 0x00}));
    EXPECT_EQ(integer(4294967295), bytes_of({0xce, 0xff, 0xff, 0xff, 0xff}));
    EXPECT_EQ(integer(4294967296), bytes_of({0xcf, 0, 0, 0, 1, 0, 0, 0, 0}));
    EXPECT_EQ(integer(std::numeric_limits<std::int64_t>::max()),
              bytes_of({0xcf, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}));
}

TEST(Writer, NegativeIntegersTakeTheirShortestForm) {
    EXPECT_EQ(integer(-1), bytes_of({0xff}));
    EXPECT_EQ(integer(-32), bytes_of({0xe0}));
    EXPECT_EQ(integer(-33), bytes_of({0xd0, 0xdf}));
    EXPECT_EQ(integer(-128), bytes_of({0xd0, 0x80}));
    EXPECT_EQ(integer(-129), bytes_of({0xd1, 0xff, 0x7f}));
    EXPECT_EQ(integer(-32768), bytes_of({0xd1, 0x80, 0x00}));
    EXPECT_EQ(integer(-32769), bytes_of({0xd2, 0xff, 0xff, 0x7f, 0xff}));
    EXPECT_EQ(integer(-2147483648LL), bytes_of({0xd2, 0x80, 0x00, 0x00, 0x00}));
    EXPECT_EQ(integer(-2147483649LL),
              bytes_of({0xd3, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff}));
}

TEST(Writer, OtherScalars) {
    EXPECT_EQ(written([](Writer& out) { out.nil(); }), bytes_of({0xc0}));
    EXPECT_EQ(written([](Writer& out) { out.boolean(false); }), bytes_of({0xc2}));
    EXPECT_EQ(written([](Writer& out) { out.boolean(true); }), bytes_of({0xc3}));
    EXPECT_EQ(written([](Writer& out) { out.real(1.0); }),
              bytes_of({0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0}));
    EXPECT_EQ(written([](Writer& out) { out.natural(std::numeric_limits<std::uint64_t>::max()); }),
              bytes_of({0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}));
    EXPECT_EQ(written([](Writer& out) { out.complex(1.0, -2.0); }),
              bytes_of({0xd8, 0x03, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0}));
}

// The first `head` bytes of the output of `write`, checked to be followed by `size` bytes.
template <typename Write>
Bytes head_of(std::size_t head, std::size_t size, Write write) {
    Bytes all = written(write);
    EXPECT_EQ(all.size(), head + size);
    all.resize(head);
    return all;
}

TEST(Writer, LengthsOfTextTakeTheirShortestForm) {
    const auto head = [](std::size_t bytes, std::size_t size) {
        const std::string text(size, 'x');
        return head_of(bytes, size, [&](Writer& out) { out.text(text); });
    };
    EXPECT_EQ(head(1, 0), bytes_of({0xa0}));
    EXPECT_EQ(head(1, 31), bytes_of({0xbf}));
    EXPECT_EQ(head(2, 32), bytes_of({0xd9, 32}));
    EXPECT_EQ(head(2, 255), bytes_of({0xd9, 0xff}));
    EXPECT_EQ(head(3, 256), bytes_of({0xda, 0x01, 0x00}));
    EXPECT_EQ(head(5, 65536), bytes_of({0xdb, 0, 1, 0, 0}));
}

TEST(Writer, LengthsOfBytesTakeTheirShortestForm) {
    const Bytes data(65536);
    const auto head = [&](std::size_t bytes, std::size_t size) {
        return head_of(bytes, size, [&](Writer& out) { out.bytes(std::span(data).first(size)); });
    };
    EXPECT_EQ(head(2, 0), bytes_of({0xc4, 0}));
    EXPECT_EQ(head(2, 255), bytes_of({0xc4, 0xff}));
    EXPECT_EQ(head(3, 256), bytes_of({0xc5, 1, 0}));
    EXPECT_EQ(head(5, 65536), bytes_of({0xc6, 0, 1, 0, 0}));
}

TEST(Writer, CountsTakeTheirShortestForm) {
    const auto array = [](std::size_t n) { return written([&](Writer& out) { out.array(n); }); };
    EXPECT_EQ(array(0), bytes_of({0x90}));
    EXPECT_EQ(array(15), bytes_of({0x9f}));
    EXPECT_EQ(array(16), bytes_of({0xdc, 0, 16}));
    EXPECT_EQ(array(65536), bytes_of({0xdd, 0, 1, 0, 0}));

    const auto map = [](std::size_t n) { return written([&](Writer& out) { out.map(n); }); };
    EXPECT_EQ(map(0), bytes_of({0x80}));
    EXPECT_EQ(map(15), bytes_of({0x8f}));
    EXPECT_EQ(map(16), bytes_of({0xde, 0, 16}));
    EXPECT_EQ(map(65536), bytes_of({0xdf, 0, 1, 0, 0}));
}

TEST(Writer, ExtensionsTakeTheirShortestForm) {
    const Bytes data(65536);
    const auto head = [&](std::size_t bytes, std::size_t size) {
        return head_of(bytes, size, [&](Writer& out) {
            out.extension(Extension::ByteArray, std::span(data).first(size));
        });
    };
    EXPECT_EQ(head(3, 0), bytes_of({0xc7, 0, 5}));
    EXPECT_EQ(head(2, 1), bytes_of({0xd4, 5}));
    EXPECT_EQ(head(2, 2), bytes_of({0xd5, 5}));
    EXPECT_EQ(head(3, 3), bytes_of({0xc7, 3, 5}));
    EXPECT_EQ(head(2, 4), bytes_of({0xd6, 5}));
    EXPECT_EQ(head(2, 8), bytes_of({0xd7, 5}));
    EXPECT_EQ(head(2, 16), bytes_of({0xd8, 5}));
    EXPECT_EQ(head(3, 17), bytes_of({0xc7, 17, 5}));
    EXPECT_EQ(head(4, 256), bytes_of({0xc8, 1, 0, 5}));
    EXPECT_EQ(head(6, 65536), bytes_of({0xc9, 0, 1, 0, 0, 5}));
}

TEST(Writer, ExtensionsWithABodyOfUnknownLength) {
    EXPECT_EQ(written([](Writer& out) {
                  const std::size_t mark = out.begin_extension(Extension::Tuple);
                  out.array(1);
                  out.integer(7);
                  out.end_extension(mark);
              }),
              bytes_of({0xc7, 2, 1, 0x91, 7}));
}

TEST(Writer, LongBodiesInsideLongBodies) {
    const std::string text(300, 'y');
    const Bytes all = written([&](Writer& out) {
        const std::size_t outer = out.begin_extension(Extension::Tuple);
        out.array(2);
        const std::size_t inner = out.begin_extension(Extension::Tuple);
        out.array(1);
        out.text(text);
        out.end_extension(inner);
        out.nil();
        out.end_extension(outer);
        out.boolean(true);
    });
    // Outer head 6, array 1, inner head 6, array 1, text head 3, text, nil; then the boolean.
    ASSERT_EQ(all.size(), 6U + 1 + 6 + 1 + 3 + 300 + 1 + 1);
    EXPECT_EQ(Bytes(all.begin(), all.begin() + 17),
              bytes_of({0xc9, 0, 0, 0x01, 0x38, 1, 0x92, 0xc9, 0, 0, 0x01, 0x30, 1, 0x91, 0xda,
                        0x01, 0x2c}));
    EXPECT_EQ(all[all.size() - 2], std::byte{0xc0});
    EXPECT_EQ(all.back(), std::byte{0xc3});
}

TEST(Writer, AFullBufferFailsAndStaysFailed) {
    for (std::size_t room = 0; room < 12; ++room) {
        Bytes buffer(room + 1, std::byte{0xee});
        Writer out{std::span(buffer).first(room)};
        out.text("twelve bytes");
        EXPECT_EQ(out.fault(), Fault::TooLarge);
        EXPECT_EQ(buffer[room], std::byte{0xee}) << "wrote behind the buffer";
        const std::size_t size = out.size();
        out.nil();
        EXPECT_EQ(out.size(), size);
    }
}

TEST(Writer, NoCallWritesBehindTheBuffer) {
    const std::array<void (*)(Writer&), 8> calls{
        [](Writer& out) { out.integer(-40000); },
        [](Writer& out) { out.real(2.5); },
        [](Writer& out) { out.complex(1, 2); },
        [](Writer& out) { out.array(70000); },
        [](Writer& out) { out.extension(Extension::BigInt, std::array<std::byte, 9>{}); },
        [](Writer& out) { out.extension(Extension::BigInt, std::array<std::byte, 4>{}); },
        [](Writer& out) { out.end_extension(out.begin_extension(Extension::Tuple)); },
        [](Writer& out) {
            const std::size_t mark = out.begin_extension(Extension::Tuple);
            out.raw(std::array<std::byte, 300>{});
            out.end_extension(mark);
        },
    };
    for (const auto call : calls) {
        Bytes large(1000);
        Writer sized(large);
        call(sized);
        for (std::size_t room = 0; room <= sized.size(); ++room) {
            Bytes exact(room);  // AddressSanitizer guards its end
            Writer out(exact);
            call(out);
            EXPECT_EQ(out.fault() == Fault::None, room == sized.size());
        }
    }
}

struct GrowingRoom {
    Bytes bytes;
    int calls = 0;

    static std::span<std::byte> grow(void* context, std::size_t used, std::size_t needed) noexcept {
        auto& self = *static_cast<GrowingRoom*>(context);
        EXPECT_GE(needed, used);
        self.bytes.resize(needed);
        ++self.calls;
        return self.bytes;
    }
};

TEST(Writer, GrowsThroughItsCallback) {
    GrowingRoom room;
    Writer out({}, &GrowingRoom::grow, &room);
    out.array(2);
    out.text("hello");
    out.integer(1);
    EXPECT_EQ(out.fault(), Fault::None);
    EXPECT_EQ(Bytes(out.written().begin(), out.written().end()),
              bytes_of({0x92, 0xa5, 'h', 'e', 'l', 'l', 'o', 1}));
    EXPECT_GT(room.calls, 1);
}

TEST(Writer, ACallbackThatGivesNothingFails) {
    const Writer::Grow refuse = [](void*, std::size_t, std::size_t) noexcept {
        return std::span<std::byte>{};
    };
    Writer out({}, refuse, nullptr);
    out.nil();
    EXPECT_EQ(out.fault(), Fault::TooLarge);
    EXPECT_EQ(out.size(), 0U);
}

TEST(Writer, ClearStartsAgain) {
    std::array<std::byte, 4> room;
    Writer out(room);
    out.text("too long for it");
    EXPECT_EQ(out.fault(), Fault::TooLarge);
    out.clear();
    out.integer(5);
    EXPECT_EQ(out.fault(), Fault::None);
    EXPECT_EQ(out.size(), 1U);
}

TEST(Writer, ContainersOfFourThousandMillionAreRefused) {
    std::array<std::byte, 16> room;
    Writer out(room);
    out.array(std::size_t{1} << 32U);
    EXPECT_EQ(out.fault(), Fault::TooLarge);
}

}  // namespace
}  // namespace penstock::codec

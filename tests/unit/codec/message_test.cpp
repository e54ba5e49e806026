// Whole messages: what MessageWriter lays out, and what MessageReader refuses.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "codec/layout.hpp"
#include "penstock/codec.hpp"

namespace penstock::codec {
namespace {

// Memory as a segment gives it: aligned to 64 bytes and not zeroed.
class Room {
public:
    explicit Room(std::size_t size) : memory_(size + kAlignment, std::byte{0xee}), size_(size) {}

    [[nodiscard]] std::span<std::byte> bytes() {
        const auto start = reinterpret_cast<std::uintptr_t>(memory_.data());
        return std::span(memory_).subspan((kAlignment - start % kAlignment) % kAlignment, size_);
    }

private:
    std::vector<std::byte> memory_;
    std::size_t size_;
};

// Copying a Room may move its aligned part: hand it on only by move.
Room written(const MessageWriter& message, bool pickle = false) {
    Room room(message.nbytes());
    message.write(room.bytes().data(), pickle);
    return room;
}

constexpr std::array<float, 6> kNumbers{1, 2, 3, 4, 5, 6};
constexpr std::array<std::int64_t, 2> kShape{2, 3};

TEST(Message, WithoutTensorsIsAHeaderAndItsStructure) {
    MessageWriter message;
    message.structure().integer(7);
    EXPECT_FALSE(message.has_tensors());
    ASSERT_EQ(message.nbytes(), 17U);
    Room room = written(message);
    const std::array<int, 17> expected{'P', 'S', 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7};
    for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(static_cast<int>(room.bytes()[i]), expected[i]) << "at " << i;
    }
    MessageReader reader;
    ASSERT_EQ(open(room.bytes(), reader), Fault::None);
    Reader in = reader.structure();
    Token token;
    ASSERT_TRUE(in.next(token));
    EXPECT_EQ(token.integer, 7);
    EXPECT_TRUE(in.at_end());
    EXPECT_EQ(reader.tensors(), 0U);
    EXPECT_FALSE(reader.is_pickle());
    EXPECT_EQ(check(room.bytes()), Fault::None);
}

TEST(Message, TensorsAreAlignedAndGapsAreZero) {
    const std::array<std::int64_t, 1> seven{7};
    const std::array<std::byte, 7> bytes{};
    MessageWriter message;
    message.structure().array(2);
    message.tensor({.dtype = DType::UInt8, .shape = seven, .data = bytes.data()});
    message.tensor({.dtype = DType::Float32, .shape = kShape, .data = kNumbers.data()});
    EXPECT_TRUE(message.has_tensors());
    // Structure to 25, table at 32, dims at 80, payloads at 128 and 192.
    ASSERT_EQ(message.nbytes(), 192 + sizeof(kNumbers));
    Room room = written(message);
    const std::span<std::byte> all = room.bytes();
    const auto is_zero = [](std::byte byte) { return byte == std::byte{0}; };
    EXPECT_TRUE(std::all_of(all.begin() + 25, all.begin() + 32, is_zero));
    EXPECT_TRUE(std::all_of(all.begin() + 104, all.begin() + 192, is_zero));
    EXPECT_TRUE(std::ranges::equal(all.subspan(192), std::as_bytes(std::span(kNumbers))));

    MessageReader reader;
    ASSERT_EQ(open(all, reader), Fault::None);
    ASSERT_EQ(reader.tensors(), 2U);
    TensorView view;
    ASSERT_EQ(reader.tensor(1, view), Fault::None);
    EXPECT_EQ(view.dtype, DType::Float32);
    EXPECT_EQ(view.order, Order::C);
    EXPECT_EQ(view.source, Source::NumPy);
    EXPECT_TRUE(std::ranges::equal(view.shape(), kShape));
    EXPECT_EQ(view.data.data(), all.data() + 192);
    EXPECT_EQ(view.data.size(), sizeof(kNumbers));
    EXPECT_EQ(reader.tensor(2, view), Fault::BadTensor);
    EXPECT_EQ(check(all), Fault::None);
}

// The items of tensor `index` as the receiver reads them, in memory order.
std::vector<float> items_of(const MessageReader& reader, std::uint64_t index, Order order) {
    TensorView view;
    EXPECT_EQ(reader.tensor(index, view), Fault::None);
    EXPECT_EQ(view.order, order);
    std::vector<float> items(view.data.size() / sizeof(float));
    std::memcpy(items.data(), view.data.data(), view.data.size());
    return items;
}

TEST(Message, OrdersAndStrides) {
    const std::array<std::int64_t, 2> fortran{4, 8};
    const std::array<std::int64_t, 2> c{12, 4};
    const std::array<std::int64_t, 2> reversed{-12, 4};
    MessageWriter message;
    message.structure().nil();
    message.add({.dtype = DType::Float32, .shape = kShape, .strides = c, .data = kNumbers.data()});
    message.add(
        {.dtype = DType::Float32, .shape = kShape, .strides = fortran, .data = kNumbers.data()});
    message.add({.dtype = DType::Float32,
                 .shape = kShape,
                 .strides = reversed,
                 .data = kNumbers.data() + 3});
    Room room = written(message);
    MessageReader reader;
    ASSERT_EQ(open(room.bytes(), reader), Fault::None);
    EXPECT_EQ(items_of(reader, 0, Order::C), (std::vector<float>{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(items_of(reader, 1, Order::Fortran), (std::vector<float>{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(items_of(reader, 2, Order::C), (std::vector<float>{4, 5, 6, 1, 2, 3}));
}

TEST(Message, EmptyTensorsAndScalars) {
    const std::array<std::int64_t, 3> empty{3, 0, 2};
    MessageWriter message;
    message.structure().array(2);
    message.tensor({.dtype = DType::Int64, .shape = empty, .data = nullptr});
    message.tensor({.dtype = DType::Float32, .shape = {}, .data = kNumbers.data()});
    Room room = written(message);
    MessageReader reader;
    ASSERT_EQ(open(room.bytes(), reader), Fault::None);
    TensorView view;
    ASSERT_EQ(reader.tensor(0, view), Fault::None);
    EXPECT_TRUE(view.data.empty());
    EXPECT_TRUE(std::ranges::equal(view.shape(), empty));
    ASSERT_EQ(reader.tensor(1, view), Fault::None);
    EXPECT_EQ(view.ndim, 0);
    EXPECT_EQ(view.data.size(), 4U);
    EXPECT_EQ(check(room.bytes()), Fault::None);
}

TEST(Message, LongBytesGoOutOfBand) {
    const std::vector<std::byte> data(kOutOfBand, std::byte{5});
    MessageWriter message;
    message.structure().array(2);
    message.bytes(std::span(data).first(kOutOfBand - 1));
    EXPECT_FALSE(message.has_tensors());
    message.bytes(data);
    EXPECT_TRUE(message.has_tensors());
    Room room = written(message);
    EXPECT_EQ(check(room.bytes()), Fault::None);
    MessageReader reader;
    ASSERT_EQ(open(room.bytes(), reader), Fault::None);
    TensorView view;
    ASSERT_EQ(reader.tensor(0, view), Fault::None);
    EXPECT_EQ(view.source, Source::Bytes);
    EXPECT_TRUE(std::ranges::equal(view.data, data));
}

TEST(Message, ThePickleFlagTravels) {
    MessageWriter message;
    message.structure().raw(std::as_bytes(std::span("not MessagePack")));
    Room room = written(message, true);
    MessageReader reader;
    ASSERT_EQ(open(room.bytes(), reader), Fault::None);
    EXPECT_TRUE(reader.is_pickle());
    EXPECT_EQ(check(room.bytes()), Fault::None);
}

TEST(Message, AWriterIsUsedAgain) {
    MessageWriter message;
    for (std::size_t round = 0; round < 4; ++round) {
        message.clear();
        message.structure().array(2);
        message.structure().text(std::string((round % 3) * 700'000, 'x'));
        message.tensor({.dtype = DType::Float32, .shape = kShape, .data = kNumbers.data()});
        ASSERT_EQ(message.structure().fault(), Fault::None);
        Room room = written(message);
        ASSERT_EQ(check(room.bytes()), Fault::None);
        MessageReader reader;
        ASSERT_EQ(open(room.bytes(), reader), Fault::None);
        EXPECT_EQ(reader.tensors(), 1U);
    }
}

TEST(Message, TooManyDimensionsAreRefused) {
    const std::vector<std::int64_t> shape(kMaxDims + 1, 1);
    MessageWriter message;
    message.tensor({.dtype = DType::Float32, .shape = shape, .data = kNumbers.data()});
    EXPECT_EQ(message.structure().fault(), Fault::BadTensor);
    message.clear();
    EXPECT_EQ(message.structure().fault(), Fault::None);
}

// --- refusals -----------------------------------------------------------------------------------

// A good message with one tensor, whose header, entry and dims the tests then spoil.
class SpoiledMessage {
public:
    SpoiledMessage() : room_(0) {
        MessageWriter message;
        message.tensor({.dtype = DType::Float32, .shape = kShape, .data = kNumbers.data()});
        room_ = written(message);
    }

    // The result of check() after a change of the struct at `offset`.
    template <typename Struct, typename Change>
    Fault change(std::size_t offset, Change change) {
        Struct value;
        std::memcpy(&value, room_.bytes().data() + offset, sizeof(value));
        change(value);
        std::memcpy(room_.bytes().data() + offset, &value, sizeof(value));
        return check(room_.bytes());
    }

    [[nodiscard]] std::span<std::byte> bytes() { return room_.bytes(); }

private:
    Room room_;
};

constexpr std::uint64_t kHuge = ~std::uint64_t{0};

TEST(SpoiledMessage, Headers) {
    using layout::Header;
    const auto header = [](auto change) { return SpoiledMessage().change<Header>(0, change); };
    EXPECT_EQ(header([](Header&) {}), Fault::None);
    EXPECT_EQ(header([](Header& h) { h.magic = 0x4b50; }), Fault::NotAMessage);
    EXPECT_EQ(header([](Header& h) { h.version = 2; }), Fault::OtherVersion);
    EXPECT_EQ(header([](Header& h) { h.flags = 2; }), Fault::OtherVersion);
    EXPECT_EQ(header([](Header& h) { h.tensors = 10; }), Fault::Truncated);
    EXPECT_EQ(header([](Header& h) { h.tensors = 0xffffffff; }), Fault::Truncated);
    EXPECT_EQ(header([](Header& h) { h.structure = 1000; }), Fault::Truncated);
    EXPECT_EQ(header([](Header& h) { h.structure = kHuge; }), Fault::Truncated);
    EXPECT_EQ(header([](Header& h) { h.structure = kHuge - 15; }), Fault::Truncated);
    EXPECT_EQ(header([](Header& h) { h.structure = 2; }), Fault::Truncated);
    EXPECT_EQ(header([](Header& h) { h.structure = 5; }), Fault::Trailing);
}

TEST(SpoiledMessage, Entries) {
    using Entry = layout::TensorEntry;
    const auto entry = [](auto change) { return SpoiledMessage().change<Entry>(24, change); };
    EXPECT_EQ(entry([](Entry&) {}), Fault::None);
    EXPECT_EQ(entry([](Entry& e) { e.dtype = 0; }), Fault::UnknownDType);
    EXPECT_EQ(entry([](Entry& e) { e.dtype = 24; }), Fault::UnknownDType);
    EXPECT_EQ(entry([](Entry& e) { e.dtype = 1; }), Fault::BadTensor);
    EXPECT_EQ(entry([](Entry& e) { e.dtype = 255; }), Fault::None);  // its size is unknown here
    EXPECT_EQ(entry([](Entry& e) { e.ndim = 65; }), Fault::BadTensor);
    EXPECT_EQ(entry([](Entry& e) { e.ndim = 1; }), Fault::BadTensor);
    EXPECT_EQ(entry([](Entry& e) { e.order = 2; }), Fault::BadTensor);
    EXPECT_EQ(entry([](Entry& e) { e.source = 4; }), Fault::BadTensor);
    EXPECT_EQ(entry([](Entry& e) { e.offset += 1; }), Fault::BadTensor);
    EXPECT_EQ(entry([](Entry& e) { e.offset += 64; }), Fault::BadTensor);
    EXPECT_EQ(entry([](Entry& e) { e.offset = kHuge - 63; }), Fault::BadTensor);
    EXPECT_EQ(entry([](Entry& e) { e.nbytes += 1; }), Fault::BadTensor);
    EXPECT_EQ(entry([](Entry& e) { e.nbytes = kHuge; }), Fault::BadTensor);
    EXPECT_EQ(entry([](Entry& e) { e.first_dim = 1000; }), Fault::BadTensor);
    EXPECT_EQ(entry([](Entry& e) { e.first_dim = 0xffffffff; }), Fault::BadTensor);
}

TEST(SpoiledMessage, Dims) {
    using Dims = std::array<std::uint64_t, 2>;
    const auto dims = [](std::uint64_t first, std::uint64_t second) {
        return SpoiledMessage().change<Dims>(48, [&](Dims& d) { d = {first, second}; });
    };
    EXPECT_EQ(dims(2, 3), Fault::None);
    EXPECT_EQ(dims(3, 2), Fault::None);
    EXPECT_EQ(dims(2, 4), Fault::BadTensor);
    EXPECT_EQ(dims(0, 3), Fault::BadTensor);
    EXPECT_EQ(dims(std::uint64_t{1} << 32U, std::uint64_t{1} << 32U), Fault::BadTensor);
    EXPECT_EQ(dims((std::uint64_t{1} << 62U) + 1, 6), Fault::BadTensor);  // 24 modulo 2^64
    EXPECT_EQ(dims(kHuge, 0), Fault::BadTensor);
}

TEST(SpoiledMessage, CutAnywhere) {
    SpoiledMessage message;
    const std::span<const std::byte> whole = message.bytes();
    for (std::size_t size = 0; size < whole.size(); ++size) {
        // A copy of exactly that size, so that AddressSanitizer guards its end.
        const std::vector<std::byte> part(whole.begin(),
                                          whole.begin() + static_cast<std::ptrdiff_t>(size));
        EXPECT_NE(check(part), Fault::None) << "cut to " << size;
        MessageReader reader;
        TensorView view;
        if (open(part, reader) == Fault::None) {
            EXPECT_EQ(reader.tensor(0, view), Fault::BadTensor);
        }
    }
}

}  // namespace
}  // namespace penstock::codec

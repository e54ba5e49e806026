// The copy of the newest small record beside the writer's position: used when it is the wanted
// record, and ignored when it is not.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <functional>
#include <optional>
#include <thread>

#include "broadcast/layout.hpp"
#include "penstock/broadcast.hpp"
#include "segment/words/atomics.hpp"
#include "tests/unit/broadcast/broadcast_corruptor.hpp"
#include "tests/unit/broadcast/broadcast_fixture.hpp"

namespace penstock {
namespace {

using namespace test;
using layout::RecordHeader;
using layout::WriterLine;

constexpr std::size_t kMax = WriterLine::kMaxBytes;

class NewestTest : public BroadcastTest {
protected:
    // The next message is `number`, and nothing behind its end is written to the buffer.
    ::testing::AssertionResult receives_into(BroadcastReader& reader, std::uint64_t number,
                                             std::size_t size) {
        std::array<std::byte, 256> buffer{};
        buffer.fill(std::byte{0xEE});
        const Result<std::size_t> got = reader.recv_into(buffer, kLong);
        if (!got) return succeeds(got);
        if (buffer[*got] != std::byte{0xEE}) {
            return ::testing::AssertionFailure() << "written beyond the message";
        }
        return is_message(std::span(buffer).first(*got), number, size);
    }
};

TEST_F(NewestTest, EverySizeComesOverWhole) {
    const std::string name = new_name();
    BroadcastWriter writer = BroadcastWriter::create(name, small());
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    std::uint64_t number = 0;
    for (int lap = 0; lap < 5; ++lap) {
        for (std::size_t size = 0; size <= kMax + 16; ++size, ++number) {
            ASSERT_TRUE(succeeds(send(writer, number, size)));
            ASSERT_TRUE(receives_into(reader, number, size)) << size;
        }
    }
}

TEST_F(NewestTest, LoansAreCopiedToo) {
    const std::string name = new_name();
    BroadcastWriter writer = BroadcastWriter::create(name, small());
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    const BroadcastCorruptor corruptor(name);
    Result<BroadcastLoan> loan = writer.loan(kMax, kLong);
    ASSERT_TRUE(succeeds(loan));
    trust::fill_numbered(loan->bytes(), 7);
    ASSERT_TRUE(succeeds(loan->commit()));
    corruptor.clear_ring();
    EXPECT_TRUE(receives_into(reader, 7, kMax));
}

// Each record lies in memory twice: clearing the ring shows which of the two was read.
TEST_F(NewestTest, IsReadInsteadOfTheRing) {
    const std::string name = new_name();
    BroadcastWriter writer = BroadcastWriter::create(name, small());
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    const BroadcastCorruptor corruptor(name);
    for (std::uint64_t number = 0; number < 3; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 64)));
        corruptor.clear_ring();
        EXPECT_TRUE(receives_into(reader, number, 64)) << number;
    }
}

TEST_F(NewestTest, ALaggingReaderReadsTheRing) {
    const std::string name = new_name();
    BroadcastWriter writer = BroadcastWriter::create(name, small());
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    for (std::uint64_t number = 0; number < 3; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 64)));
    }
    for (std::uint64_t number = 0; number < 3; ++number) {
        EXPECT_TRUE(receives_into(reader, number, 64)) << number;
    }
}

TEST_F(NewestTest, ATooSmallBufferLeavesTheMessage) {
    const std::string name = new_name();
    BroadcastWriter writer = BroadcastWriter::create(name, small());
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    ASSERT_TRUE(succeeds(send(writer, 0, 64)));
    std::array<std::byte, 63> buffer{};
    EXPECT_TRUE(fails(reader.recv_into(buffer, kLong), ErrorCode::TooLarge));
    EXPECT_TRUE(receives_into(reader, 0, 64));
}

// A replacement may find a copy that is older than its start, or newer than its count.
TEST_F(NewestTest, AReplacementCountsByTheRing) {
    const std::string name = new_name();
    BroadcastWriter writer = BroadcastWriter::create(name, small());
    std::optional<BroadcastReader> first(BroadcastReader::attach(name, 0));
    ASSERT_TRUE(succeeds(send(writer, 0, 64)));
    first.reset();
    BroadcastReader second = BroadcastReader::attach(name, 0);
    ASSERT_TRUE(succeeds(send(writer, 1, 64)));
    ASSERT_TRUE(succeeds(send(writer, 2, 64)));
    EXPECT_TRUE(receives(second, 1, 64, 1));
    EXPECT_TRUE(receives_into(second, 2, 64));
    ASSERT_TRUE(succeeds(send(writer, 3, 64)));
    EXPECT_TRUE(receives_into(second, 3, 64));
}

struct Lie {
    const char* label;
    std::function<void(WriterLine&)> tell;
};

void PrintTo(const Lie& lie, std::ostream* out) {
    *out << lie.label;
}

class NewestLieTest : public NewestTest, public ::testing::WithParamInterface<Lie> {};

TEST_P(NewestLieTest, IsNotBelieved) {
    const std::string name = new_name();
    BroadcastWriter writer = BroadcastWriter::create(name, small());
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    const BroadcastCorruptor corruptor(name);
    ASSERT_TRUE(succeeds(send(writer, 0, 64)));
    for (auto& word : corruptor.writer().newest_words) word = ~std::uint64_t{0};
    GetParam().tell(corruptor.writer());
    EXPECT_TRUE(receives_into(reader, 0, 64));
}

template <typename Change>
auto in_header(Change change) {
    return [change](WriterLine& line) {
        RecordHeader header = layout::decode_record(line.newest_header);
        change(header);
        line.newest_header = layout::encode_record(header);
    };
}

INSTANTIATE_TEST_SUITE_P(
    All, NewestLieTest,
    ::testing::Values(
        Lie{"AnotherRecord", [](WriterLine& line) { line.newest_end += 8; }},
        Lie{"Nothing", [](WriterLine& line) { line.newest_header = 0; }},
        Lie{"ABlock", in_header([](RecordHeader& h) { h.kind = layout::RecordKind::Block; })},
        Lie{"AnotherTag", in_header([](RecordHeader& h) { ++h.tag; })},
        Lie{"TooLong", in_header([](RecordHeader& h) { h.length = kMax + 1; })},
        Lie{"MuchTooLong", in_header([](RecordHeader& h) { h.length = layout::kLongestPayload; })},
        Lie{"Shorter", in_header([](RecordHeader& h) { h.length = 8; })},
        Lie{"Elsewhere", in_header([](RecordHeader& h) { h.skip = 3; })}),
    [](const auto& lie) { return lie.param.label; });

// Ping-pong with bursts, so that copies are taken, overtaken and skipped.
TEST_F(NewestTest, NoCopyIsTorn) {
    constexpr std::uint64_t kMessages = 200'000;
    const std::string name = new_name();
    BroadcastWriter writer = BroadcastWriter::create(name, small());
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    const auto size_of = [](std::uint64_t number) { return std::size_t{1} + number * 7 % kMax; };
    std::atomic<std::uint64_t> received = 0;
    std::thread sender([&] {
        for (std::uint64_t number = 0; number < kMessages; ++number) {
            ASSERT_TRUE(succeeds(send(writer, number, size_of(number), kLong)));
            const bool ends_a_burst = number % 1024 < 512 || number % 32 == 0;
            while (ends_a_burst && detail::load_acquire(received) <= number &&
                   detail::load_relaxed(received) != ~std::uint64_t{0}) {
            }
        }
    });
    for (std::uint64_t number = 0; number < kMessages; ++number) {
        const auto verdict = receives_into(reader, number, size_of(number));
        detail::store_release(received, verdict ? number + 1 : ~std::uint64_t{0});
        EXPECT_TRUE(verdict);
        if (!verdict) break;
    }
    if (HasFailure()) writer.request_close();
    sender.join();
}

}  // namespace
}  // namespace penstock

// The ring: every message arrives whole and in order, at every size and offset, with any number of
// readers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "penstock/broadcast.hpp"
#include "tests/unit/broadcast/broadcast_fixture.hpp"

namespace penstock {
namespace {

using namespace test;

class RingTest : public BroadcastTest {};

TEST_F(RingTest, MessagesOfAnySizeArriveInOrder) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    const std::size_t quarter = kSmallest / 4;
    std::uint64_t number = 0;
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{8}, std::size_t{9},
          std::size_t{63}, std::size_t{64}, std::size_t{65}, quarter - 1, quarter, quarter + 1,
          kSmallest, kSmallest + 1, kGranule, kGranule + 1, 5 * kGranule}) {
        ASSERT_TRUE(succeeds(send(writer, number, size))) << size;
        EXPECT_TRUE(receives(reader, number, size)) << size;
        ++number;
    }
    EXPECT_TRUE(receives_nothing(reader));
}

TEST_F(RingTest, FormatsTravelWithTheirMessages) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    for (const Format format : {Format::Typed, Format::Bytes, Format::Pickle}) {
        for (const std::size_t size : {std::size_t{10}, kGranule}) {
            ASSERT_TRUE(succeeds(writer.send(make_message(1, size), {}, format)));
            const Result<BroadcastMessage> message = reader.recv(kLong);
            ASSERT_TRUE(succeeds(message));
            EXPECT_EQ(message->format(), format);
        }
    }
}

// Follows the offset of messages in the ring, by their addresses.
class Cursor {
public:
    explicit Cursor(std::span<const std::byte> first) : ring_(first.data() - 8) { pass(first); }
    void pass(std::span<const std::byte> message) {
        const auto start = static_cast<std::uint64_t>(message.data() - ring_);
        offset_ = (start + (message.size() + 7) / 8 * 8) % kSmallest;
    }
    [[nodiscard]] std::uint64_t offset() const { return offset_; }

private:
    const std::byte* ring_;
    std::uint64_t offset_ = 0;
};

TEST_F(RingTest, WrapsAtEveryOffset) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1, 0));
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    std::uint64_t number = 0;
    const auto exchange = [&](std::size_t size) {
        EXPECT_TRUE(succeeds(send(writer, number, size)));
        Result<BroadcastMessage> message = reader.recv(Deadline::now());
        EXPECT_TRUE(succeeds(message));
        EXPECT_TRUE(is_message(message->bytes(), number++, size));
        return std::move(message).or_throw();
    };
    Cursor cursor(exchange(0).bytes());
    for (std::uint64_t offset = 0; offset < kSmallest; offset += 8) {
        const std::size_t room = std::min<std::size_t>(kSmallest - offset, kSmallest / 4);
        // Sizes that end exactly at the end of the ring, one byte beyond it, the largest, and zero.
        for (const std::size_t size : {room - 8, room - 7, kSmallest / 4, std::size_t{0}}) {
            while (cursor.offset() != offset) cursor.pass(exchange(0).bytes());
            for (const std::size_t each : {size, std::size_t{20}}) {
                cursor.pass(exchange(each).bytes());
            }
        }
        ASSERT_FALSE(HasFailure()) << "at offset " << offset;
    }
}

TEST_F(RingTest, LoansAreAlignedAtEveryOffset) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1, 0));
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    std::uint64_t number = 0;
    for (std::uint64_t round = 0; round < 3 * kSmallest / 8; ++round) {
        const std::size_t size = 1 + round % (kSmallest / 4);
        Result<BroadcastLoan> loan = writer.loan(size, Deadline::now());
        ASSERT_TRUE(succeeds(loan));
        ASSERT_EQ(loan->bytes().size(), size);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(loan->bytes().data()) % 64, 0U);
        trust::fill_numbered(loan->bytes(), number);
        ASSERT_TRUE(succeeds(loan->commit()));
        const Result<BroadcastMessage> message = reader.recv(kLong);
        ASSERT_TRUE(succeeds(message));
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(message->bytes().data()) % 64, 0U);
        ASSERT_TRUE(is_message(message->bytes(), number++, size));
        // An empty message moves the next loan by one step of eight bytes.
        ASSERT_TRUE(succeeds(send(writer, number, 0)));
        ASSERT_TRUE(receives(reader, number++, 0));
    }
}

TEST_F(RingTest, FillsToTheLastByte) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1, 0));
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    constexpr std::uint64_t kRecords = kSmallest / 64;
    EXPECT_EQ(fill_ring(writer, 0, 56), kRecords);
    EXPECT_EQ(writer.stats().used_bytes, kSmallest);
    EXPECT_TRUE(receives(reader, 0, 56));
    EXPECT_TRUE(succeeds(send(writer, kRecords, 56))) << "what was released is room";
    EXPECT_TRUE(fails(send(writer, 0, 56), ErrorCode::Timeout));
    for (std::uint64_t number = 1; number <= kRecords; ++number) {
        ASSERT_TRUE(receives(reader, number, 56));
    }
}

// ---- the origin of the ring

// Where messages lie, by their addresses: the first one lies at the beginning of the ring.
class Places {
public:
    explicit Places(std::span<const std::byte> first) : ring_(first.data()) {}
    void add(std::span<const std::byte> message) {
        const auto end = static_cast<std::uint64_t>(message.data() - ring_) + message.size();
        furthest_ = std::max(furthest_, end);
    }
    [[nodiscard]] std::uint64_t furthest() const { return furthest_; }

private:
    const std::byte* ring_;
    std::uint64_t furthest_ = 0;
};

constexpr std::uint64_t kWide = std::uint64_t{1} << 20U;
constexpr std::uint64_t kWarm = std::uint64_t{32} << 10U;

BroadcastOptions wide(unsigned readers) {
    BroadcastOptions options = small(readers);
    options.capacity = kWide;
    return options;
}

TEST_F(RingTest, AConversationUsesTheBeginningOfTheRing) {
    for (const std::size_t size : {std::size_t{56}, std::size_t{1000}, std::size_t{50'000}}) {
        BroadcastWriter writer = BroadcastWriter::create(new_name(), wide(2));
        BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
        BroadcastReader other = BroadcastReader::attach(writer.name(), 1);
        std::optional<Places> places;
        for (std::uint64_t number = 0; number < 2 * kWide / size; ++number) {
            ASSERT_TRUE(succeeds(send(writer, number, size)));
            const Result<BroadcastMessage> message = reader.recv(kLong);
            ASSERT_TRUE(succeeds(message));
            ASSERT_TRUE(is_message(message->bytes(), number, size));
            if (!places) places.emplace(message->bytes());
            places->add(message->bytes());
            ASSERT_TRUE(receives(other, number, size));
        }
        EXPECT_LE(places->furthest(), kWarm + size);
    }
}

TEST_F(RingTest, TheWholeRingHasRoomAfterARewind) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), wide(1));
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    std::uint64_t number = 0;
    for (; number < kWide / 64 + 7; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 56)));
        ASSERT_TRUE(receives(reader, number, 56));
    }
    const std::uint64_t sent = fill_ring(writer, number, 56);
    EXPECT_EQ(sent, kWide / 64);
    for (const std::uint64_t end = number + sent; number < end; ++number) {
        ASSERT_TRUE(receives(reader, number, 56));
    }
    EXPECT_TRUE(receives_nothing(reader));
}

TEST_F(RingTest, NothingIsRewoundWhileAReaderIsBehindOrHoldsAMessage) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), wide(2));
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    BroadcastReader behind = BroadcastReader::attach(writer.name(), 1);
    constexpr std::size_t kSize = 20'000;
    ASSERT_TRUE(succeeds(send(writer, 0, kSize)));
    ASSERT_TRUE(receives(behind, 0, kSize));
    Result<BroadcastMessage> held = reader.recv(kLong);
    ASSERT_TRUE(succeeds(held));
    Places places(held->bytes());
    std::uint64_t number = 1;
    for (; number < 20; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, kSize)));
        const Result<BroadcastMessage> message = reader.recv(kLong);
        places.add(message->bytes());
        ASSERT_TRUE(receives(behind, number, kSize));
        ASSERT_TRUE(is_message(held->bytes(), 0, kSize)) << "while " << number << " is sent";
    }
    EXPECT_GT(places.furthest(), 19 * kSize);
    held = Status(ErrorCode::Closed, "released");
    for (const std::uint64_t end = number + 20; number < end; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, kSize)));
        ASSERT_TRUE(receives(reader, number, kSize));
    }
    for (number = 20; number < 40; ++number) ASSERT_TRUE(receives(behind, number, kSize));
}

// Readers that come and go between rewinds find the ring where the writer has moved it.
TEST_F(RingTest, ReplacementsReadAfterARewind) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), wide(2));
    BroadcastReader steady = BroadcastReader::attach(writer.name(), 0);
    std::optional<BroadcastReader> guest = BroadcastReader::attach(writer.name(), 1);
    std::minstd_rand random(20);
    for (std::uint64_t number = 0; number < 2000; ++number) {
        const std::size_t size = random() % 30'000;
        ASSERT_TRUE(succeeds(send(writer, number, size)));
        ASSERT_TRUE(receives(steady, number, size));
        if (guest) {
            ASSERT_TRUE(receives(*guest, number, size));
        }
        if (random() % 7 != 0) continue;
        if (guest) {
            guest.reset();
        } else {
            guest = BroadcastReader::attach(writer.name(), 1);
        }
    }
}

TEST_F(RingTest, EveryReaderGetsEveryMessage) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(3));
    std::vector<BroadcastReader> readers;
    for (unsigned rank = 0; rank < 3; ++rank) {
        readers.push_back(BroadcastReader::attach(writer.name(), rank));
    }
    for (std::uint64_t number = 0; number < 500; ++number) {
        const std::size_t size = number * 37 % 1500;
        ASSERT_TRUE(succeeds(send(writer, number, size)));
        for (BroadcastReader& reader : readers) ASSERT_TRUE(receives(reader, number, size));
    }
}

// How a reader process receives.
enum class Manner : std::uint8_t { InPlace, Holding, Copying };

std::size_t size_of(std::uint64_t number) {
    std::minstd_rand random(static_cast<std::uint32_t>(number + 1));
    random.discard(2);
    constexpr std::size_t kLarge = 70'000;
    return random() % 50 == 0 ? kLarge + random() % kLarge : random() % 1200;
}

void check(std::span<const std::byte> bytes, std::uint64_t number) {
    require(bytes.size() == size_of(number));
    require(trust::check_numbered(bytes, number).empty());
}

void receive_all(const std::string& name, unsigned rank, Manner manner, std::uint64_t messages) {
    BroadcastReader reader = BroadcastReader::attach(name, rank);
    std::vector<BroadcastMessage> held;
    Bytes buffer(200'000);
    for (std::uint64_t number = 0; number < messages; ++number) {
        if (manner == Manner::Copying) {
            const Result<std::size_t> size = reader.recv_into(buffer, kLong);
            require(size.is_ok());
            check(std::span(buffer).first(*size), number);
            continue;
        }
        Result<BroadcastMessage> message = reader.recv(kLong);
        require(message.is_ok() && message->sequence() == number);
        check(message->bytes(), number);
        if (manner == Manner::InPlace) continue;
        if (number % 3 == 0) message->keep();
        held.push_back(std::move(message).or_throw());
        if (held.size() < 4) continue;
        // Releases out of order, the second oldest first: the oldest must be unchanged.
        const std::size_t at = number % 2;
        check(held[at].bytes(), held[at].sequence());
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(at));
    }
    held.clear();
    require(reader.recv(kLong).code() == ErrorCode::Closed);
}

TEST_F(RingTest, ManyMessagesReachManyProcesses) {
    constexpr std::uint64_t kMessages = 20'000;
    BroadcastOptions options = small(3, 64 * kGranule);
    options.capacity = 4 * kSmallest;
    BroadcastWriter writer = BroadcastWriter::create(new_name(), options);
    std::vector<std::unique_ptr<Child>> children;
    for (const Manner manner : {Manner::InPlace, Manner::Holding, Manner::Copying}) {
        const auto rank = static_cast<unsigned>(children.size());
        children.push_back(std::make_unique<Child>(
            [&, rank, manner] { receive_all(writer.name(), rank, manner, kMessages); }));
    }
    for (std::uint64_t number = 0; number < kMessages; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, size_of(number), kLong))) << number;
    }
    writer.close();
    for (auto& child : children) EXPECT_EQ(child->wait(), 0);
}

}  // namespace
}  // namespace penstock

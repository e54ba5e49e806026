// The gates of the writer: expected readers lose nothing, readers that have left do not keep it
// waiting, and a replacement starts with the next message.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "penstock/broadcast.hpp"
#include "tests/unit/broadcast/broadcast_fixture.hpp"

namespace penstock {
namespace {

using namespace std::chrono_literals;
using namespace test;
using Life = BroadcastReaderState::Life;

class GateTest : public BroadcastTest {};

TEST_F(GateTest, NothingIsLostBeforeTheFirstAttachment) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2));
    for (std::uint64_t number = 0; number < 10; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, number == 5 ? kGranule : 100)));
    }
    for (const unsigned rank : {1U, 0U}) {
        BroadcastReader reader = BroadcastReader::attach(writer.name(), rank);
        for (std::uint64_t number = 0; number < 10; ++number) {
            ASSERT_TRUE(receives(reader, number, number == 5 ? kGranule : 100));
        }
        EXPECT_EQ(reader.stats().messages, 10U);
    }
}

TEST_F(GateTest, AnExpectedReaderIsWaitedFor) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2));
    BroadcastReader present = BroadcastReader::attach(writer.name(), 0);
    std::uint64_t sent = 0;
    while (send(writer, sent, 100)) ASSERT_TRUE(receives(present, sent++, 100));
    EXPECT_TRUE(fails(send(writer, sent, 100, 1ms), ErrorCode::Timeout,
                      {"waiting for reader 1, which has not attached yet"}));
    const BroadcastReaderState blocker = only(writer.blocked_by());
    EXPECT_EQ(blocker.rank, 1U);
    EXPECT_EQ(blocker.life, Life::Expected);
    EXPECT_EQ(blocker.lag_messages, sent);
    BroadcastReader late = BroadcastReader::attach(writer.name(), 1);
    for (std::uint64_t number = 0; number < sent; ++number) {
        ASSERT_TRUE(receives(late, number, 100));
    }
    EXPECT_TRUE(succeeds(send(writer, sent, 100)));
    EXPECT_TRUE(receives(late, sent, 100));
    EXPECT_TRUE(receives(present, sent, 100));
}

TEST_F(GateTest, AVacantRankGatesNoWriter) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2));
    BroadcastReader staying = BroadcastReader::attach(writer.name(), 0);
    BroadcastReader leaving = BroadcastReader::attach(writer.name(), 1);
    fill_ring(writer, 0, 100);
    while (staying.recv(Deadline::now())) {
    }
    EXPECT_TRUE(fails(send(writer, 0, 100), ErrorCode::Timeout));
    leaving.close();
    EXPECT_EQ(writer.readers().at(1).life, Life::Vacant);
    EXPECT_EQ(writer.readers().at(1).lag_messages, 0U);
    for (std::uint64_t number = 0; number < 100; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 1000)));
        ASSERT_TRUE(staying.recv(Deadline::now()).is_ok());
    }
    staying.close();
    for (std::uint64_t number = 0; number < 100; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, kGranule))) << "none is left to wait for";
    }
}

TEST_F(GateTest, LeavingWakesABlockedWriter) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1));
    const std::string name = writer.name();
    const Gate attached;
    const Gate go;
    Child child([&] {
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        attached.open();
        go.pass();
        reader.close();
    });
    attached.pass();
    const std::uint64_t sent = fill_ring(writer, 0, 100);
    go.open();
    EXPECT_TRUE(succeeds(send(writer, sent, 100, kLong)));
    EXPECT_EQ(child.wait(), 0);
}

TEST_F(GateTest, AReplacementStartsWithTheNextMessage) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1));
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    for (std::uint64_t number = 0; number < 5; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 100)));
    }
    ASSERT_TRUE(receives(reader, 0, 100));
    reader.close();
    ASSERT_TRUE(succeeds(send(writer, 5, 100))) << "this one has no reader";
    reader = BroadcastReader::attach(writer.name(), 0);
    EXPECT_TRUE(receives_nothing(reader));
    EXPECT_EQ(writer.readers().at(0).life, Life::Active);
    EXPECT_EQ(writer.readers().at(0).messages, 0U);
    EXPECT_EQ(writer.readers().at(0).lag_messages, 0U);
    for (std::uint64_t number = 6; number < 200; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 100)));
        ASSERT_TRUE(receives(reader, number, 100, number)) << "sequence numbers go on";
    }
    EXPECT_EQ(reader.stats().messages, 194U) << "since its start";
    EXPECT_EQ(writer.readers().at(0).messages, 194U);
}

TEST_F(GateTest, AReplacementGatesFromItsStart) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1));
    BroadcastReader::attach(writer.name(), 0).close();
    for (std::uint64_t number = 0; number < 300; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 100)));
    }
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    std::uint64_t sent = 300;
    while (send(writer, sent, 100)) ++sent;
    EXPECT_EQ(only(writer.blocked_by()).lag_messages, sent - 300);
    for (std::uint64_t number = 300; number < sent; ++number) {
        ASSERT_TRUE(receives(reader, number, 100, number));
    }
}

// A reader that comes and goes while messages stream past: in every session it must get consecutive
// messages, whole, under their true numbers.
TEST_F(GateTest, ComingAndGoingWhileMessagesStreamLosesNothingInBetween) {
    BroadcastOptions options = small(1, 0);
    options.capacity = 4 * kSmallest;
    BroadcastWriter writer = BroadcastWriter::create(new_name(), options);
    const std::string name = writer.name();
    const Shared<std::atomic<bool>> is_over;
    Child child([&] {
        for (int session = 0; session < 300; ++session) {
            BroadcastReader reader = BroadcastReader::attach(name, 0);
            std::uint64_t expected = 0;
            for (int i = 0; i < 20; ++i) {
                const Result<BroadcastMessage> message = reader.recv(kLong);
                require(message.is_ok());
                const std::uint64_t number = message->sequence();
                require(i == 0 || number == expected);
                require(trust::check_numbered(message->bytes(), number).empty());
                expected = number + 1;
            }
        }
        *is_over = true;
    });
    std::uint64_t sent = 0;
    while (!*is_over && sent < 50'000'000) {
        ASSERT_TRUE(succeeds(send(writer, sent, sent % 40, kLong)));
        ++sent;
    }
    EXPECT_EQ(child.wait(), 0);
}

}  // namespace
}  // namespace penstock

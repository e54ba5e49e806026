// Endings: a closed or dead writer is drained first; a reader that leaves or dies is reported once,
// as the creator chose, and blocks no other reader.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>

#include "penstock/broadcast.hpp"
#include "tests/unit/broadcast/broadcast_fixture.hpp"

namespace penstock {
namespace {

using namespace std::chrono_literals;
using namespace test;
using Life = BroadcastReaderState::Life;

// A writer in its own process. It sends its messages, then sleeps until it is killed.
class SilentWriter {
public:
    SilentWriter(const std::string& name, unsigned messages,
                 const BroadcastOptions& options = small(2))
        : child_([&] {
              BroadcastWriter writer = BroadcastWriter::create(name, options);
              for (std::uint64_t number = 0; number < messages; ++number) {
                  require(send(writer, number, number % 3 == 2 ? kGranule : 100).is_ok());
              }
              ready_.open();
              for (;;) ::pause();
          }) {
        ready_.pass();
    }

    [[nodiscard]] std::string pid_text() const { return "pid " + std::to_string(child_.pid()); }
    void kill() const { child_.kill_unreaped(); }
    void stop() const { child_.stop(); }

private:
    Gate ready_;
    Child child_;
};

::testing::AssertionResult receives_what_was_sent(BroadcastReader& reader, unsigned messages) {
    for (std::uint64_t number = 0; number < messages; ++number) {
        const auto outcome = receives(reader, number, number % 3 == 2 ? kGranule : 100);
        if (!outcome) return outcome;
    }
    return ::testing::AssertionSuccess();
}

class EndingTest : public BroadcastTest {};

TEST_F(EndingTest, AClosedWriterIsDrained) {
    std::optional<BroadcastWriter> writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer->name(), 0);
    for (std::uint64_t number = 0; number < 6; ++number) {
        ASSERT_TRUE(succeeds(send(*writer, number, number % 3 == 2 ? kGranule : 100)));
    }
    const std::string name = writer->name();
    writer.reset();
    EXPECT_TRUE(receives_what_was_sent(reader, 6));
    for (int turn = 0; turn < 2; ++turn) {
        EXPECT_TRUE(fails(reader.recv(), ErrorCode::Closed,
                          {"the writer closed '" + name + "'", "everything was received"}));
    }
    Bytes buffer(10);
    EXPECT_TRUE(fails(reader.recv_into(buffer), ErrorCode::Closed));
    EXPECT_TRUE(fails(reader.next_size(), ErrorCode::Closed));
}

TEST_F(EndingTest, ClosingWakesAReader) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    const std::string name = writer.name();
    Child child([&] {
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        require(reader.recv(kLong).code() == ErrorCode::Closed);
    });
    ASSERT_TRUE(succeeds(writer.wait_ready(kLong)));
    child.await_sleep();
    writer.close();
    EXPECT_EQ(child.wait(), 0);
    EXPECT_FALSE(exists(name));
}

TEST_F(EndingTest, ADeadWriterIsDrainedToo) {
    const std::string name = new_name();
    const SilentWriter writer(name, 6);
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    ASSERT_TRUE(receives(reader, 0, 100));
    writer.kill();
    ASSERT_TRUE(receives(reader, 1, 100));
    BroadcastReader late = BroadcastReader::attach(name, 1);  // the ring was kept for it
    EXPECT_TRUE(receives_what_was_sent(late, 6));
    for (std::uint64_t number = 2; number < 6; ++number) {
        ASSERT_TRUE(receives(reader, number, number % 3 == 2 ? kGranule : 100));
    }
    Bytes buffer(10);
    for (int turn = 0; turn < 2; ++turn) {
        EXPECT_TRUE(fails(reader.recv(), ErrorCode::PeerDied,
                          {"the writer of '" + name + "' (" + writer.pid_text(),
                           ") was killed by signal 9 (SIGKILL); everything it had sent was "
                           "received"}));
        EXPECT_TRUE(fails(reader.recv_into(buffer, Deadline::now()), ErrorCode::PeerDied));
        EXPECT_TRUE(fails(reader.next_size(1ms), ErrorCode::PeerDied));
    }
    late.close();
    EXPECT_TRUE(exists(name));
    reader.close();
    EXPECT_FALSE(exists(name));
}

TEST_F(EndingTest, AWaitingReaderNoticesTheWritersDeathInTime) {
    const std::string name = new_name();
    const SilentWriter writer(name, 0);
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    std::optional<Clock::time_point> killed;
    std::jthread killer([&] {
        await([&] { return reader.stats().waits > 0; });
        writer.kill();
        killed = Clock::now();
    });
    EXPECT_TRUE(fails(reader.recv(kLong), ErrorCode::PeerDied));
    const auto noticed = Clock::now();
    killer.join();
    EXPECT_LT(noticed - *killed, 1s) << "promised are 100 ms; the rest is for a loaded machine";
}

TEST_F(EndingTest, AStoppedWriterIsNotDead) {
    const std::string name = new_name();
    const SilentWriter writer(name, 1);
    writer.stop();
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    ASSERT_TRUE(receives(reader, 0, 100));
    EXPECT_TRUE(fails(reader.recv(200ms), ErrorCode::Timeout));
    writer.kill();
    EXPECT_TRUE(fails(reader.recv(kLong), ErrorCode::PeerDied));
}

TEST_F(EndingTest, AttachingToAnEndedStreamIsRefused) {
    const std::string name = new_name();
    {
        const SilentWriter writer(name, 3);
        BroadcastReader::attach(name, 0).close();
        writer.kill();
        EXPECT_TRUE(refuses(ErrorCode::PeerDied, [&] { BroadcastReader::attach(name, 0); },
                            {"the writer of '" + name + "' (" + writer.pid_text(),
                             "was killed by signal 9 (SIGKILL), and nothing is left"}));
    }
    EXPECT_FALSE(exists(name)) << "the last to look in has tidied up";
    {
        const SilentWriter writer(name, 0);
        writer.kill();
        EXPECT_TRUE(refuses(ErrorCode::PeerDied, [&] { BroadcastReader::attach(name, 1); }));
    }
    BroadcastWriter writer = BroadcastWriter::create(name, small(2));
    const BroadcastReader staying = BroadcastReader::attach(name, 1);
    BroadcastReader::attach(name, 0).close();
    writer.close();
    EXPECT_TRUE(refuses(ErrorCode::Closed, [&] { BroadcastReader::attach(name, 0); },
                        {"the writer of '" + name + "' has closed it"}));
}

TEST_F(EndingTest, ADeadReaderIsReportedOnce) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2));
    BroadcastReader healthy = BroadcastReader::attach(writer.name(), 0);
    const SilentReader victim(writer.name(), 1);
    std::uint64_t sent = 0;
    while (send(writer, sent, 100)) ASSERT_TRUE(receives(healthy, sent++, 100));
    victim.kill();
    const Status told = send(writer, sent, 100, kLong);
    EXPECT_TRUE(fails(told, ErrorCode::PeerDied,
                      {"reader 1 of '" + writer.name() + "' (" + victim.pid_text(),
                       ") was killed by signal 9 (SIGKILL), " + std::to_string(sent) +
                           " messages behind; nothing was sent"}));
    EXPECT_EQ(told.peer(), 1);
    EXPECT_TRUE(receives_nothing(healthy));
    EXPECT_EQ(writer.readers().at(1).life, Life::Vacant);
    EXPECT_FALSE(writer.readers().at(1).alive);
    EXPECT_EQ(writer.stats().reader_deaths, 1U);
    for (std::uint64_t number = sent; number < sent + 200; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 100))) << "reported once, then the send succeeds";
        ASSERT_TRUE(receives(healthy, number, 100));
    }
    EXPECT_EQ(writer.stats().reader_deaths, 1U);
}

TEST_F(EndingTest, AnExitWithoutClosingIsADeathThatIsNamed) {
    const std::string name = new_name();
    const Gate is_there;
    const Gate may_end;
    BroadcastWriter writer = BroadcastWriter::create(name, small());
    Child reader([&] {
        const BroadcastReader own = BroadcastReader::attach(name, 0);
        is_there.open();
        may_end.pass();
        ::_exit(3);
    });
    is_there.pass();
    const auto pid = static_cast<std::uint32_t>(reader.pid());
    may_end.open();
    reader.await_end();
    EXPECT_EQ(only(writer.readers()).exit_code, 3);
    EXPECT_EQ(only(writer.readers()).how_it_died, "ended with exit code 3 without closing");
    const Status told = writer.wait_ready(kLong);
    EXPECT_TRUE(fails(told, ErrorCode::PeerDied,
                      {") ended with exit code 3 without closing, 0 messages behind; nothing"}));
    EXPECT_EQ(told.death().pid, pid);
    EXPECT_EQ(told.death().exit_code, 3);
    EXPECT_FALSE(told.death().signal.has_value());
}

TEST_F(EndingTest, WhatCanNotBeKnownOfADeathIsSaid) {
    const std::string name = new_name();
    const Gate is_there;
    Child writer([&] {
        const BroadcastWriter own = BroadcastWriter::create(name, small());
        is_there.open();
        for (;;) ::pause();
    });
    is_there.pass();
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    const auto pid = static_cast<std::uint32_t>(writer.pid());
    writer.send(SIGKILL);
    writer.wait();
    const Result<BroadcastMessage> message = reader.recv(kLong);
    EXPECT_TRUE(fails(message, ErrorCode::PeerDied,
                      {") died; everything it had sent was received; how it ended is not known "
                       "here: its exit status had been collected"}));
    EXPECT_EQ(message.status().death().pid, pid);
    EXPECT_FALSE(message.status().death().signal || message.status().death().exit_code);
}

TEST_F(EndingTest, SeveralDeathsAreReportedTogether) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(3));
    const SilentReader first(writer.name(), 0);
    const SilentReader second(writer.name(), 2);
    BroadcastReader::attach(writer.name(), 1).close();
    const std::uint64_t sent = fill_ring(writer, 0, 100);
    first.kill();
    second.kill();
    const Status told = send(writer, sent, 100, kLong);
    EXPECT_TRUE(fails(told, ErrorCode::PeerDied,
                      {"reader 0 ", first.pid_text(), "; reader 2 ", second.pid_text()}));
    EXPECT_EQ(told.peer(), 0);
    EXPECT_TRUE(succeeds(send(writer, sent, 100)));
    EXPECT_EQ(writer.stats().reader_deaths, 2U);
}

TEST_F(EndingTest, ADroppedReaderIsOnlyCounted) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), dropping(small()));
    const SilentReader victim(writer.name(), 0);
    const std::uint64_t sent = fill_ring(writer, 0, 100);
    victim.kill();
    EXPECT_TRUE(succeeds(send(writer, sent, 100))) << "a try is enough";
    EXPECT_EQ(writer.stats().reader_deaths, 1U);
    EXPECT_EQ(writer.readers().at(0).life, Life::Vacant);
    for (std::uint64_t number = 0; number < 200; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 100)));
    }
}

TEST_F(EndingTest, ABlockedWriterNoticesADeathInTime) {
    for (const bool drops : {false, true}) {
        BroadcastWriter writer =
            BroadcastWriter::create(new_name(), drops ? dropping(small()) : small());
        const SilentReader victim(writer.name(), 0);
        const std::uint64_t sent = fill_ring(writer, 0, 100);
        std::optional<Clock::time_point> killed;
        std::jthread killer([&] {
            await([&] { return only(writer.blocked_by()).blocking_for > 0.05; });
            victim.kill();
            killed = Clock::now();
        });
        const Status status = send(writer, sent, 100, kLong);
        const auto noticed = Clock::now();
        killer.join();
        EXPECT_EQ(status.code(), drops ? ErrorCode::Ok : ErrorCode::PeerDied);
        EXPECT_LT(noticed - *killed, 1s) << "promised are 100 ms; the rest is for a loaded machine";
    }
}

TEST_F(EndingTest, ADeathIsReportedAlthoughItsReplacementReapedIt) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    const SilentReader victim(writer.name(), 0);
    for (std::uint64_t number = 0; number < 3; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 100)));
    }
    victim.kill();
    BroadcastReader replacement = BroadcastReader::attach(writer.name(), 0);
    EXPECT_EQ(writer.stats().reader_deaths, 1U);
    Status told;
    std::uint64_t sent = 3;
    for (; sent < 200; ++sent) {
        told = send(writer, sent, 100);
        if (!told) break;
        ASSERT_TRUE(receives(replacement, sent, 100));
    }
    EXPECT_TRUE(fails(told, ErrorCode::PeerDied,
                      {"reader 0 of '" + writer.name() +
                       "' was killed by signal 9 (SIGKILL), and its place has been taken"}));
    EXPECT_EQ(told.death().pid, static_cast<std::uint32_t>(victim.pid()));
    EXPECT_EQ(told.death().signal, SIGKILL);
    EXPECT_EQ(told.peer(), 0);
    for (std::uint64_t number = sent; number < sent + 200; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 100))) << "once";
        ASSERT_TRUE(receives(replacement, number, 100));
    }
    EXPECT_EQ(writer.stats().reader_deaths, 1U);
}

TEST_F(EndingTest, EveryDeathAtARankIsReported) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    for (std::uint64_t death = 1; death <= 3; ++death) {
        const SilentReader victim(writer.name(), 0);
        const std::uint64_t sent = fill_ring(writer, 0, 100);
        victim.kill();
        EXPECT_TRUE(
            fails(send(writer, sent, 100, kLong), ErrorCode::PeerDied, {victim.pid_text()}));
        EXPECT_EQ(writer.stats().reader_deaths, death);
    }
}

TEST_F(EndingTest, ReadinessReportsADeathToo) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2));
    const BroadcastReader healthy = BroadcastReader::attach(writer.name(), 0);
    const SilentReader victim(writer.name(), 1);
    ASSERT_TRUE(succeeds(writer.wait_ready(kLong)));
    victim.kill();
    const Status told = writer.wait_ready(kLong);
    EXPECT_TRUE(fails(told, ErrorCode::PeerDied, {"reader 1", victim.pid_text()}));
    EXPECT_EQ(told.peer(), 1);
    EXPECT_TRUE(fails(writer.wait_ready(Deadline::now()), ErrorCode::Timeout, {"rank 1"}));
    const BroadcastReader replacement = BroadcastReader::attach(writer.name(), 1);
    EXPECT_TRUE(succeeds(writer.wait_ready(kLong)));

    BroadcastWriter forgiving = BroadcastWriter::create(new_name(), dropping(small()));
    const SilentReader dropped(forgiving.name(), 0);
    dropped.kill();
    EXPECT_TRUE(fails(forgiving.wait_ready(100ms), ErrorCode::Timeout, {"rank 0"}));
}

TEST_F(EndingTest, ADeadReadersMessagesAreNotItsReplacements) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), dropping(small()));
    for (std::uint64_t number = 0; number < 5; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 100)));
    }
    const SilentReader victim(writer.name(), 0, 2);
    EXPECT_EQ(writer.readers().at(0).messages, 2U);
    EXPECT_EQ(writer.readers().at(0).lag_messages, 3U);
    victim.kill();
    BroadcastReader replacement = BroadcastReader::attach(writer.name(), 0);
    EXPECT_TRUE(receives_nothing(replacement));
    ASSERT_TRUE(succeeds(send(writer, 5, 100)));
    EXPECT_TRUE(receives(replacement, 5, 100, 5));
}

TEST_F(EndingTest, TheNameIsRemovedAlthoughAReaderDied) {
    const std::string name = new_name();
    BroadcastWriter writer = BroadcastWriter::create(name, small());
    {
        const SilentReader victim(name, 0);
        victim.kill();
        writer.close();
    }
    EXPECT_FALSE(exists(name)) << "no living participant was left";
}

TEST_F(EndingTest, AStoppedReaderBlocksAndGoesOn) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    const std::string name = writer.name();
    const Gate attached;
    Child child([&] {
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        attached.open();
        std::uint64_t number = 0;
        for (;; ++number) {
            const Result<BroadcastMessage> message = reader.recv(kLong);
            if (message.code() == ErrorCode::Closed) break;
            require(message.is_ok() && message->sequence() == number);
        }
        require(number > 100);
    });
    attached.pass();
    child.stop();
    const std::uint64_t sent = fill_ring(writer, 0, 100);
    EXPECT_TRUE(fails(send(writer, sent, 100, 100ms), ErrorCode::Timeout, {"stopped"}));
    EXPECT_TRUE(only(writer.blocked_by()).stopped);
    EXPECT_EQ(writer.stats().reader_deaths, 0U) << "lateness is no death";
    child.resume();
    for (std::uint64_t number = sent; number < sent + 100; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 100, kLong)));
    }
    writer.close();
    EXPECT_EQ(child.wait(), 0);
}

}  // namespace
}  // namespace penstock

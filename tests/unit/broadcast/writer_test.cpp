// The writer: accepted and refused options, loans, back-pressure that names the slow reader, and
// closing.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "penstock/broadcast.hpp"
#include "tests/unit/broadcast/broadcast_fixture.hpp"
#include "tests/unit/support/refused_calls.hpp"

namespace penstock {
namespace {

using namespace std::chrono_literals;
using namespace test;

class WriterTest : public BroadcastTest {};

TEST_F(WriterTest, ADefaultBroadcastIsSmall) {
    const BroadcastWriter writer = BroadcastWriter::create(new_name());
    const BroadcastStats stats = writer.stats();
    constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;
    EXPECT_EQ(stats.capacity, 4 * kMiB);
    EXPECT_LE(stats.reserved_bytes, 8 * kMiB);
    EXPECT_GE(stats.reserved_bytes, 4 * kMiB) << "the ring is reserved before it is promised";
    EXPECT_EQ(inspect_segment(writer.name()).reserved_bytes, stats.reserved_bytes);
}

TEST_F(WriterTest, ReportsItsProperties) {
    const std::string name = new_name();
    BroadcastWriter writer = BroadcastWriter::create(name, small());
    EXPECT_TRUE(writer.is_open());
    EXPECT_EQ(writer.name(), name);
    EXPECT_EQ(writer.instance().size(), 32U);
    EXPECT_GE(writer.descriptor(), 0);
    BroadcastWriter moved = std::move(writer);
    EXPECT_TRUE(moved.is_open());
    EXPECT_TRUE(succeeds(send(moved, 0, 10)));
    moved = BroadcastWriter::create(new_name(), small());
    EXPECT_FALSE(exists(name)) << "assignment closes what was there";
}

TEST_F(WriterTest, RefusesBadNamesAndOptions) {
    EXPECT_TRUE(refuses(ErrorCode::InvalidName, [] { BroadcastWriter::create("a/b"); }));
    BroadcastOptions options = small(0);
    const std::string name = new_name();
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { BroadcastWriter::create(name, options); },
                        {"readers"}));
    options = small();
    options.memory.numa_node = 63;
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { BroadcastWriter::create(name, options); },
                        {"numa_node"}));
    EXPECT_FALSE(exists(name));
}

TEST_F(WriterTest, ASecondWriterIsRefused) {
    const std::string name = new_name();
    const BroadcastWriter writer = BroadcastWriter::create(name, small());
    EXPECT_TRUE(
        refuses(ErrorCode::AlreadyExists, [&] { BroadcastWriter::create(name, small()); },
                {"in use by pid " + std::to_string(::getpid()) + " (penstock_unit_tests)"}));
    EXPECT_TRUE(writer.is_open());
    EXPECT_EQ(inspect_segment(name).participants.size(), 1U);
}

TEST_F(WriterTest, ReplacesADeadWriter) {
    const std::string name = new_name();
    const Gate created;
    Child child([&] {
        BroadcastWriter writer = BroadcastWriter::create(name, small());
        require(send(writer, 77, 10).is_ok());
        created.open();
        for (;;) ::pause();
    });
    created.pass();
    child.kill_unreaped();
    BroadcastWriter writer = BroadcastWriter::create(name, small());
    ASSERT_TRUE(succeeds(send(writer, 0, 10)));
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    EXPECT_TRUE(receives(reader, 0, 10));
}

TEST_F(WriterTest, TheNameGoesWithTheLastParticipant) {
    const std::string name = new_name();
    std::optional<BroadcastWriter> writer = BroadcastWriter::create(name, small());
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    writer.reset();
    EXPECT_TRUE(exists(name));
    reader.close();
    EXPECT_FALSE(exists(name));
}

TEST_F(WriterTest, AMessageThatCanNeverFitIsTooLarge) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1, 0));
    EXPECT_TRUE(fails(send(writer, 0, kSmallest / 4 + 1), ErrorCode::TooLarge,
                      {"a message of 1025 bytes can never fit", "takes up to 1024",
                       "create it with a larger `large`"}));
    EXPECT_TRUE(fails(writer.loan(kSmallest / 4 + 1), ErrorCode::TooLarge));
    EXPECT_TRUE(fails(writer.loan(~std::size_t{0}), ErrorCode::TooLarge));
    EXPECT_TRUE(succeeds(send(writer, 0, kSmallest / 4))) << "nothing is the worse for it";
    BroadcastWriter with_large = BroadcastWriter::create(new_name(), small(1, 2 * kGranule));
    EXPECT_TRUE(fails(with_large.loan(2 * kGranule + 1), ErrorCode::TooLarge,
                      {std::to_string(2 * kGranule)}));
    EXPECT_TRUE(succeeds(with_large.loan(2 * kGranule)));
}

TEST_F(WriterTest, CountsWhatItDid) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    ASSERT_TRUE(succeeds(send(writer, 0, 100)));
    ASSERT_TRUE(succeeds(send(writer, 1, 0)));
    ASSERT_TRUE(succeeds(send(writer, 2, kGranule)));
    const BroadcastStats stats = writer.stats();
    EXPECT_EQ(stats.messages, 3U);
    EXPECT_EQ(stats.bytes, 100 + kGranule);
    EXPECT_EQ(stats.large_messages, 1U);
    EXPECT_EQ(stats.waits, 0U);
    EXPECT_EQ(stats.sleeps, 0U);
    EXPECT_EQ(stats.reader_deaths, 0U);
    EXPECT_EQ(stats.capacity, kSmallest);
    EXPECT_EQ(stats.used_bytes, 112U + 8 + 24);
    EXPECT_EQ(stats.held_bytes, kGranule);
    const std::uint64_t sent = 3 + fill_ring(writer, 3, 100);
    EXPECT_EQ(writer.stats().messages, sent);
    EXPECT_EQ(writer.stats().waits, 1U);
    EXPECT_TRUE(fails(send(writer, 0, 100, 1ms), ErrorCode::Timeout));
    EXPECT_EQ(writer.stats().waits, 2U);
    EXPECT_GE(writer.stats().sleeps, 1U);
}

TEST_F(WriterTest, ALoanIsSentWhenItIsCommitted) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    for (const std::size_t size : {std::size_t{0}, std::size_t{100}, 3 * kGranule}) {
        Result<BroadcastLoan> loan = writer.loan(size, Deadline::now());
        ASSERT_TRUE(succeeds(loan));
        trust::fill_numbered(loan->bytes(), size);
        EXPECT_TRUE(receives_nothing(reader));
        ASSERT_TRUE(succeeds(loan->commit(Format::Typed)));
        const Result<BroadcastMessage> message = reader.recv(kLong);
        ASSERT_TRUE(succeeds(message));
        EXPECT_EQ(message->format(), Format::Typed);
        EXPECT_TRUE(is_message(message->bytes(), size, size));
        EXPECT_TRUE(fails(loan->commit(), ErrorCode::Closed, {"committed already"}));
        EXPECT_TRUE(receives_nothing(reader));
    }
}

TEST_F(WriterTest, ADroppedLoanSendsNothing) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    for (const std::size_t size : {std::size_t{100}, 3 * kGranule}) {
        {
            const Result<BroadcastLoan> loan = writer.loan(size, Deadline::now());
            ASSERT_TRUE(succeeds(loan));
            EXPECT_EQ(writer.stats().held_bytes, size > kSmallest ? size : 0);
        }
        EXPECT_EQ(writer.stats().held_bytes, 0U);
        EXPECT_EQ(writer.stats().messages, 0U);
        EXPECT_TRUE(receives_nothing(reader));
    }
    ASSERT_TRUE(succeeds(send(writer, 0, 100)));
    EXPECT_TRUE(receives(reader, 0, 100));
}

TEST_F(WriterTest, OneLoanAtATime) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    {
        Result<BroadcastLoan> loan = writer.loan(10);
        ASSERT_TRUE(succeeds(loan));
        EXPECT_TRUE(fails(writer.loan(10), ErrorCode::Busy, {"commit or drop it first"}));
        EXPECT_TRUE(fails(send(writer, 0, 10), ErrorCode::Busy));
        EXPECT_TRUE(fails(writer.wait_ready(Deadline::now()), ErrorCode::Busy));
        BroadcastLoan moved = std::move(loan).or_throw();
        EXPECT_TRUE(fails(send(writer, 0, 10), ErrorCode::Busy)) << "moving it is no end";
    }
    EXPECT_TRUE(succeeds(send(writer, 0, 10)));
    BroadcastLoan first = writer.loan(10).or_throw();
    ASSERT_TRUE(succeeds(first.commit()));
    BroadcastLoan second = writer.loan(10).or_throw();
    second = std::move(first);  // drops the second, and takes over what is committed already
    EXPECT_TRUE(succeeds(send(writer, 2, 10)));
    EXPECT_EQ(writer.stats().messages, 3U);
}

TEST_F(WriterTest, ALoanSurvivesTheMoveOfItsWriter) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    for (const std::size_t size : {std::size_t{10}, kGranule}) {
        BroadcastLoan loan = writer.loan(size).or_throw();
        trust::fill_numbered(loan.bytes(), 5);
        BroadcastWriter moved = std::move(writer);
        EXPECT_TRUE(fails(send(moved, 0, 10), ErrorCode::Busy));
        EXPECT_TRUE(succeeds(loan.commit()));
        const Result<BroadcastMessage> message = reader.recv(kLong);
        ASSERT_TRUE(succeeds(message));
        EXPECT_TRUE(is_message(message->bytes(), 5, size));
        writer = std::move(moved);
    }
}

TEST_F(WriterTest, ALoanSaysWhereItLiesInTheFile) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    for (const std::size_t size : {std::size_t{100}, 2 * kGranule}) {
        BroadcastLoan loan = writer.loan(size).or_throw();
        trust::fill_numbered(loan.bytes(), 9);
        Bytes seen(size);
        ASSERT_EQ(
            ::pread(writer.descriptor(), seen.data(), size, static_cast<off_t>(loan.file_offset())),
            static_cast<ssize_t>(size));
        EXPECT_TRUE(is_message(seen, 9, size));
        ASSERT_TRUE(succeeds(loan.commit()));
        EXPECT_EQ(loan.file_offset(), 0U) << "it is not ours any more";
    }
}

TEST_F(WriterTest, ALoanWaitsForRoomLikeAMessage) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1, 0));
    fill_ring(writer, 0, 100);
    EXPECT_TRUE(fails(writer.loan(100, Deadline::now()), ErrorCode::Timeout, {"blocked_by()"}));
    EXPECT_TRUE(fails(writer.loan(100, 1ms), ErrorCode::Timeout, {"reader 0"}));
    EXPECT_TRUE(fails(send(writer, 0, 100), ErrorCode::Timeout)) << "no loan is open";
}

TEST_F(WriterTest, AFullRingTimesOutInTimeAndNamesTheSlowReader) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2));
    BroadcastReader quick = BroadcastReader::attach(writer.name(), 1);
    const SilentReader slow(writer.name(), 0);
    std::uint64_t sent = 0;
    while (send(writer, sent, 100)) ASSERT_TRUE(receives(quick, sent++, 100));
    const auto start = Clock::now();
    EXPECT_TRUE(fails(send(writer, sent, 100, 100ms), ErrorCode::Timeout,
                      {"no room in '" + writer.name() + "'", "reader 0 (" + slow.pid_text(),
                       std::to_string(sent) + " messages behind", "blocking for 0."}));
    EXPECT_GE(Clock::now() - start, 100ms);
    EXPECT_LT(Clock::now() - start, kLong);

    const BroadcastReaderState blocker = only(writer.blocked_by());
    EXPECT_EQ(blocker.rank, 0U);
    EXPECT_EQ(blocker.pid, static_cast<std::uint32_t>(slow.pid()));
    EXPECT_EQ(blocker.life, BroadcastReaderState::Life::Active);
    EXPECT_TRUE(blocker.alive);
    EXPECT_FALSE(blocker.stopped);
    EXPECT_EQ(blocker.messages, 0U);
    EXPECT_EQ(blocker.lag_messages, sent);
    EXPECT_GE(blocker.lag_bytes, sent * 108);
    EXPECT_LE(blocker.lag_bytes, kSmallest);
    EXPECT_GE(blocker.blocking_for, 0.1);
    slow.stop();
    EXPECT_TRUE(only(writer.blocked_by()).stopped);
    EXPECT_TRUE(fails(send(writer, sent, 100, 1ms), ErrorCode::Timeout, {"stopped"}));
    slow.resume();
    EXPECT_TRUE(receives_nothing(quick)) << "what was not accepted does not arrive";
}

TEST_F(WriterTest, ATryThatFailsLeavesATraceForBlockedBy) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1));
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    EXPECT_TRUE(writer.blocked_by().empty());
    const std::uint64_t sent = fill_ring(writer, 0, 100);
    EXPECT_EQ(only(writer.blocked_by()).rank, 0U);
    const double first = only(writer.blocked_by()).blocking_for;
    EXPECT_TRUE(fails(send(writer, sent, 100), ErrorCode::Timeout));
    EXPECT_GE(only(writer.blocked_by()).blocking_for, first) << "since the first try";
    for (std::uint64_t number = 0; number < sent; ++number) {
        ASSERT_TRUE(receives(reader, number, 100));
    }
    EXPECT_TRUE(writer.blocked_by().empty()) << "the reader has caught up";
    EXPECT_TRUE(succeeds(send(writer, sent, 100)));
    EXPECT_TRUE(writer.blocked_by().empty());
}

TEST_F(WriterTest, KnowsWithoutWaitingWhetherThereIsRoom) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    std::uint64_t sent = 0;
    for (; writer.has_room(100); ++sent) ASSERT_TRUE(succeeds(send(writer, sent, 100)));
    EXPECT_GE(sent, kSmallest / 128) << "it looked at nothing but a loan's room";
    EXPECT_EQ(writer.stats().waits, 0U);
    EXPECT_TRUE(writer.blocked_by().empty());
    while (reader.recv(Deadline::now())) {
    }
    EXPECT_TRUE(writer.has_room(100));
    EXPECT_TRUE(writer.has_room(kGranule));
    EXPECT_TRUE(writer.has_room(~std::size_t{0})) << "an error does not wait either";
}

TEST_F(WriterTest, ABlockedWriterContinuesWhenRoomIsMade) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1));
    const std::uint64_t full = fill_ring(writer, 0, 100);
    const std::string name = writer.name();
    Child child([&] {
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        for (std::uint64_t number = 0; number < full + 100; ++number) {
            const Result<BroadcastMessage> message = reader.recv(kLong);
            require(message.is_ok() && trust::check_numbered(message->bytes(), number).empty());
        }
    });
    for (std::uint64_t number = full; number < full + 100; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 100, kLong)));
    }
    EXPECT_EQ(child.wait(), 0);
}

TEST_F(WriterTest, IsReadyWhenEveryRankIsTaken) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(3));
    EXPECT_TRUE(fails(writer.wait_ready(Deadline::now()), ErrorCode::Timeout,
                      {"not every reader of '" + writer.name() + "'", "rank 0, 1, 2"}));
    const BroadcastReader second = BroadcastReader::attach(writer.name(), 1);
    EXPECT_TRUE(fails(writer.wait_ready(1ms), ErrorCode::Timeout, {"rank 0, 2"}));
    const BroadcastReader first = BroadcastReader::attach(writer.name(), 0);
    const Gate go;
    const Gate end;
    Child child([&] {
        go.pass();
        const BroadcastReader third = BroadcastReader::attach(writer.name(), 2);
        end.pass();
    });
    go.open();
    EXPECT_TRUE(succeeds(writer.wait_ready(kLong)));
    EXPECT_TRUE(succeeds(writer.wait_ready(Deadline::now())));
    end.open();
    EXPECT_EQ(child.wait(), 0);
    EXPECT_TRUE(fails(writer.wait_ready(Deadline::now()), ErrorCode::Timeout, {"rank 2"}))
        << "a vacant rank is not ready";
}

TEST_F(WriterTest, AClosedWriterReportsClosed) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    ASSERT_TRUE(succeeds(send(writer, 0, 10)));
    Result<BroadcastLoan> open_loan = writer.loan(10);
    writer.close();
    writer.close();
    EXPECT_FALSE(writer.is_open());
    EXPECT_EQ(writer.descriptor(), -1);
    EXPECT_TRUE(fails(send(writer, 1, 10), ErrorCode::Closed, {"this writer is closed"}));
    EXPECT_TRUE(fails(send(writer, 1, kGranule), ErrorCode::Closed));
    EXPECT_TRUE(fails(writer.loan(1), ErrorCode::Closed));
    EXPECT_TRUE(fails(writer.wait_ready(), ErrorCode::Closed));
    EXPECT_TRUE(fails(open_loan->commit(), ErrorCode::Closed, {"the loan was not sent"}));
    // Closing gives the memory back, so its statistics are gone.
    EXPECT_TRUE(test::refuses(ErrorCode::Closed, [&] { static_cast<void>(writer.stats()); }));
    EXPECT_TRUE(test::refuses(ErrorCode::Closed, [&] { static_cast<void>(writer.readers()); }));
    EXPECT_TRUE(test::refuses(ErrorCode::Closed, [&] { static_cast<void>(writer.blocked_by()); }));
}

TEST_F(WriterTest, WaitsAreCancelled) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    const std::uint64_t sent = fill_ring(writer, 0, 100);
    Cancel cancel;
    Wait wait = kLong;
    wait.cancel = &cancel;
    std::jthread canceller([&] {
        await([&] { return !writer.blocked_by().empty(); });
        cancel.cancel();
    });
    EXPECT_TRUE(fails(send(writer, sent, 100, wait), ErrorCode::Cancelled, {"nothing was sent"}));
    canceller.join();
    wait = kLong;
    wait.interrupted = [](void*) { return true; };
    EXPECT_TRUE(fails(send(writer, sent, 100, wait), ErrorCode::Cancelled));
    EXPECT_TRUE(fails(writer.wait_ready(wait), ErrorCode::Cancelled));
    EXPECT_EQ(writer.stats().messages, sent);
    EXPECT_TRUE(writer.is_open());
}

TEST_F(WriterTest, ARequestToCloseEndsItsWaits) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    const std::uint64_t sent = fill_ring(writer, 0, 100);
    std::jthread closer([&] {
        await([&] { return writer.stats().sleeps > 0 || !writer.blocked_by().empty(); });
        writer.request_close();
    });
    EXPECT_TRUE(fails(send(writer, sent, 100, kLong), ErrorCode::Cancelled));
    closer.join();
    EXPECT_TRUE(fails(writer.wait_ready(kLong), ErrorCode::Cancelled));
    writer.close();
    EXPECT_FALSE(writer.is_open());
}

// Calls that any thread may make, made while another thread sends.
TEST_F(WriterTest, CanBeWatchedWhileItSends) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2));
    const std::jthread watcher([&](const std::stop_token& stop) {
        std::uint64_t before = 0;
        while (!stop.stop_requested()) {
            const std::uint64_t messages = writer.stats().messages;
            EXPECT_GE(messages, before);
            before = messages;
            for (const BroadcastReaderState& reader : writer.readers()) {
                EXPECT_LE(reader.lag_bytes, kSmallest);
                static_cast<void>(reader.describe());
            }
            EXPECT_LE(writer.blocked_by().size(), 2U);
        }
    });
    BroadcastReader first = BroadcastReader::attach(writer.name(), 0);
    BroadcastReader second = BroadcastReader::attach(writer.name(), 1);
    for (std::uint64_t number = 0; number < 3'000; ++number) {
        const std::size_t size = number % 100 == 0 ? kGranule : 300;
        ASSERT_TRUE(succeeds(send(writer, number, size)));
        ASSERT_TRUE(receives(first, number, size));
        if (number % 5 != 0) continue;
        while (second.recv(Deadline::now())) {
        }
    }
}

TEST_F(WriterTest, NoSpaceAtCreationNamesTheRemedy) {
    const std::string name = new_name();
    Child child([&] {
        if (!refuse_calls({kNoSpaceLeft})) ::_exit(kCannotRefuse);
        require(
            static_cast<bool>(refuses(ErrorCode::NoSpace, [&] { BroadcastWriter::create(name); },
                                      {"could not reserve", name, "docker run --shm-size"})));
    });
    const int outcome = child.wait();
    if (outcome == kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
    EXPECT_FALSE(exists(name));
}

}  // namespace
}  // namespace penstock

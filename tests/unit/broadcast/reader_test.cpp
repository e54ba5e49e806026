// The reader: attaching, receiving in its three ways, holding messages, and its end.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
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

namespace penstock {
namespace {

using namespace std::chrono_literals;
using namespace test;

class ReaderTest : public BroadcastTest {};

TEST_F(ReaderTest, ReportsItsProperties) {
    const BroadcastWriter writer = BroadcastWriter::create(new_name(), small(3));
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 2);
    EXPECT_TRUE(reader.is_open());
    EXPECT_EQ(reader.rank(), 2U);
    EXPECT_EQ(reader.name(), writer.name());
    EXPECT_EQ(reader.instance(), writer.instance());
    EXPECT_GE(reader.descriptor(), 0);
    BroadcastReader moved = std::move(reader);
    EXPECT_TRUE(moved.is_open());
    EXPECT_FALSE(reader.is_open());  // NOLINT(bugprone-use-after-move): that is the question
    const BroadcastReaderState state = writer.readers().at(2);
    EXPECT_EQ(state.life, BroadcastReaderState::Life::Active);
    EXPECT_TRUE(state.alive);
    EXPECT_EQ(state.pid, static_cast<std::uint32_t>(::getpid()));
    EXPECT_EQ(state.process, "penstock_unit_tests");
    EXPECT_EQ(writer.readers().at(0).life, BroadcastReaderState::Life::Expected);
    EXPECT_FALSE(writer.readers().at(0).alive);
    moved = BroadcastReader::attach(writer.name(), 0);
    EXPECT_EQ(writer.readers().at(2).life, BroadcastReaderState::Life::Vacant)
        << "assignment closes what was there";
}

TEST_F(ReaderTest, NeedsAnExistingRank) {
    const BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2));
    for (const unsigned rank : {2U, 1000U, ~0U}) {
        EXPECT_TRUE(refuses(ErrorCode::InvalidArgument,
                            [&] { BroadcastReader::attach(writer.name(), rank); },
                            {"'" + writer.name() + "' has no rank " + std::to_string(rank),
                             "created for 2 readers"}));
    }
}

TEST_F(ReaderTest, NeedsARankThatIsFree) {
    const BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2));
    const SilentReader first(writer.name(), 1);
    try {
        BroadcastReader::attach(writer.name(), 1);
        FAIL() << "two readers at one rank";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Busy);
        EXPECT_EQ(error.peer(), 1);
        EXPECT_TRUE(says(error.what(), {"rank 1 of '" + writer.name() + "'", first.pid_text(),
                                        "choose another rank or end that process"}));
    }
    EXPECT_EQ(writer.readers().at(1).pid, static_cast<std::uint32_t>(first.pid()));
    EXPECT_NO_THROW(BroadcastReader::attach(writer.name(), 0));
}

TEST_F(ReaderTest, NeedsABroadcast) {
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [&] { BroadcastReader::attach(new_name(), 0); }));
    EXPECT_TRUE(refuses(ErrorCode::InvalidName, [] { BroadcastReader::attach("", 0); }));
    EXPECT_TRUE(
        refuses(ErrorCode::NotFound, [&] { BroadcastReader::attach(new_name(), 0, 20ms); }));
}

TEST_F(ReaderTest, CanWaitForItsBroadcast) {
    const std::string name = new_name();
    const Gate go;
    const Gate end;
    Child child([&] {
        go.pass();
        BroadcastWriter writer = BroadcastWriter::create(name, small());
        require(send(writer, 0, 10).is_ok());
        end.pass();
    });
    go.open();
    BroadcastReader reader = BroadcastReader::attach(name, 0, kLong);
    EXPECT_TRUE(receives(reader, 0, 10));
    end.open();
    EXPECT_EQ(child.wait(), 0);
}

TEST_F(ReaderTest, CanInsistOnAnInstance) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [&] {
        BroadcastReader::attach(writer.name(), 0, Deadline::now(), std::string(32, '0'));
    }));
    EXPECT_EQ(writer.readers().at(0).life, BroadcastReaderState::Life::Expected)
        << "the refusal touched nothing";
    const BroadcastReader reader =
        BroadcastReader::attach(writer.name(), 0, Deadline::now(), writer.instance());
    EXPECT_TRUE(reader.is_open());
}

TEST_F(ReaderTest, AnEmptyRingTimesOutInTime) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    EXPECT_TRUE(fails(reader.recv(Deadline::now()), ErrorCode::Timeout,
                      {"no message came from '" + writer.name() + "'"}));
    const auto start = Clock::now();
    EXPECT_TRUE(fails(reader.recv(100ms), ErrorCode::Timeout));
    Bytes buffer(10);
    EXPECT_TRUE(fails(reader.recv_into(buffer, 50ms), ErrorCode::Timeout));
    EXPECT_TRUE(fails(reader.next_size(50ms), ErrorCode::Timeout));
    EXPECT_GE(Clock::now() - start, 200ms);
    EXPECT_LT(Clock::now() - start, kLong);
    ASSERT_TRUE(succeeds(send(writer, 0, 10)));
    EXPECT_TRUE(receives(reader, 0, 10));
}

TEST_F(ReaderTest, WakesUpForAMessage) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    const std::string name = writer.name();
    Child child([&] {
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        for (std::uint64_t number = 0; number < 20; ++number) {
            const Result<BroadcastMessage> message = reader.recv(kLong);
            require(message.is_ok() && message->sequence() == number);
        }
    });
    ASSERT_TRUE(succeeds(writer.wait_ready(kLong)));
    for (std::uint64_t number = 0; number < 20; ++number) {
        child.await_sleep();
        ASSERT_TRUE(succeeds(send(writer, number, 10)));
    }
    EXPECT_EQ(child.wait(), 0);
}

TEST_F(ReaderTest, CopiesIntoABufferThatIsLargeEnough) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    std::uint64_t number = 0;
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{500}, kGranule}) {
        for (const std::size_t spare : {std::size_t{0}, std::size_t{1}, std::size_t{100}}) {
            ASSERT_TRUE(succeeds(send(writer, number, size)));
            Bytes buffer(size + spare, std::byte{0xEE});
            const Result<std::size_t> received = reader.recv_into(buffer, kLong);
            ASSERT_TRUE(succeeds(received));
            ASSERT_EQ(*received, size);
            EXPECT_TRUE(is_message(std::span(buffer).first(size), number, size));
            for (std::size_t at = size; at < buffer.size(); ++at) {
                ASSERT_EQ(buffer[at], std::byte{0xEE}) << "nothing beyond the message is touched";
            }
            ++number;
        }
    }
    EXPECT_EQ(reader.stats().messages, number);
    EXPECT_EQ(reader.stats().used_bytes, 0U) << "a copied message is released";
}

TEST_F(ReaderTest, AMessageThatDoesNotFitStays) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    for (const std::size_t size : {std::size_t{100}, kGranule}) {
        ASSERT_TRUE(succeeds(send(writer, size, size)));
        Bytes buffer(size - 1, std::byte{0xEE});
        for (int turn = 0; turn < 2; ++turn) {
            EXPECT_TRUE(fails(reader.recv_into(buffer), ErrorCode::TooLarge,
                              {"has " + std::to_string(size) + " bytes",
                               "the buffer " + std::to_string(size - 1), "the message stays"}));
            EXPECT_EQ(buffer[0], std::byte{0xEE});
        }
        const Result<std::size_t> next = reader.next_size(Deadline::now());
        ASSERT_TRUE(succeeds(next));
        EXPECT_EQ(*next, size);
        buffer.resize(*next);
        ASSERT_TRUE(succeeds(reader.recv_into(buffer)));
        EXPECT_TRUE(is_message(buffer, size, size));
    }
    EXPECT_TRUE(receives_nothing(reader));
}

TEST_F(ReaderTest, AskingForTheSizeConsumesNothing) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, 123)));
    ASSERT_TRUE(succeeds(send(writer, 1, 45)));
    for (int turn = 0; turn < 3; ++turn) EXPECT_EQ(*reader.next_size(), 123U);
    EXPECT_TRUE(receives(reader, 0, 123));
    EXPECT_EQ(*reader.next_size(), 45U);
    EXPECT_TRUE(receives(reader, 1, 45));
}

TEST_F(ReaderTest, MessagesCanNotBeWrittenTo) {
    for (const std::size_t size : {std::size_t{10}, kGranule}) {
        BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
        ASSERT_TRUE(succeeds(send(writer, 0, size)));
        const Shared<bool> has_received;
        Child child([&] {
            ::signal(SIGSEGV, SIG_DFL);
            BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
            const BroadcastMessage message = reader.recv(kLong).or_throw();
            *has_received = true;
            const_cast<volatile std::byte&>(message.bytes()[0]) = std::byte{1};
        });
        EXPECT_EQ(child.wait(), killed_by(SIGSEGV));
        EXPECT_TRUE(*has_received);
    }
}

TEST_F(ReaderTest, HeldMessagesKeepTheirRoomUntilTheOldestIsReleased) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    for (std::uint64_t number = 0; number < 4; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 56)));
    }
    std::vector<BroadcastMessage> held;
    for (int i = 0; i < 4; ++i) held.push_back(reader.recv().or_throw());
    EXPECT_EQ(reader.stats().used_bytes, 4 * 64U);
    held[1].release();
    held[2].release();
    EXPECT_EQ(reader.stats().used_bytes, 4 * 64U) << "the oldest is still held";
    EXPECT_EQ(reader.stats().messages, 0U);
    held[0].release();
    EXPECT_EQ(reader.stats().used_bytes, 64U) << "all three at once";
    EXPECT_EQ(reader.stats().messages, 3U);
    held[0].release();  // again: nothing happens
    EXPECT_TRUE(is_message(held[3].bytes(), 3, 56));
    held[3].release();
    EXPECT_EQ(reader.stats().used_bytes, 0U);
    EXPECT_EQ(writer.stats().used_bytes, 0U);
}

TEST_F(ReaderTest, AHeldMessageIsNeverOverwritten) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, 1000)));
    BroadcastMessage first = reader.recv().or_throw();
    const std::uint64_t sent = fill_ring(writer, 1, 500);
    EXPECT_TRUE(fails(send(writer, 0, 500, 1ms), ErrorCode::Timeout, {"reader 0"}));
    for (std::uint64_t number = 1; number <= sent; ++number) {
        ASSERT_TRUE(receives(reader, number, 500));
    }
    EXPECT_TRUE(fails(send(writer, 0, 500), ErrorCode::Timeout));
    EXPECT_TRUE(is_message(first.bytes(), 0, 1000));
    first.release();
    EXPECT_TRUE(succeeds(send(writer, sent + 1, 500)));
}

TEST_F(ReaderTest, MovingAMessageHandsItOver) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, 56)));
    ASSERT_TRUE(succeeds(send(writer, 1, 56)));
    BroadcastMessage first = reader.recv().or_throw();
    BroadcastMessage second = reader.recv().or_throw();
    BroadcastMessage moved = std::move(first);
    first.release();  // NOLINT(bugprone-use-after-move): it has nothing to release
    EXPECT_EQ(reader.stats().used_bytes, 128U);
    moved = std::move(second);
    EXPECT_EQ(reader.stats().used_bytes, 64U) << "assignment releases what was there";
    EXPECT_TRUE(is_message(moved.bytes(), 1, 56));
    EXPECT_EQ(moved.sequence(), 1U);
}

TEST_F(ReaderTest, HoldsNoMoreThanItMay) {
    constexpr std::size_t kMax = 4096;
    BroadcastOptions options = small();
    options.capacity = 64 * 1024;
    BroadcastWriter writer = BroadcastWriter::create(new_name(), options);
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    for (std::uint64_t number = 0; number <= kMax; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 0)));
    }
    std::vector<BroadcastMessage> held;
    for (std::size_t i = 0; i < kMax; ++i) held.push_back(reader.recv().or_throw());
    EXPECT_TRUE(fails(reader.recv(), ErrorCode::Busy, {"4096 messages of this reader are held"}));
    EXPECT_TRUE(fails(reader.recv_into({}), ErrorCode::Busy, {"4096 messages"}));
    held[5].release();
    EXPECT_TRUE(fails(reader.recv(), ErrorCode::Busy)) << "room comes with the oldest";
    held[0].release();
    EXPECT_TRUE(receives(reader, kMax, 0));
    held.clear();
    EXPECT_EQ(reader.stats().used_bytes, 0U);
    // Once more around the table of entries.
    for (std::uint64_t number = 1; number <= kMax; ++number) {
        ASSERT_TRUE(succeeds(send(writer, kMax + number, 0)));
        ASSERT_TRUE(receives(reader, kMax + number, 0));
    }
}

TEST_F(ReaderTest, MessagesAreReleasedByAnyThread) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    constexpr std::uint64_t kRounds = 3'000;
    constexpr std::size_t kAtOnce = 3;
    std::uint64_t number = 0;
    for (std::uint64_t round = 0; round < kRounds / 30; ++round) {
        std::vector<std::jthread> threads;
        std::vector<std::vector<BroadcastMessage>> hands(kAtOnce);
        for (std::uint64_t i = 0; i < 30; ++i, ++number) {
            ASSERT_TRUE(succeeds(send(writer, number, 56)));
            hands[i % kAtOnce].push_back(reader.recv().or_throw());
        }
        for (auto& hand : hands) {
            threads.emplace_back([&hand] {
                while (!hand.empty()) hand.pop_back();
            });
        }
        threads.clear();  // joins them
        ASSERT_EQ(reader.stats().used_bytes, 0U) << "round " << round;
        ASSERT_EQ(reader.stats().messages, number);
    }
}

// recv_into() on one thread consumes beside a release on another: the position must never go back,
// or the writer would wait for room that will never come.
TEST_F(ReaderTest, ReleasingBesideReceivingNeverLosesRoom) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    constexpr std::uint64_t kMaxRounds = 20'000;
    const auto end = Clock::now() + 2s;  // a bound for busy machines
    std::optional<BroadcastMessage> handed;
    std::atomic<bool> is_handed{false};
    const std::jthread releaser([&](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            if (is_handed) {
                handed.reset();
                is_handed = false;
            } else {
                std::this_thread::yield();
            }
        }
    });
    Bytes buffer(100);
    for (std::uint64_t round = 0; round < kMaxRounds && Clock::now() < end; ++round) {
        ASSERT_TRUE(succeeds(send(writer, 2 * round, 56)));
        ASSERT_TRUE(succeeds(send(writer, 2 * round + 1, 56)));
        handed = reader.recv(kLong).or_throw();
        is_handed = true;
        ASSERT_TRUE(succeeds(reader.recv_into(buffer, kLong)));
        await([&] { return !is_handed && reader.stats().used_bytes == 0; });
    }
}

TEST_F(ReaderTest, AMessageOutlivesItsReader) {
    const std::string name = new_name();
    std::optional<BroadcastWriter> writer = BroadcastWriter::create(name, small());
    std::optional<BroadcastReader> reader = BroadcastReader::attach(name, 0);
    ASSERT_TRUE(succeeds(send(*writer, 0, 100)));
    ASSERT_TRUE(succeeds(send(*writer, 1, 2 * kGranule)));
    BroadcastMessage inline_message = reader->recv().or_throw();
    BroadcastMessage large_message = reader->recv().or_throw();
    reader.reset();
    EXPECT_TRUE(refuses(ErrorCode::Busy, [&] { BroadcastReader::attach(name, 0); }))
        << "the rank is not free yet";
    writer.reset();
    EXPECT_TRUE(exists(name));
    EXPECT_TRUE(is_message(inline_message.bytes(), 0, 100));
    EXPECT_TRUE(is_message(large_message.bytes(), 1, 2 * kGranule));
    inline_message.release();
    EXPECT_TRUE(is_message(large_message.bytes(), 1, 2 * kGranule));
    EXPECT_TRUE(exists(name));
    std::thread([&] { large_message.release(); }).join();
    EXPECT_FALSE(exists(name));
}

TEST_F(ReaderTest, ARankIsFreeOnceEverythingIsReleased) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, 100)));
    {
        const BroadcastMessage held = reader.recv().or_throw();
        reader.close();
        EXPECT_EQ(writer.readers().at(0).life, BroadcastReaderState::Life::Active)
            << "what lies in the ring must stay";
        fill_ring(writer, 1, 500);
        EXPECT_TRUE(is_message(held.bytes(), 0, 100));
    }
    EXPECT_EQ(writer.readers().at(0).life, BroadcastReaderState::Life::Vacant);
    reader = BroadcastReader::attach(writer.name(), 0);
    EXPECT_TRUE(reader.is_open());
}

TEST_F(ReaderTest, AClosedReaderReportsClosed) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, 10)));
    reader.close();
    reader.close();
    EXPECT_FALSE(reader.is_open());
    EXPECT_EQ(reader.descriptor(), -1);
    Bytes buffer(100);
    EXPECT_TRUE(fails(reader.recv(), ErrorCode::Closed, {"this reader is closed; attach anew"}));
    EXPECT_TRUE(fails(reader.recv_into(buffer), ErrorCode::Closed));
    EXPECT_TRUE(fails(reader.next_size(), ErrorCode::Closed));
    EXPECT_TRUE(refuses(ErrorCode::Closed, [&] { static_cast<void>(reader.stats()); }));
    reader.request_close();
    EXPECT_TRUE(succeeds(send(writer, 1, 10)));
}

TEST_F(ReaderTest, WaitsAreCancelled) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    Cancel cancel;
    Wait wait = kLong;
    wait.cancel = &cancel;
    std::jthread canceller([&] {
        await([&] { return reader.stats().waits > 0; });
        cancel.cancel();
    });
    EXPECT_TRUE(fails(reader.recv(wait), ErrorCode::Cancelled, {"nothing was consumed"}));
    canceller.join();
    wait = kLong;
    wait.interrupted = [](void*) { return true; };
    EXPECT_TRUE(fails(reader.next_size(wait), ErrorCode::Cancelled));
    ASSERT_TRUE(succeeds(send(writer, 0, 10)));
    EXPECT_TRUE(receives(reader, 0, 10));
}

TEST_F(ReaderTest, ARequestToCloseEndsItsWaits) {
    const BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    std::jthread closer([&] {
        await([&] { return reader.stats().waits > 0; });
        reader.request_close();
    });
    EXPECT_TRUE(fails(reader.recv(kLong), ErrorCode::Cancelled));
    closer.join();
    reader.close();
    EXPECT_EQ(writer.readers().at(0).life, BroadcastReaderState::Life::Vacant);
}

TEST_F(ReaderTest, KnowsWithoutWaitingWhetherAMessageIsThere) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    EXPECT_FALSE(reader.is_ready());
    ASSERT_TRUE(succeeds(send(writer, 0, 0)));
    EXPECT_TRUE(reader.is_ready());
    EXPECT_TRUE(receives(reader, 0, 0));
    EXPECT_FALSE(reader.is_ready());
    EXPECT_EQ(reader.stats().waits, 0U);
}

TEST_F(ReaderTest, CountsItsWaits) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    EXPECT_EQ(reader.stats().waits, 0U);
    EXPECT_TRUE(receives_nothing(reader));
    EXPECT_EQ(reader.stats().waits, 1U);
    EXPECT_EQ(reader.stats().sleeps, 0U);
    EXPECT_TRUE(fails(reader.recv(1ms), ErrorCode::Timeout));
    EXPECT_GE(reader.stats().sleeps, 1U);
    EXPECT_EQ(reader.stats().capacity, kSmallest);
    EXPECT_EQ(reader.stats().reserved_bytes, writer.stats().reserved_bytes);
}

}  // namespace
}  // namespace penstock

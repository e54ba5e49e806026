// Large messages: blocks of their own, in order with small ones; memory that is freed with them;
// views that may be kept without stopping the ring.
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
#include "tests/unit/broadcast/broadcast_corruptor.hpp"
#include "tests/unit/broadcast/broadcast_fixture.hpp"
#include "tests/unit/support/refused_calls.hpp"
#include "tests/unit/support/small_file_system.hpp"

namespace penstock {
namespace {

using namespace std::chrono_literals;
using namespace test;

class LargeTest : public BroadcastTest {};

TEST_F(LargeTest, ComeInOrderWithSmallOnes) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    for (std::uint64_t number = 0; number < 8; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, number % 2 == 0 ? 50 : kGranule + number)));
    }
    for (std::uint64_t number = 0; number < 8; ++number) {
        ASSERT_TRUE(receives(reader, number, number % 2 == 0 ? 50 : kGranule + number));
    }
    EXPECT_EQ(writer.stats().large_messages, 4U);
}

TEST_F(LargeTest, AreAligned) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    for (const std::size_t size : {kSmallest / 4 + 1, kGranule + 1, kGranule}) {
        ASSERT_TRUE(succeeds(send(writer, size, size)));
        const BroadcastMessage message = reader.recv().or_throw();
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(message.bytes().data()) % 64, 0U);
        EXPECT_TRUE(is_message(message.bytes(), size, size));
    }
}

TEST_F(LargeTest, TheirMemoryIsUsedAgain) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1, 4 * kGranule));
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    const std::uint64_t before = writer.stats().reserved_bytes;
    for (std::uint64_t number = 0; number < 50; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, 2 * kGranule)));
        ASSERT_TRUE(receives(reader, number, 2 * kGranule));
    }
    EXPECT_LE(writer.stats().reserved_bytes, before + 4 * kGranule);
}

TEST_F(LargeTest, WaitForTheReadersWhenTheArenaIsFull) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2, 2 * kGranule));
    BroadcastReader quick = BroadcastReader::attach(writer.name(), 1);
    BroadcastReader slow = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, kGranule)));
    ASSERT_TRUE(succeeds(send(writer, 1, kGranule)));
    ASSERT_TRUE(receives(quick, 0, kGranule));
    ASSERT_TRUE(receives(quick, 1, kGranule));
    EXPECT_TRUE(fails(send(writer, 2, kGranule, 1ms), ErrorCode::Timeout,
                      {"waiting for reader 0", "2 messages behind"}));
    EXPECT_EQ(only(writer.blocked_by()).rank, 0U);
    EXPECT_EQ(writer.stats().held_bytes, 2 * kGranule);
    ASSERT_TRUE(succeeds(send(writer, 2, 10))) << "small ones have room";
    ASSERT_TRUE(receives(slow, 0, kGranule));
    ASSERT_TRUE(succeeds(send(writer, 3, kGranule)));
    EXPECT_TRUE(fails(send(writer, 4, kGranule), ErrorCode::Timeout));
    ASSERT_TRUE(receives(slow, 1, kGranule));
    ASSERT_TRUE(receives(slow, 2, 10));
    ASSERT_TRUE(receives(slow, 3, kGranule));
}

TEST_F(LargeTest, ABlockedWriterGoesOnWhenABlockIsFreed) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1, 2 * kGranule));
    const std::string name = writer.name();
    Child child([&] {
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        for (std::uint64_t number = 0; number < 200; ++number) {
            Result<BroadcastMessage> message = reader.recv(kLong);
            require(message.is_ok());
            if (number % 2 == 0) message->keep();
            require(is_message(message->bytes(), number, kGranule + number));
        }
    });
    for (std::uint64_t number = 0; number < 200; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, kGranule + number, kLong)));
    }
    EXPECT_EQ(child.wait(), 0);
}

TEST_F(LargeTest, AKeptMessageLetsTheRingFlow) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, kGranule)));
    BroadcastMessage kept = reader.recv().or_throw();
    kept.keep();
    kept.keep();
    EXPECT_EQ(reader.stats().used_bytes, 0U) << "it takes no room in the ring any more";
    for (std::uint64_t number = 1; number < 300; ++number) {
        const std::size_t size = number % 10 == 0 ? kGranule : 100;
        ASSERT_TRUE(succeeds(send(writer, number, size))) << number;
        ASSERT_TRUE(receives(reader, number, size));
    }
    EXPECT_TRUE(is_message(kept.bytes(), 0, kGranule));
    EXPECT_GE(writer.stats().held_bytes, kGranule);
    kept.release();
    EXPECT_TRUE(succeeds(send(writer, 300, kGranule)));
    ASSERT_TRUE(receives(reader, 300, kGranule));
    EXPECT_TRUE(succeeds(send(writer, 301, kGranule)));
    EXPECT_EQ(writer.stats().held_bytes, kGranule) << "all others have been freed";
}

TEST_F(LargeTest, AHeldMessageStopsTheRing) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, kGranule)));
    BroadcastMessage held = reader.recv().or_throw();
    fill_ring(writer, 1, 100);
    while (reader.recv(Deadline::now())) {
    }
    EXPECT_TRUE(fails(send(writer, 1, 100), ErrorCode::Timeout));
    held.keep();
    EXPECT_TRUE(succeeds(send(writer, 1, 100)));
    EXPECT_TRUE(is_message(held.bytes(), 0, kGranule));
}

TEST_F(LargeTest, KeepingASmallMessageChangesNothing) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, 56)));
    BroadcastMessage message = reader.recv().or_throw();
    message.keep();
    EXPECT_EQ(reader.stats().used_bytes, 64U);
    message.release();
    message.keep();
    EXPECT_EQ(reader.stats().used_bytes, 0U);
}

TEST_F(LargeTest, AWriterWithoutSpaceNamesTheReaderThatKeepsABlock) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2, kGranule));
    BroadcastReader other = BroadcastReader::attach(writer.name(), 0);
    BroadcastReader keeper = BroadcastReader::attach(writer.name(), 1);
    ASSERT_TRUE(succeeds(send(writer, 0, kGranule)));
    ASSERT_TRUE(receives(other, 0, kGranule));
    BroadcastMessage kept = keeper.recv().or_throw();
    kept.keep();
    EXPECT_TRUE(fails(send(writer, 1, kGranule, 1ms), ErrorCode::Timeout, {"reader 1"}));
    EXPECT_EQ(only(writer.blocked_by()).rank, 1U);
    kept.release();
    EXPECT_TRUE(succeeds(send(writer, 1, kGranule)));
}

TEST_F(LargeTest, AWaitingWriterNamesAReaderThatKeepsABlockMeanwhile) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1, kGranule));
    BroadcastReader keeper = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, kGranule)));
    std::optional<BroadcastMessage> kept;
    std::jthread receiver([&] {
        await([&] { return !writer.blocked_by().empty(); });
        kept = keeper.recv().or_throw();
        kept->keep();
    });
    EXPECT_TRUE(fails(send(writer, 1, kGranule, 300ms), ErrorCode::Timeout, {"reader 0"}));
    receiver.join();
    EXPECT_EQ(only(writer.blocked_by()).rank, 0U);
    kept.reset();
    EXPECT_TRUE(succeeds(send(writer, 1, kGranule)));
}

TEST_F(LargeTest, AKeeperDoesNotBlockAWriterThatNeedsRingRoom) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2));
    BroadcastReader slow = BroadcastReader::attach(writer.name(), 0);
    BroadcastReader keeper = BroadcastReader::attach(writer.name(), 1);
    ASSERT_TRUE(succeeds(send(writer, 0, kGranule)));
    BroadcastMessage kept = keeper.recv().or_throw();
    kept.keep();
    fill_ring(writer, 1, 100);
    while (keeper.recv(Deadline::now())) {
    }
    EXPECT_TRUE(fails(send(writer, 1, 100, 1ms), ErrorCode::Timeout, {"reader 0"}));
    EXPECT_EQ(only(writer.blocked_by()).rank, 0U) << "the keeper does not block";
}

TEST_F(LargeTest, AMessageKeptBeyondItsReaderBlocksNoWriter) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, kGranule)));
    BroadcastMessage kept = reader.recv().or_throw();
    kept.keep();
    reader.close();
    EXPECT_EQ(writer.readers().at(0).life, BroadcastReaderState::Life::Vacant);
    for (std::uint64_t number = 1; number < 100; ++number) {
        ASSERT_TRUE(succeeds(send(writer, number, number % 10 == 0 ? kGranule : 500)));
    }
    EXPECT_TRUE(is_message(kept.bytes(), 0, kGranule));
}

TEST_F(LargeTest, AreFreedWhenTheLastGateOpens) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1, 2 * kGranule));
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, 2 * kGranule)));
    EXPECT_TRUE(fails(send(writer, 1, kGranule), ErrorCode::Timeout));
    reader.close();
    EXPECT_TRUE(succeeds(send(writer, 1, kGranule)));
    EXPECT_EQ(writer.stats().held_bytes, kGranule);
}

TEST_F(LargeTest, BlocksOfDeadReadersAreFreed) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), dropping(small(1, 2 * kGranule)));
    const std::string name = writer.name();
    const Gate kept;
    Child child([&] {
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        BroadcastMessage message = reader.recv(kLong).or_throw();
        message.keep();
        kept.open();
        for (;;) ::pause();
    });
    ASSERT_TRUE(succeeds(send(writer, 0, 2 * kGranule)));
    kept.pass();
    EXPECT_TRUE(fails(send(writer, 1, kGranule), ErrorCode::Timeout));
    EXPECT_EQ(only(writer.blocked_by()).rank, 0U);
    child.kill_unreaped();
    EXPECT_TRUE(succeeds(send(writer, 1, 2 * kGranule, kLong)));
}

TEST_F(LargeTest, WithoutSpaceNothingIsSentAndNothingLost) {
    const std::string name = new_name();
    Child child([&] {
        BroadcastWriter writer = BroadcastWriter::create(name, small());
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        if (!refuse_calls({kNoSpaceLeft})) ::_exit(kCannotRefuse);
        require(send(writer, 0, 10).is_ok());
        require(static_cast<bool>(fails(send(writer, 1, 3 * kGranule), ErrorCode::NoSpace,
                                        {"could not reserve " + std::to_string(3 * kGranule),
                                         "KiB free of", "docker run --shm-size"})));
        require(writer.stats().held_bytes == 0);
        require(writer.loan(3 * kGranule).code() == ErrorCode::NoSpace);
        require(send(writer, 1, 10).is_ok());
        require(static_cast<bool>(receives(reader, 0, 10)));
        require(static_cast<bool>(receives(reader, 1, 10)));
        require(static_cast<bool>(receives_nothing(reader)));
    });
    const int outcome = child.wait();
    if (outcome == kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

TEST_F(LargeTest, WithoutSpaceABlockInUseIsWaitedFor) {
    const std::string name = new_name();
    Child child([&] {
        BroadcastWriter writer = BroadcastWriter::create(name, small());
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        require(send(writer, 0, kGranule).is_ok());
        if (!refuse_calls({kNoSpaceLeft})) ::_exit(kCannotRefuse);
        require(static_cast<bool>(
            fails(send(writer, 1, kGranule), ErrorCode::Timeout, {"could not reserve"})));
        require(static_cast<bool>(receives(reader, 0, kGranule)));
        require(send(writer, 1, kGranule).is_ok());  // in the memory of the first
        require(static_cast<bool>(receives(reader, 1, kGranule)));
        require(send(writer, 2, 2 * kGranule).code() == ErrorCode::NoSpace);
    });
    const int outcome = child.wait();
    if (outcome == kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

// Its keeper may never let go, and only the file system can help.
TEST_F(LargeTest, WithoutSpaceABlockThatIsKeptIsNotWaitedFor) {
    const std::string name = new_name();
    Child child([&] {
        BroadcastWriter writer = BroadcastWriter::create(name, small());
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        require(send(writer, 0, kGranule).is_ok());
        BroadcastMessage kept = reader.recv().or_throw();
        kept.keep();
        if (!refuse_calls({kNoSpaceLeft})) ::_exit(kCannotRefuse);
        require(send(writer, 1, kGranule, kLong).code() == ErrorCode::NoSpace);
        kept.release();
        require(send(writer, 1, kGranule).is_ok());
    });
    const int outcome = child.wait();
    if (outcome == kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

#ifdef __x86_64__

TEST_F(LargeTest, AWaitingWriterNoticesThatTheFileSystemHasRoom) {
    const std::string name = new_name();
    Child child([&] {
        BroadcastWriter writer = BroadcastWriter::create(name, small());
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        require(send(writer, 0, kGranule).is_ok());
        if (!SmallFileSystem::begin()) ::_exit(kCannotRefuse);
        std::jthread helper([&] {
            await([&] { return !writer.blocked_by().empty(); });
            SmallFileSystem::size = std::int64_t{1} << 30U;
        });
        require(send(writer, 1, kGranule, kLong).is_ok());
        require(static_cast<bool>(receives(reader, 0, kGranule)));
        require(static_cast<bool>(receives(reader, 1, kGranule)));
    });
    const int outcome = child.wait();
    if (outcome == kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

#endif

TEST_F(LargeTest, GiveTheirMemoryBackWhenTheirWriterCloses) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    const std::uint64_t before = reader.stats().reserved_bytes;
    ASSERT_TRUE(succeeds(send(writer, 0, 8 * kGranule)));
    ASSERT_TRUE(succeeds(send(writer, 1, kGranule)));
    ASSERT_TRUE(receives(reader, 0, 8 * kGranule));
    writer.close();
    EXPECT_EQ(reader.stats().reserved_bytes, before + kGranule) << "the other is still to come";
    EXPECT_TRUE(receives(reader, 1, kGranule));
}

// Sleeps, because the time is what is tested: memory is given back after two idle seconds.
TEST_F(LargeTest, GiveTheirMemoryBackWhenNoMoreCome) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    const std::uint64_t before = writer.stats().reserved_bytes;
    ASSERT_TRUE(succeeds(send(writer, 0, 8 * kGranule)));
    ASSERT_TRUE(receives(reader, 0, 8 * kGranule));
    ASSERT_GE(writer.stats().reserved_bytes, before + 8 * kGranule);
    std::uint64_t number = 1;
    await([&] {
        EXPECT_TRUE(succeeds(send(writer, number, 1000)));
        EXPECT_TRUE(receives(reader, number, 1000));
        ++number;
        return writer.stats().reserved_bytes <= before || HasFailure();
    });
    EXPECT_EQ(writer.stats().held_bytes, 0U);
    ASSERT_TRUE(succeeds(send(writer, number, 8 * kGranule))) << "and take it anew";
    ASSERT_TRUE(receives(reader, number, 8 * kGranule));
}

TEST_F(LargeTest, GiveTheirMemoryBackBesideOneThatIsKept) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    const std::uint64_t before = writer.stats().reserved_bytes;
    ASSERT_TRUE(succeeds(send(writer, 0, 7 * kGranule)));
    ASSERT_TRUE(succeeds(send(writer, 1, kGranule)));
    ASSERT_TRUE(receives(reader, 0, 7 * kGranule));
    std::optional<BroadcastMessage> kept = reader.recv().or_throw();
    kept->keep();
    std::uint64_t number = 2;
    const auto send_until_reserved = [&](std::uint64_t bytes) {
        await([&] {
            EXPECT_TRUE(succeeds(send(writer, number, 1000)));
            EXPECT_TRUE(receives(reader, number, 1000));
            ++number;
            return writer.stats().reserved_bytes <= before + bytes || HasFailure();
        });
    };
    send_until_reserved(kGranule);
    EXPECT_TRUE(is_message(kept->bytes(), 1, kGranule));
    kept.reset();
    send_until_reserved(0);
}

// A reader that was found dead may live on, and keep a block when its rank is another's.
TEST_F(LargeTest, ThatAPredecessorKeptLateAreFree) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(1, kGranule));
    ASSERT_TRUE(succeeds(send(writer, 0, kGranule)));
    BroadcastCorruptor(writer.name()).holders().hold(0, 0);
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(receives(reader, 0, kGranule));
    EXPECT_TRUE(succeeds(send(writer, 1, kGranule)));
    EXPECT_EQ(writer.stats().held_bytes, kGranule);
}

// The same, and no reader comes there again.
TEST_F(LargeTest, ThatAReaderWithoutASuccessorKeptLateAreFree) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2, kGranule));
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    BroadcastReader::attach(writer.name(), 1).close();
    ASSERT_TRUE(succeeds(send(writer, 0, kGranule)));
    BroadcastCorruptor(writer.name()).holders().hold(0, 1);
    ASSERT_TRUE(receives(reader, 0, kGranule));
    EXPECT_TRUE(succeeds(send(writer, 1, kGranule)));
}

}  // namespace
}  // namespace penstock

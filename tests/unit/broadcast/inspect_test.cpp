// A Broadcast as `penstock info` shows it, without attaching.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "penstock/broadcast.hpp"
#include "segment/life/segment.hpp"
#include "tests/unit/broadcast/broadcast_fixture.hpp"

namespace penstock {
namespace {

using namespace std::chrono_literals;
using namespace test;
using Life = BroadcastReaderState::Life;

class BroadcastInspectTest : public BroadcastTest {};

TEST_F(BroadcastInspectTest, ShowsEverything) {
    const std::string name = new_name();
    BroadcastWriter writer = BroadcastWriter::create(name, small(3));
    BroadcastReader reader = BroadcastReader::attach(name, 1);
    BroadcastReader::attach(name, 2).close();
    ASSERT_TRUE(succeeds(send(writer, 0, 56)));
    ASSERT_TRUE(succeeds(send(writer, 1, 2 * kGranule)));
    ASSERT_TRUE(receives(reader, 0, 56));

    const BroadcastInfo info = inspect_broadcast(name);
    EXPECT_EQ(info.segment.name, name);
    EXPECT_EQ(info.segment.kind, Kind::Broadcast);
    EXPECT_EQ(info.segment.reserved_bytes, writer.stats().reserved_bytes);
    ASSERT_EQ(info.segment.participants.size(), 2U);
    EXPECT_EQ(info.segment.participants[0].role, "writer");
    EXPECT_EQ(info.segment.participants[1].role, "reader 1");
    EXPECT_TRUE(info.segment.participants[1].alive);
    EXPECT_EQ(info.stats.messages, 2U);
    EXPECT_EQ(info.stats.bytes, 56 + 2 * kGranule);
    EXPECT_EQ(info.stats.large_messages, 1U);
    EXPECT_EQ(info.stats.capacity, kSmallest);
    EXPECT_EQ(info.stats.used_bytes, 64U + 24);
    EXPECT_EQ(info.stats.held_bytes, 2 * kGranule);
    EXPECT_EQ(info.stats.reserved_bytes, info.segment.reserved_bytes);
    EXPECT_FALSE(info.closed);
    EXPECT_EQ(info.writer_blocked_for, 0);
    ASSERT_EQ(info.readers.size(), 3U);
    EXPECT_EQ(info.readers[0].life, Life::Expected);
    EXPECT_EQ(info.readers[0].lag_messages, 2U);
    EXPECT_EQ(info.readers[1].life, Life::Active);
    EXPECT_EQ(info.readers[1].messages, 1U);
    EXPECT_EQ(info.readers[1].lag_messages, 1U);
    EXPECT_EQ(info.readers[1].lag_bytes, 24U);
    EXPECT_EQ(info.readers[1].pid, static_cast<std::uint32_t>(::getpid()));
    EXPECT_EQ(info.readers[2].life, Life::Vacant);
    EXPECT_EQ(info.readers[2].lag_messages, 0U);
    EXPECT_EQ(writer.readers().at(0).life, Life::Expected) << "a look changes nothing";
}

TEST_F(BroadcastInspectTest, ShowsTheReadersThatBlockTheWriter) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2));
    BroadcastReader quick = BroadcastReader::attach(writer.name(), 0);
    const SilentReader slow(writer.name(), 1);
    std::uint64_t sent = 0;
    while (send(writer, sent, 100)) ASSERT_TRUE(receives(quick, sent++, 100));
    EXPECT_TRUE(fails(send(writer, sent, 100, 50ms), ErrorCode::Timeout));
    slow.stop();
    const BroadcastInfo info = inspect_broadcast(writer.name());
    EXPECT_GE(info.writer_blocked_for, 0.05);
    EXPECT_EQ(info.readers.at(0).blocking_for, 0);
    EXPECT_GE(info.readers.at(1).blocking_for, 0.05);
    EXPECT_TRUE(info.readers.at(1).stopped);
    EXPECT_TRUE(says(info.readers.at(1).describe(), {slow.pid_text(), "stopped", "blocking for"}));
}

TEST_F(BroadcastInspectTest, ShowsTheEnd) {
    const std::string name = new_name();
    BroadcastWriter writer = BroadcastWriter::create(name, dropping(small()));
    const SilentReader victim(name, 0);
    victim.kill();
    BroadcastInfo info = inspect_broadcast(name);
    EXPECT_FALSE(info.readers.at(0).alive);
    EXPECT_EQ(info.readers.at(0).pid, static_cast<std::uint32_t>(victim.pid()));
    EXPECT_EQ(info.stats.reader_deaths, 0U) << "not reaped yet";
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    EXPECT_EQ(inspect_broadcast(name).stats.reader_deaths, 1U);
    writer.close();
    info = inspect_broadcast(name);
    EXPECT_TRUE(info.closed);
    EXPECT_FALSE(info.segment.is_abandoned());
}

TEST_F(BroadcastInspectTest, AnAbandonedBroadcastCanBeRemoved) {
    const std::string name = new_name();
    const Gate created;
    Child child([&] {
        BroadcastWriter writer = BroadcastWriter::create(name, small());
        created.open();
        for (;;) ::pause();
    });
    created.pass();
    EXPECT_FALSE(remove_if_abandoned(name));
    child.kill_unreaped();
    EXPECT_TRUE(inspect_broadcast(name).segment.is_abandoned());
    EXPECT_TRUE(remove_if_abandoned(name));
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [&] { inspect_broadcast(name); }));
}

TEST_F(BroadcastInspectTest, AnotherKindIsRefused) {
    const std::string name = new_name();
    detail::SegmentPlan plan;
    plan.kind = Kind::Store;
    plan.slots = 1;
    plan.control_bytes = 4096;
    plan.payload_bytes = 4096;
    auto store = detail::Segment::create(name, plan, {}, [](detail::Segment& fresh) {
        require(fresh.participants().try_claim(0));
        fresh.participants().announce(0);
    });
    EXPECT_TRUE(refuses(ErrorCode::Incompatible, [&] { inspect_broadcast(name); },
                        {"'" + name + "' is not a broadcast"}));
    EXPECT_TRUE(refuses(ErrorCode::Incompatible, [&] { BroadcastReader::attach(name, 0); },
                        {"is a store, not a broadcast"}));
    store->participants().retire(0);
    store->participants().release(0);
    store->leave();
}

}  // namespace
}  // namespace penstock

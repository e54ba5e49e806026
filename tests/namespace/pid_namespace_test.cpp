// Participants in PID namespaces of their own, each of them process 1 there: lives follow
// from the kernel's locks, not from numbers that mean another process on the other side.
#include <gtest/gtest.h>

#include "tests/support/broadcast_actor.hpp"
#include "tests/support/isolation.hpp"
#include "tests/support/premises.hpp"

namespace penstock::trust {
namespace {

class PidNamespaces : public testing::Test {
protected:
    void SetUp() override {
        flags_ = isolation_flags();
        if (!flags_) GTEST_SKIP() << "PID namespaces are not permitted here";
        segment_ = premises_.name();
    }
    Actor start(const std::string& name) { return start_isolated(name, kBroadcastRole, *flags_); }

    void start_everybody() {
        writer_ = start("the writer");
        writer_.must("create " + segment_ + " 2 16384 1048576 raise");
        for (unsigned rank = 0; rank < 2; ++rank) {
            readers_[rank] = start("reader " + std::to_string(rank));
            readers_[rank].must("attach " + segment_ + " " + std::to_string(rank) + " 5000");
        }
        writer_.must("send 3 1000 5000");
        for (Actor& reader : readers_) EXPECT_EQ(reader.must("recv 3 5000").number("next"), 3);
    }

    Premises premises_{"pidns"};
    std::optional<int> flags_;
    std::string segment_;
    Actor writer_;
    std::array<Actor, 2> readers_;
};

TEST_F(PidNamespaces, EverybodyIsProcessOneAndNobodyIsTakenForDead) {
    start_everybody();
    for (const Participant& who : inspect_broadcast(segment_).segment.participants) {
        EXPECT_EQ(who.pid, 1U) << who.role;
        EXPECT_TRUE(who.alive) << who.role;
    }
    // A full ring, and a reader that takes its time: blocked, not bereaved.
    readers_[0].tell("drain 1000");
    const Answer blocked = writer_.ask("send 40 1000 400");
    EXPECT_EQ(blocked.outcome, "Timeout") << blocked.line();
    EXPECT_EQ(blocked.number("deaths"), 0);
    EXPECT_EQ(readers_[1].ask("recv 1 400").outcome, "ok");
}

TEST_F(PidNamespaces, TheDeathOfTheWriterIsNoticedByItsReaders) {
    start_everybody();
    for (Actor& reader : readers_) reader.tell("drain -1");
    writer_.process().kill();
    for (Actor& reader : readers_) {
        const Answer end = reader.answer();
        EXPECT_EQ(end.outcome, "PeerDied") << end.line();
        EXPECT_EQ(end.number("next"), 3);
        reader.must("close-reader");
    }
    EXPECT_TRUE(premises_.left().empty());
}

TEST_F(PidNamespaces, TheDeathOfAReaderIsNoticedByTheWriter) {
    start_everybody();
    readers_[1].process().kill();
    readers_[0].tell("recv 40 5000");
    const Answer sent = writer_.ask("send 40 1000 5000");
    EXPECT_TRUE(sent.is_ok()) << sent.line();
    EXPECT_EQ(sent.number("deaths"), 1) << sent.line();
    EXPECT_EQ(sent.number("last_dead"), 1) << sent.line();
    EXPECT_TRUE(readers_[0].answer().is_ok());
    readers_[1] = start("the replacement");
    readers_[1].must("attach " + segment_ + " 1 5000");
    writer_.must("send 1 1000 5000");
    EXPECT_EQ(readers_[1].must("recv 1 5000").number("next"), 44);
}

TEST_F(PidNamespaces, AStoppedOneElsewhereIsAliveThoughNobodyCanSeeThatItIsStopped) {
    start_everybody();
    readers_[1].process().stop();
    readers_[0].tell("drain 1000");
    const Answer sent = writer_.ask("send 40 1000 300");
    EXPECT_EQ(sent.outcome, "Timeout") << sent.line();
    const Answer blocked = writer_.ask("watched-send 1000 200");
    EXPECT_EQ(blocked.text("blocked_by"), "1/1/active/alive");
    readers_[1].process().resume();
    EXPECT_EQ(readers_[1].ask("drain 300").number("next"), blocked.number("sent"));
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    constexpr Role kRoles[] = {{kBroadcastRole, play_broadcast_actor},
                               {"isolation-probe", play_isolation_probe}};
    if (const auto code = play_role(argc, argv, kRoles)) return *code;
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}

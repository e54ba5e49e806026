// Evidence of death: an unreaped zombie is dead; a stopped or busy process is not; a lent
// descriptor keeps no process alive; a write to read-only memory harms only its writer.
#include "tests/support/broadcast_actor.hpp"
#include "tests/support/isolation.hpp"
#include "tests/support/lent_descriptor.hpp"
#include "tests/support/tier.hpp"

namespace penstock::trust {
namespace {

constexpr const char* kLenderRole = "lender";
constexpr const char* kScribblerRole = "scribbler";

// lender SOCKET NAME: creates a broadcast, anonymous if NAME is "-", sends its descriptor over the
// socket, sends one message, and then obeys commands.
int play_lender(const Words& words) {
    BroadcastWriter writer = BroadcastWriter::create(words.at(1) == "-" ? "" : words.at(1));
    std::byte message[100];
    fill_numbered(message, 0);
    writer.send(message).or_throw();
    require(send_descriptor(std::stoi(words.at(0)), writer.descriptor()), "it can't be lent");
    return listen([&writer](const Words& asked) {
        if (asked[0] == "close") writer.close();
        return ok();
    });
}

// scribbler NAME: receives a message and writes into it.
int play_scribbler(const Words& words) {
    ::signal(SIGSEGV, SIG_DFL);
    BroadcastReader reader = BroadcastReader::attach(words.at(0), 1, Milliseconds(5000));
    return listen([&reader](const Words& asked) {
        Result<BroadcastMessage> message = reader.recv(Milliseconds(300));
        if (!message) return failure_of(message.status());
        if (asked[0] == "scribble") {
            const_cast<std::byte*>(message->bytes().data())[0] = std::byte{1};
        }
        return ok();
    });
}

class Evidence : public testing::Test {
protected:
    Premises premises_{"evidence"};
    std::string segment_ = premises_.name();
};

TEST_F(Evidence, AnUnreapedZombieIsDead) {
    Actor writer(kBroadcastRole);
    Actor reader(kBroadcastRole);
    writer.must("create " + segment_ + " 1 16384 1048576 raise");
    reader.must("attach " + segment_ + " 0 1000");
    reader.tell("drain -1");
    writer.process().kill();
    ASSERT_TRUE(writer.process().is_over(kPatience));
    ASSERT_EQ(writer.process().state(), 'Z');
    const std::int64_t death = os::monotonic_ns();
    const Answer end = reader.answer();
    EXPECT_EQ(end.outcome, "PeerDied") << end.line();
    EXPECT_LT(end.number("t") - death, kPromptly);
    EXPECT_EQ(writer.process().state(), 'Z') << "the test reaped it too early";
}

TEST_F(Evidence, AStoppedWriterIsNotDead) {
    Actor writer(kBroadcastRole);
    Actor reader(kBroadcastRole);
    writer.must("create " + segment_ + " 1 16384 1048576 raise");
    reader.must("attach " + segment_ + " 0 1000");
    writer.process().stop();
    EXPECT_EQ(reader.ask("recv 1 500").outcome, "Timeout");
    writer.process().resume();
    writer.must("send 1 100 1000");
    EXPECT_TRUE(reader.ask("recv 1 1000").is_ok());
}

// The receiver keeps the descriptor open, as a child that inherited it would.
TEST_F(Evidence, ALentDescriptorKeepsNoWriterAlive) {
    for (const std::string& name : {std::string("-"), segment_}) {
        SCOPED_TRACE(name);
        int sockets[2];
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
        const Descriptor ours(sockets[0]);
        Descriptor theirs(sockets[1]);
        ::fcntl(ours.get(), F_SETFD, FD_CLOEXEC);
        Actor lender(kLenderRole, {std::to_string(theirs.get()), name});
        theirs.close();
        const Descriptor lent(receive_descriptor(ours.get()));
        BroadcastReader reader = BroadcastReader::attach(lent.get(), 0);
        EXPECT_TRUE(reader.recv(Milliseconds(5000)).is_ok());
        lender.process().kill();
        ASSERT_TRUE(lender.process().wait(kPatience).has_value());
        const std::int64_t death = os::monotonic_ns();
        const auto end = reader.recv(Milliseconds(5000));
        EXPECT_EQ(end.code(), ErrorCode::PeerDied) << end.status().message();
        EXPECT_LT(os::monotonic_ns() - death, kPromptly);
        reader.close();
        EXPECT_TRUE(premises_.left().empty()) << "the last to leave came by descriptor";
    }
}

TEST_F(Evidence, AWritingReaderFaultsAndHarmsNoOther) {
    Actor writer(kBroadcastRole);
    Actor reader(kBroadcastRole);
    Actor scribbler(kScribblerRole, {segment_});
    writer.must("create " + segment_ + " 2 16384 1048576 raise");
    reader.must("attach " + segment_ + " 0 1000");
    for (const char* size : {"1000", "100000"}) {  // in the ring, in a block
        SCOPED_TRACE(size);
        writer.must("wait-ready 5000");
        writer.must(std::string("send 2 ") + size + " 1000");
        EXPECT_TRUE(scribbler.ask("look").is_ok());
        scribbler.tell("scribble");
        const auto ending = scribbler.process().wait(kPatience);
        ASSERT_TRUE(ending.has_value());
        EXPECT_FALSE(ending->is_success());
        if (!kIsSanitized) {
            EXPECT_EQ(ending->code, SIGSEGV) << ending->describe();
        }
        EXPECT_TRUE(reader.ask("recv 2 1000").is_ok());
        // The writer is told of the death where it waits, and continues.
        reader.tell("drain 500");
        EXPECT_TRUE(writer.ask("send 40 1000 5000").is_ok());
        EXPECT_EQ(reader.answer().outcome, "Timeout");
        scribbler = Actor(kScribblerRole, {segment_});  // reads only on command
        while (scribbler.ask("look").is_ok()) {         // to the end of the stream
        }
    }
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    return run_tests(argc, argv,
                     {{kBroadcastRole, play_broadcast_actor},
                      {kLenderRole, play_lender},
                      {kScribblerRole, play_scribbler}});
}

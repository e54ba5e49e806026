// Forks with open handles: the child's calls fail, and it keeps none of its parent's locks, at
// whatever moment it was forked: the parent's death shows though the child lives on.
#include <spawn.h>

#include <atomic>
#include <optional>
#include <thread>

#include "tests/support/broadcast_actor.hpp"
#include "tests/support/isolation.hpp"
#include "tests/support/tier.hpp"

namespace penstock::trust {
namespace {

constexpr const char* kHostRole = "fork-host";

// Becomes a child that lives until the test closes the other end of `lifeline`.
void linger(int lifeline) noexcept {
    ::close(STDIN_FILENO);
    ::close(STDOUT_FILENO);
    char byte = 0;
    while (::read(lifeline, &byte, 1) < 0 && errno == EINTR) {
    }
    ::_exit(0);
}

// The result of each call of a parent's handle in the child, as "call=Code".
class Inheritance {
public:
    Inheritance(BroadcastWriter& writer, BroadcastReader& reader, BroadcastMessage& message)
        : writer_(writer), reader_(reader), message_(message) {}

    std::string try_everything() {
        std::byte bytes[64] = {};
        note("send", writer_.send(bytes).code());
        note("send-large", writer_.send(std::vector<std::byte>(100'000)).code());
        note("loan", writer_.loan(64).code());
        note("wait_ready", writer_.wait_ready().code());
        note("recv", reader_.recv().code());
        note("recv_into", reader_.recv_into(bytes).code());
        note("next_size", reader_.next_size().code());
        note("writer.stats", code_of([this] { static_cast<void>(writer_.stats()); }));
        note("writer.readers", code_of([this] { static_cast<void>(writer_.readers()); }));
        note("writer.blocked_by", code_of([this] { static_cast<void>(writer_.blocked_by()); }));
        note("reader.stats", code_of([this] { static_cast<void>(reader_.stats()); }));
        // These return nothing: they must do nothing.
        writer_.request_close();
        reader_.request_close();
        message_.keep();
        message_.release();
        reader_.close();
        writer_.close();
        return report_;
    }

private:
    template <typename Call>
    static ErrorCode code_of(Call&& call) {
        try {
            call();
            return ErrorCode::Ok;
        } catch (const Error& error) {
            return error.code();
        }
    }
    void note(const char* call, ErrorCode code) {
        if (code == ErrorCode::WrongProcess) return;
        report_ += std::string(call) + ":" + std::string(to_string(code)) + ",";
    }

    BroadcastWriter& writer_;
    BroadcastReader& reader_;
    BroadcastMessage& message_;
    std::string report_;
};

// fork-host LIFELINE: opens handles and forks children that live on.
class Host {
public:
    explicit Host(int lifeline) : lifeline_(lifeline) {}

    Answer obey(const Words& words) {
        try {
            if (words[0] == "create") {
                writer_.emplace(BroadcastWriter::create(words.at(1), shape()));
            } else if (words[0] == "attach") {
                reader_.emplace(BroadcastReader::attach(words.at(1), 0, Milliseconds(5000)));
            } else if (words[0] == "fork") {
                if (::fork() == 0) linger(lifeline_);
            } else if (words[0] == "spawn") {
                spawn();
            } else if (words[0] == "close") {
                reader_.reset();
                writer_.reset();
            } else if (words[0] == "inherit") {
                return inherit(words.at(1));
            } else if (words[0] == "attach-in-child") {
                return attach_in_child(words.at(1));
            } else if (words[0] == "storm") {
                return storm(words.at(1), std::stoi(words.at(2)));
            }
            return ok();
        } catch (const Error& error) {
            return failure_of(Status(error.code(), error.what()));
        }
    }

private:
    static BroadcastOptions shape() {
        return {.readers = 1, .capacity = 16384, .large = std::uint64_t{1} << 20U};
    }

    // A child uses both handles and a message; then the parent continues with them.
    Answer inherit(const std::string& name) {
        BroadcastWriter writer = BroadcastWriter::create(name, shape());
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        std::vector<std::byte> bytes(100'000);
        fill_numbered(bytes, 0);
        writer.send(bytes).or_throw();
        BroadcastMessage message = reader.recv().or_throw();
        Pipe report = Pipe::make();
        const pid_t child = ::fork();
        if (child == 0) {
            const std::string said = Inheritance(writer, reader, message).try_everything();
            [[maybe_unused]] const auto written =
                ::write(report.writing.get(), said.data(), said.size());
            // Runs static destructors. A leak checker would count what the child must not touch.
            kIsSanitized ? ::_exit(0) : ::exit(0);
        }
        report.writing.close();
        int status = 0;
        ::waitpid(child, &status, 0);
        char said[1024] = {};
        if (::read(report.reading.get(), said, sizeof said - 1) < 0) throw_errno("read");
        // The parent's handles are unharmed.
        const std::string torn = check_numbered(message.bytes(), 0);
        message.release();
        writer.send(std::span(bytes).first(10)).or_throw();
        const bool still_works = reader.recv(Milliseconds(1000)).is_ok();
        return ok()
            .with("unexpected", std::string(said[0] == '\0' ? "none" : said))
            .with("child", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status))
            .with("torn", torn.empty() ? 0 : 1)
            .with("works", still_works ? 1 : 0);
    }

    // A child may attach on its own.
    Answer attach_in_child(const std::string& name) {
        const pid_t child = ::fork();
        if (child == 0) {
            try {
                BroadcastReader own = BroadcastReader::attach(name, 0);
                ::_exit(own.recv(Milliseconds(5000)).is_ok() ? 0 : 1);
            } catch (const Error&) {
                ::_exit(2);
            }
        }
        writer_.value().send({}, Milliseconds(5000)).or_throw();
        int status = 0;
        ::waitpid(child, &status, 0);
        return ok().with("child", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
    }

    void spawn() {
        std::string program = "cat";
        char* argv[] = {program.data(), nullptr};
        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        ::posix_spawn_file_actions_adddup2(&actions, lifeline_, STDIN_FILENO);
        ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
        pid_t child = -1;
        if (::posix_spawnp(&child, "cat", &actions, nullptr, argv, environ) != 0) {
            throw_errno("posix_spawn");
        }
        ::posix_spawn_file_actions_destroy(&actions);
    }

    // One thread opens and closes handles, another forks all the time: no child may have a lock,
    // whatever the first thread was doing.
    Answer storm(const std::string& name, int rounds) {
        std::atomic<bool> is_over{false};
        int forks = 0;
        std::thread forker([&] {
            for (constexpr int kMax = 400; !is_over && forks < kMax; ++forks) {
                if (::fork() == 0) linger(lifeline_);
                constexpr timespec kPause{0, 200'000};  // so that the rounds outlast the forks
                ::nanosleep(&kPause, nullptr);
            }
        });
        std::string failed;
        for (int round = 0; round < rounds && failed.empty(); ++round) {
            try {
                BroadcastWriter writer = BroadcastWriter::create(name, shape());
                BroadcastReader reader = BroadcastReader::attach(name, 0);
            } catch (const Error& error) {
                failed = error.what();
            }
        }
        is_over = true;
        forker.join();
        Answer answer = ok().with("forks", forks);
        if (!failed.empty()) answer.outcome = "Stuck";
        answer.sentence = failed;
        return answer;
    }

    int lifeline_;
    std::optional<BroadcastWriter> writer_;
    std::optional<BroadcastReader> reader_;
};

int play_host(const Words& words) {
    Host host(std::stoi(words.at(0)));
    return listen([&host](const Words& asked) { return host.obey(asked); });
}

class Forks : public testing::Test {
protected:
    Forks() {
        int ends[2];
        if (::pipe(ends) != 0) throw_errno("pipe");
        lifeline_ = {Descriptor(ends[0]), Descriptor(ends[1])};
        ::fcntl(ends[1], F_SETFD, FD_CLOEXEC);  // the reading end is inherited on purpose
    }
    Actor start_host(const std::string& name) {
        return Actor(name, Process::start(kHostRole, {std::to_string(lifeline_.reading.get())}));
    }
    // From the host's death to the error at the witness.
    static void expect_noticed(Actor& host, Actor& witness, const std::string& outcome) {
        host.process().kill();
        const std::int64_t death = os::monotonic_ns();
        const Answer end = witness.answer();
        EXPECT_EQ(end.outcome, outcome) << end.line();
        EXPECT_LT(end.number("t") - death, 1'000'000'000) << "a forked child hid the death";
    }

    Premises premises_{"fork"};
    std::string segment_ = premises_.name();
    Pipe lifeline_;
    Actor witness_{kBroadcastRole};
};

TEST_F(Forks, ParentsHandlesFailInAChild) {
    Actor host = start_host("the host");
    const Answer answer = host.must("inherit " + segment_);
    EXPECT_EQ(answer.text("unexpected"), "none");
    EXPECT_EQ(answer.number("child"), 0);
    EXPECT_EQ(answer.number("torn"), 0);
    EXPECT_EQ(answer.number("works"), 1);
    EXPECT_TRUE(premises_.left().empty());
}

TEST_F(Forks, AChildMayAttachOnItsOwn) {
    Actor host = start_host("the host");
    host.must("create " + segment_);
    EXPECT_EQ(host.must("attach-in-child " + segment_).number("child"), 0);
}

TEST_F(Forks, TheDeathOfAWriterShowsThoughItsChildLivesOn) {
    for (const char* way : {"fork", "spawn"}) {
        SCOPED_TRACE(way);
        Actor host = start_host("the host");
        host.must("create " + segment_);
        host.must(way);
        witness_.must("attach " + segment_ + " 0 1000");
        witness_.tell("drain -1");
        expect_noticed(host, witness_, "PeerDied");
        witness_.must("close-reader");
    }
    EXPECT_TRUE(premises_.left().empty());
}

TEST_F(Forks, TheDeathOfAReaderShowsThoughItsChildLivesOn) {
    Actor host = start_host("the host");
    witness_.must("create " + segment_ + " 1 16384 1048576 raise");
    host.must("attach " + segment_);
    host.must("fork");
    host.process().kill();
    const Answer sent = witness_.ask("send 40 1000 2000");
    EXPECT_TRUE(sent.is_ok()) << sent.line();
    EXPECT_EQ(sent.number("deaths"), 1);
}

TEST_F(Forks, AHandleClosedAfterAForkIsGoneDespiteTheChild) {
    Actor host = start_host("the host");
    witness_.must("create " + segment_ + " 1 16384 1048576 raise");
    host.must("attach " + segment_);
    host.must("fork");
    host.must("close");
    Actor successor(kBroadcastRole);
    EXPECT_TRUE(successor.ask("attach " + segment_ + " 0 0").is_ok());
    witness_.must("send 1 1000 1000");
    successor.must("recv 1 1000");
    witness_.must("close-writer");
    successor.must("close-reader");
    EXPECT_TRUE(premises_.left().empty()) << "the child keeps the segment in use";
}

TEST_F(Forks, AWriterClosedAfterAForkLeavesTheNameToOthers) {
    Actor host = start_host("the host");
    host.must("create " + segment_);
    host.must("fork");
    host.must("close");
    EXPECT_TRUE(premises_.left().empty());
    EXPECT_TRUE(witness_.ask("create " + segment_ + " 1 16384 1048576 raise").is_ok());
}

TEST_F(Forks, NoChildInheritsALockWhileHandlesComeAndGo) {
    Actor host = start_host("the host");
    const Answer stormed = host.ask("storm " + segment_ + " 300");
    EXPECT_TRUE(stormed.is_ok()) << stormed.line();
    EXPECT_GT(stormed.number("forks"), 10);
    EXPECT_TRUE(premises_.left().empty()) << "a child holds a lock of a closed handle";
    host.must("create " + segment_);
    witness_.must("attach " + segment_ + " 0 1000");
    witness_.tell("drain -1");
    expect_noticed(host, witness_, "PeerDied");
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    return run_tests(argc, argv, {{kBroadcastRole, play_broadcast_actor}, {kHostRole, play_host}});
}

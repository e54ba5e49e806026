// Processes that are killed and stopped at random under load: readers with replacements, writers
// with successors. Every message is numbered and checked; the seed that is printed brings it back.
// usage: broadcast_stress_test [--full] [--seed N] [--kills N]
#include <array>
#include <cstdio>
#include <random>
#include <string>

#include "tests/stress/stress_roles.hpp"
#include "tests/support/premises.hpp"
#include "tests/support/tier.hpp"

namespace penstock::trust {
namespace {

constexpr const char* kWriterRole = "stress-writer";
constexpr const char* kReaderRole = "stress-reader";
constexpr std::int64_t kBound = 100'000'000;  // ns, from death to the first error: DESIGN.md

// How late errors were. A busy machine may delay a few; a library that is late is late often.
class Punctuality {
public:
    void note(std::int64_t nanoseconds) {
        ++all_;
        if (nanoseconds > kBound) ++late_;
        slowest_ = std::max(slowest_, nanoseconds);
    }
    void check() const {
        std::printf("  errors noticed: %d, after %.1f ms at most, %d later than 100 ms\n", all_,
                    static_cast<double>(slowest_) * 1e-6, late_);
        if (kIsSanitized) return;
        require(late_ * 20 <= all_, "one in twenty errors or more came late");
        require(slowest_ < 20 * kBound, "an error took more than 2 s");
    }

private:
    int all_ = 0;
    int late_ = 0;
    std::int64_t slowest_ = 0;
};

class Stress {
public:
    Stress(Premises& premises, std::uint64_t seed) : premises_(premises), dice_(seed) {}

    // Readers die, one after another, each in the midst of messages; a replacement takes its place.
    void kill_readers(int kills) {
        const std::string name = premises_.name();
        Actor writer = start_writer(name);
        std::vector<Actor> readers;
        for (unsigned rank = 0; rank < kStressReaders; ++rank) {
            readers.push_back(start_reader(name, rank));
            must_attach(readers.back());
            readers.back().tell("drain");
        }
        require(writer.ask("go").is_ok(), "the writer does not go");
        for (int kill = 0; kill < kills; ++kill) {
            const auto rank = static_cast<unsigned>(dice_.between(0, kStressReaders - 1));
            wait_for_progress(rank, dice_.between(1, 150));
            check_beginning(rank);
            stop_somebody(readers);
            kill_one(readers[rank], dice_.between(0, 3) == 0);
            readers[rank] = replace(name, rank);
        }
        require(writer.ask("stop").is_ok(), "the writer does not stop");
        settle(name, writer, kills);
        require(writer.ask("close").is_ok(), "the writer does not close");
        const std::uint64_t sent = score_[kAccepted].load();
        for (Actor& reader : readers) {
            const Answer end = reader.answer();
            require(
                end.outcome == "Closed" && std::cmp_equal(end.number("next"), sent),
                "a reader ended with " + end.line() + " after " + std::to_string(sent) + " sent");
        }
        require(premises_.left().empty(), "a segment is left in /dev/shm");
        std::printf(
            "  %d readers killed, %llu messages, every one received by the three that lived\n",
            kills, static_cast<unsigned long long>(sent));
    }

    // Writers die; the readers drain, are told, and meet the next writer under the same name.
    void kill_writers(int kills) {
        const std::string name = premises_.name();
        std::vector<Actor> readers;
        for (unsigned rank = 0; rank < kStressReaders; ++rank) {
            readers.push_back(start_reader(name, rank));
        }
        std::uint64_t all = 0;
        Punctuality punctuality;
        for (int kill = 0; kill < kills; ++kill) {
            score_[kAccepted].store(0);
            Actor writer = start_writer(name);
            for (Actor& reader : readers) must_attach(reader);
            for (Actor& reader : readers) reader.tell("drain");
            require(writer.ask("go").is_ok(), "the writer does not go");
            wait_for_progress(0, dice_.between(0, 150));
            stop_somebody(readers);
            kill_one(writer, dice_.between(0, 3) == 0);
            const std::int64_t death = os::monotonic_ns();
            all += check_ends(readers, death, punctuality);
            require(premises_.left().empty(), "the readers of a dead writer left its name behind");
        }
        punctuality.check();
        std::printf("  %d writers killed, %llu messages, all of them drained by three readers\n",
                    kills, static_cast<unsigned long long>(all));
    }

private:
    Actor start_writer(const std::string& name) {
        Actor writer(kWriterRole, {name, score_.argument(), std::to_string(dice_.next())});
        require(writer.ask("ready").is_ok(), "the writer did not start");
        return writer;
    }
    Actor start_reader(const std::string& name, unsigned rank) {
        return Actor(kReaderRole,
                     {name, score_.argument(), std::to_string(rank), std::to_string(dice_.next())});
    }
    static void must_attach(Actor& reader) {
        const Answer attached = reader.ask("attach 10000");
        require(attached.is_ok(), "a reader could not attach: " + attached.line());
    }

    Actor replace(const std::string& name, unsigned rank) {
        Actor reader = start_reader(name, rank);
        // The first message of a replacement was not accepted before it asked, and is accepted,
        // or on its way, when it is there.
        Beginning& beginning = beginnings_.at(rank);
        beginning.least = score_[kAccepted].load();
        must_attach(reader);
        beginning.most = score_[kAccepted].load() + 1;
        reader.tell("drain");
        return reader;
    }
    void check_beginning(unsigned rank) {
        const std::uint64_t first = score_[kFirstOf + rank].load();
        const Beginning& due = beginnings_.at(rank);
        require(first >= due.least && first <= due.most,
                "a replacement began with " + std::to_string(first) + ", and should have between " +
                    std::to_string(due.least) + " and " + std::to_string(due.most));
    }

    // Under load: it has received something since, and a bit of time more.
    void wait_for_progress(unsigned rank, std::uint64_t messages) {
        const std::uint64_t start = score_[kReceivedBy + rank].load();
        require(
            await(kPatience, [&] { return score_[kReceivedBy + rank].load() >= start + messages; }),
            "reader " + std::to_string(rank) + " receives nothing");
    }

    // Now and then a bystander is stopped for a moment. That is no death.
    void stop_somebody(std::vector<Actor>& bystanders) {
        if (dice_.between(0, 3) != 0) return;
        Process& process = bystanders[dice_.between(0, bystanders.size() - 1)].process();
        process.stop();
        pause(dice_.between(0, 30));
        process.resume();
    }

    void kill_one(Actor& victim, bool stopped_before) {
        if (stopped_before) {
            victim.process().stop();
            pause(dice_.between(0, 30));
        }
        victim.process().kill();
        const auto ending = victim.process().wait(kPatience);
        require(ending.has_value(), "a killed process lives on");
        require(ending->was_killed, "a process had ended on its own: " + ending->describe());
    }

    static void pause(std::uint64_t milliseconds) {
        const auto end = SteadyClock::now() + Milliseconds(milliseconds);
        await(kPatience, [&] { return SteadyClock::now() >= end; });
    }

    // After all that: every block is free but that of the last large message. What the readers keep
    // comes back when they are idle, a leaked block never.
    void settle(const std::string& name, Actor& writer, int kills) {
        const std::int64_t block = (std::int64_t{kLastSize} + 65535) / 65536 * 65536;
        Answer answer;
        const bool settled = await(kPatience, [&] {
            wait_until_drained(name);
            answer = writer.ask("send " + std::to_string(kLastSize));
            return answer.number("held_bytes") == block;
        });
        require(settled, std::to_string(answer.number("held_bytes")) +
                             " bytes are held after all, not " + std::to_string(block));
        require(answer.number("reader_deaths") == kills,
                "deaths counted: " + answer.text("reader_deaths"));
        require(answer.number("told") >= 1 && answer.number("told") <= kills,
                "deaths told: " + answer.text("told"));
    }
    static void wait_until_drained(const std::string& name) {
        const bool drained = await(kPatience, [&] {
            for (const BroadcastReaderState& reader : inspect_broadcast(name).readers) {
                if (reader.lag_messages > 0 || reader.lag_bytes > 0) return false;
            }
            return true;
        });
        require(drained, "the readers do not come to the end");
    }

    // All three got the same: everything accepted, and of the message under way all or nothing.
    std::uint64_t check_ends(std::vector<Actor>& readers, std::int64_t death,
                             Punctuality& punctuality) {
        const std::uint64_t accepted = score_[kAccepted].load();
        std::int64_t next = -1;
        for (Actor& reader : readers) {
            const Answer end = reader.answer();
            require(end.outcome == "PeerDied",
                    "a reader of a dead writer ended with " + end.line());
            punctuality.note(end.number("end") - death);
            if (next < 0) next = end.number("next");
            require(end.number("next") == next, "readers got different ends: " + end.line());
            require(end.number("received") == end.number("next"),
                    "not from the first: " + end.line());
        }
        const auto got = static_cast<std::uint64_t>(next);
        require(got >= accepted && got <= accepted + 1,
                std::to_string(accepted) + " were accepted, " + std::to_string(got) + " came");
        return got;
    }

    struct Beginning {
        std::uint64_t least = 0;
        std::uint64_t most = 0;
    };

    Premises& premises_;
    Dice dice_;
    Scoreboard score_;
    std::array<Beginning, kStressReaders> beginnings_{};
};

int run(int argc, char** argv) {
    ::signal(SIGPIPE, SIG_IGN);
    std::uint64_t seed = std::random_device{}();
    int kills = is_full_tier(argc, argv) ? 200 : 40;
    if (kIsSanitized) kills /= 4;
    for (int i = 1; i + 1 < argc; ++i) {
        if (std::string(argv[i]) == "--seed") seed = std::stoull(argv[i + 1]);
        if (std::string(argv[i]) == "--kills") kills = std::stoi(argv[i + 1]);
    }
    std::printf("broadcast stress: --seed %llu --kills %d\n", static_cast<unsigned long long>(seed),
                kills);
    std::fflush(stdout);
    Premises premises("stress");
    try {
        Stress stress(premises, seed);
        stress.kill_readers(kills);
        stress.kill_writers(kills);
    } catch (const std::exception& error) {
        std::printf("BROKEN: %s\n", error.what());
        return 1;
    }
    return 0;
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    constexpr Role kRoles[] = {{kWriterRole, play_stress_writer},
                               {kReaderRole, play_stress_reader}};
    if (const auto code = play_role(argc, argv, kRoles)) return *code;
    return run(argc, argv);
}

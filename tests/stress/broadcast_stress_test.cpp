// Processes of one Broadcast, killed and stopped at random under load: readers with replacements,
// writers with successors. Every message is numbered and checked; the printed seed repeats a run.
// usage: broadcast_stress_test [--full] [--seed N] [--kills N]
#include <array>

#include "tests/stress/broadcast_stress_roles.hpp"

namespace penstock::trust {
namespace {

constexpr const char* kWriterRole = "stress-writer";
constexpr const char* kReaderRole = "stress-reader";
constexpr std::int64_t kBound = 100'000'000;  // ns, from death to the first error

// The lateness of errors. A busy machine delays a few; a slow library delays many.
class Punctuality {
public:
    void note(std::int64_t nanoseconds) {
        ++all_;
        if (nanoseconds > kBound) ++late_;
        slowest_ = std::max(slowest_, nanoseconds);
    }
    void check() const {
        report("  errors noticed: ", all_, ", after ", slowest_ / 1'000'000, " ms at most, ", late_,
               " later than 100 ms");
        if (kIsSanitized) return;
        require(late_ * 20 <= all_, "one in twenty errors or more came late");
        require(slowest_ < 20 * kBound, "an error took more than 2 s");
    }

private:
    int all_ = 0;
    int late_ = 0;
    std::int64_t slowest_ = 0;
};

class BroadcastStress {
public:
    explicit BroadcastStress(StressRun& run)
        : premises_(run.premises), dice_(run.seed), kills_(run.kills()) {}

    // Kills readers, one after another, among messages; each is replaced.
    void kill_readers() {
        name_ = premises_.name();
        Actor writer = start_writer();
        std::vector<Actor> readers = start_readers();
        for (Actor& reader : readers) reader.must("attach 10000");
        for (Actor& reader : readers) reader.tell("drain");
        writer.must("go");
        for (std::uint64_t kill = 0; kill < kills_; ++kill) {
            const auto rank = static_cast<unsigned>(dice_.between(0, kStressReaders - 1));
            wait_for_progress(rank, dice_.between(1, 150));
            check_beginning(rank);
            maybe_stop_one(readers);
            kill_maybe_stopped(readers[rank]);
            readers[rank] = replace(rank);
        }
        writer.must("stop");
        settle(writer);
        writer.must("close");
        const std::uint64_t sent = score_[kAccepted].load();
        for (Actor& reader : readers) {
            const Answer end = reader.answer();
            require(end.outcome == "Closed" && std::cmp_equal(end.number("next"), sent),
                    text_of("a reader ended with ", end.line(), " after ", sent, " sent"));
        }
        require(premises_.left().empty(), "a segment is left in /dev/shm");
        report("  ", kills_, " readers killed, ", sent,
               " messages, every one received by the three that lived");
    }

    // Kills writers; the readers drain, get the error, and attach to the next writer of the name.
    void kill_writers() {
        name_ = premises_.name();
        std::vector<Actor> readers = start_readers();
        std::uint64_t all = 0;
        Punctuality punctuality;
        for (std::uint64_t kill = 0; kill < kills_; ++kill) {
            score_[kAccepted].store(0);
            Actor writer = start_writer();
            for (Actor& reader : readers) reader.must("attach 10000");
            for (Actor& reader : readers) reader.tell("drain");
            writer.must("go");
            wait_for_progress(0, dice_.between(0, 150));
            maybe_stop_one(readers);
            kill_maybe_stopped(writer);
            all += check_ends(readers, os::monotonic_ns(), punctuality);
            require(premises_.left().empty(), "the readers of a dead writer left its name behind");
        }
        punctuality.check();
        report("  ", kills_, " writers killed, ", all,
               " messages, all of them drained by three readers");
    }

private:
    Actor start_writer() {
        Actor writer(kWriterRole, {name_, score_.argument(), std::to_string(dice_.next())});
        writer.must("ready");
        return writer;
    }
    Actor start_reader(unsigned rank) {
        return Actor(kReaderRole, {name_, score_.argument(), std::to_string(rank),
                                   std::to_string(dice_.next())});
    }
    std::vector<Actor> start_readers() {
        std::vector<Actor> readers;
        for (unsigned rank = 0; rank < kStressReaders; ++rank) {
            readers.push_back(start_reader(rank));
        }
        return readers;
    }

    // A replacement's first message is one that was not accepted when it asked, and that was
    // accepted, or under way, when it had attached.
    Actor replace(unsigned rank) {
        Actor reader = start_reader(rank);
        Beginning& due = beginnings_.at(rank);
        due.least = score_[kAccepted].load();
        reader.must("attach 10000");
        due.most = score_[kAccepted].load() + 1;
        reader.tell("drain");
        return reader;
    }
    void check_beginning(unsigned rank) {
        const std::uint64_t first = score_[kFirstOf + rank].load();
        const Beginning& due = beginnings_.at(rank);
        require(first >= due.least && first <= due.most,
                text_of("a replacement began with ", first, ", and should have between ", due.least,
                        " and ", due.most));
    }

    // Waits until the reader has received that many more, so that it is under load.
    void wait_for_progress(unsigned rank, std::uint64_t messages) {
        std::atomic<std::uint64_t>& received = score_[kReceivedBy + rank];
        const std::uint64_t end = received.load() + messages;
        require(await(kPatience, [&] { return received.load() >= end; }),
                text_of("reader ", rank, " receives nothing"));
    }
    // At most 30 ms.
    void pause() {
        const auto end = SteadyClock::now() + Milliseconds(dice_.between(0, 30));
        await(kPatience, [&] { return SteadyClock::now() >= end; });
    }
    // Stops a bystander for a moment at times, which must not count as a death.
    void maybe_stop_one(std::vector<Actor>& bystanders) {
        if (dice_.between(0, 3) != 0) return;
        Process& process = bystanders[dice_.between(0, bystanders.size() - 1)].process();
        process.stop();
        pause();
        process.resume();
    }
    void kill_maybe_stopped(Actor& victim) {
        if (dice_.between(0, 3) == 0) {
            victim.process().stop();
            pause();
        }
        kill_worker(victim);
    }

    // In the end every block is free but that of the last large message. Kept messages are released
    // when the readers are idle; a leaked block never is.
    void settle(Actor& writer) {
        constexpr std::int64_t kBlock = (std::int64_t{kLastSize} + 65535) / 65536 * 65536;
        Answer answer;
        const bool settled = await(kPatience, [&] {
            wait_until_drained();
            answer = writer.ask(text_of("send ", kLastSize));
            return answer.number("held_bytes") == kBlock;
        });
        require(settled,
                text_of(answer.text("held_bytes"), " bytes are held after all, not ", kBlock));
        require(std::cmp_equal(answer.number("reader_deaths"), kills_),
                "deaths counted: " + answer.text("reader_deaths"));
        require(answer.number("told") >= 1 && std::cmp_less_equal(answer.number("told"), kills_),
                "deaths told: " + answer.text("told"));
    }
    void wait_until_drained() {
        const bool drained = await(kPatience, [&] {
            const auto readers = inspect_broadcast(name_).readers;
            return std::ranges::none_of(readers, [](const auto& reader) {
                return reader.lag_messages > 0 || reader.lag_bytes > 0;
            });
        });
        require(drained, "the readers do not come to the end");
    }

    // All three received every accepted message, and of the one under way all or nothing.
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
            require(end.number("received") == next, "not from the first: " + end.line());
        }
        const auto got = static_cast<std::uint64_t>(next);
        require(got >= accepted && got <= accepted + 1,
                text_of(accepted, " were accepted, ", got, " came"));
        return got;
    }

    struct Beginning {
        std::uint64_t least = 0;
        std::uint64_t most = 0;
    };

    Premises& premises_;
    Dice dice_;
    std::uint64_t kills_;
    std::string name_;
    SharedWords score_{kScores};
    std::array<Beginning, kStressReaders> beginnings_{};
};

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    constexpr Role kRoles[] = {{kWriterRole, play_worker<StressWriter>},
                               {kReaderRole, play_worker<StressReader>}};
    return run_stress(argc, argv, "broadcast-stress", kRoles, [](StressRun& run) {
        BroadcastStress stress(run);
        stress.kill_readers();
        stress.kill_writers();
    });
}

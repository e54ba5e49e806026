// Producers and consumers of one Queue, killed and stopped at random under load and replaced. Every
// message is numbered and checked; the seed that is printed brings it back.
// usage: queue_stress_test [--full] [--seed N] [--kills N]
#include <cstdio>
#include <random>
#include <string>

#include "tests/stress/queue_stress_roles.hpp"
#include "tests/support/premises.hpp"
#include "tests/support/tier.hpp"

namespace penstock::trust {
namespace {

constexpr const char* kProducerRole = "queue-producer";
constexpr const char* kConsumerRole = "queue-consumer";

class QueueStress {
public:
    QueueStress(Premises& premises, std::uint64_t seed)
        : premises_(premises), dice_(seed), name_(premises.name()),
          queue_(Queue::create(name_, {.capacity = std::uint64_t{24} << 20U,
                                       .slots = 64,
                                       .inline_bytes = 256,
                                       .participants = 16,
                                       .ends_with = EndsWith::LastProducer})) {}

    void run(int kills) {
        for (unsigned rank = 0; rank < kQueueProducers; ++rank) start_producer(rank);
        for (unsigned rank = 0; rank < kQueueConsumers; ++rank) start_consumer(rank);
        for (int kill = 0; kill < kills; ++kill) {
            wait_for_progress(dice_.between(1, 150));
            stop_somebody();
            kill_somebody();
        }
        wait_for_progress(1000);
        finish(kills);
    }

private:
    void start_producer(unsigned rank) {
        Actor& actor = actors_.at(rank);
        actor = Actor(kProducerRole, {name_, score_.argument(), table_.argument(),
                                      std::to_string(rank), std::to_string(dice_.next())});
        actor.must("go");
    }
    void start_consumer(unsigned rank) {
        Actor& actor = actors_.at(kQueueProducers + rank);
        actor = Actor(kConsumerRole,
                      {name_, score_.argument(), table_.argument(), std::to_string(dice_.next())});
        actor.must("go");
    }

    // Under load: so many have been acknowledged since.
    void wait_for_progress(std::uint64_t messages) {
        const std::uint64_t start = score_[kAcknowledged].load();
        const bool is_going_on =
            await(kPatience, [&] { return score_[kAcknowledged].load() >= start + messages; });
        check_nobody_gave_up();
        require(is_going_on, "nothing is acknowledged any more");
    }
    void check_nobody_gave_up() {
        for (Actor& actor : actors_) {
            if (!actor.process().is_over()) continue;
            const auto ending = actor.process().wait(kPatience);
            throw Broken("a process ended on its own: " + (ending ? ending->describe() : "?"));
        }
    }

    // Now and then one is stopped for a while. That is no death, and the others go on.
    void stop_somebody() {
        if (dice_.between(0, 2) != 0) return;
        Process& process = actors_[dice_.between(0, actors_.size() - 1)].process();
        process.stop();
        wait_for_progress(dice_.between(1, 300));
        process.resume();
    }
    void kill_somebody() {
        const auto at = static_cast<unsigned>(dice_.between(0, actors_.size() - 1));
        Process& process = actors_.at(at).process();
        if (dice_.between(0, 3) == 0) {
            process.stop();
            wait_for_progress(dice_.between(1, 50));
        }
        process.kill();
        const auto ending = process.wait(kPatience);
        require(ending.has_value(), "a killed process lives on");
        require(ending->was_killed, "a process had ended on its own: " + ending->describe());
        if (at < kQueueProducers) {
            start_producer(at);
        } else {
            start_consumer(at - kQueueProducers);
        }
    }

    void finish(int kills) {
        for (unsigned rank = 0; rank < kQueueProducers; ++rank) actors_.at(rank).must("stop");
        const bool is_drained = await(kPatience, [this] {
            const QueueStats stats = queue_.stats();
            return stats.queued == 0 && stats.in_flight == 0;
        });
        check_nobody_gave_up();
        require(is_drained, "the consumers do not come to the end: " + describe(queue_.stats()));
        for (unsigned rank = 0; rank < kQueueConsumers; ++rank) {
            actors_.at(kQueueProducers + rank).must("stop");
        }
        const QueueStats stats = queue_.stats();
        require(stats.held_bytes == 0, "blocks are held after all: " + describe(stats));
        require(std::cmp_greater_equal(stats.deaths, kills), "deaths: " + describe(stats));
        for (Actor& actor : actors_) actor.must("close");
        require(queue_.stats().closed, "the last producer has closed, and the stream goes on");
        queue_.close();
        require(premises_.left().empty(), "a segment is left in /dev/shm");
        check_every_message(kills);
    }
    static std::string describe(const QueueStats& stats) {
        return std::to_string(stats.queued) + " queued, " + std::to_string(stats.in_flight) +
               " in flight, " + std::to_string(stats.held_bytes) + " bytes held, " +
               std::to_string(stats.deaths) + " deaths";
    }

    // Accepted: acknowledged once, for certain or by one that died in ack(). Not accepted, because
    // the producer died in put(): once or never.
    void check_every_message(int kills) {
        std::uint64_t accepted = 0;
        std::uint64_t redelivered = 0;
        std::uint64_t undecided = 0;
        for (std::uint64_t rank = 0; rank < kQueueProducers; ++rank) {
            const std::uint64_t end = score_[kNextOf + rank].load();
            for (std::uint64_t n = 0; n < end; ++n) {
                const std::uint64_t number = rank * kMaxOfRank + n;
                const MessageMarks marks(table_[number].load());
                const std::string name = "message " + std::to_string(number);
                require(marks.acked <= 1, name + " was acknowledged twice");
                require(marks.acked == 1 || marks.acking > 0 || !marks.is_accepted,
                        name + " was accepted and lost");
                accepted += marks.is_accepted ? 1 : 0;
                redelivered += marks.taken > 1 ? 1 : 0;
                undecided += marks.acked == 0 && marks.acking > 0 ? 1 : 0;
            }
        }
        require(std::cmp_less_equal(undecided, kills), "more died in ack() than died at all");
        std::printf(
            "  %d killed, %llu messages accepted, every one acknowledged once (%llu by one that "
            "died at it), %llu came more than once\n",
            kills, static_cast<unsigned long long>(accepted),
            static_cast<unsigned long long>(undecided),
            static_cast<unsigned long long>(redelivered));
    }

    Premises& premises_;
    Dice dice_;
    std::string name_;
    Queue queue_;
    Scoreboard score_;
    SharedTable table_{kQueueTableWords};
    std::array<Actor, kQueueProducers + kQueueConsumers> actors_;
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
    std::printf("queue stress: --seed %llu --kills %d\n", static_cast<unsigned long long>(seed),
                kills);
    std::fflush(stdout);
    Premises premises("queue-stress");
    try {
        QueueStress(premises, seed).run(kills);
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
    constexpr Role kRoles[] = {{kProducerRole, play_stress_producer},
                               {kConsumerRole, play_stress_consumer}};
    if (const auto code = play_role(argc, argv, kRoles)) return *code;
    return run(argc, argv);
}

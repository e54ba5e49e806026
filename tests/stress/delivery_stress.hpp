// Stress of concepts that deliver each message to one consumer: producers and consumers are killed
// and replaced, and a shared ledger shows whether every message came, once.
#pragma once

#include "penstock/queue.hpp"
#include "tests/stress/delivery_ledger.hpp"

namespace penstock::trust {

inline constexpr const char* kProducerRole = "stress-producer";
inline constexpr const char* kConsumerRole = "stress-consumer";

// Arguments of producers and consumers: NAME LEDGER RANK SEED.
struct DeliveryWorker {
    explicit DeliveryWorker(const Words& words)
        : name(words.at(0)), ledger(words.at(1)), rank(std::stoull(words.at(2))),
          dice(std::stoull(words.at(3))) {}

    std::string name;
    DeliveryLedger ledger;
    std::uint64_t rank;
    Dice dice;
};

struct DeliveryStress {
    std::string name;
    unsigned producers = 0;
    unsigned consumers = 0;
    std::uint64_t kills = 0;
    std::uint64_t between_kills = 0;  // messages, at most
    // Messages while one is stopped, at most; 0 where none may be stopped, because the others
    // depend on it.
    std::uint64_t while_stopped = 0;
    std::uint64_t acks_at_once = 1;
    std::function<QueueStats()> stats;
    std::function<void()> check_stopped;  // all messages have been taken, all workers are attached
    std::function<void()> check_closed;   // all workers have left; the test's handles close here
};

inline std::string describe(const QueueStats& stats) {
    return text_of(stats.queued, " queued, ", stats.in_flight, " in flight, ", stats.held_bytes,
                   " bytes held, ", stats.deaths, " deaths");
}

inline void stress_deliveries(StressRun& run, const DeliveryStress& stress) {
    Dice dice(run.seed);
    DeliveryLedger ledger;
    const auto start = [&](unsigned rank) {
        Actor actor(
            rank < stress.producers ? kProducerRole : kConsumerRole,
            {stress.name, ledger.argument(), std::to_string(rank), std::to_string(dice.next())});
        actor.must("go");
        return actor;
    };
    Workers workers(stress.producers + stress.consumers, dice, ledger.progress(), start);
    for (std::uint64_t kill = 0; kill < stress.kills; ++kill) {
        workers.wait_for_progress(dice.between(1, stress.between_kills));
        workers.maybe_stop_one(stress.while_stopped);
        const bool is_producer = dice.between(0, 1) == 0;
        workers.kill_one(is_producer ? 0 : stress.producers,
                         is_producer ? stress.producers : stress.consumers,
                         stress.while_stopped / 6);
    }
    workers.wait_for_progress(1000);
    workers.must(0, stress.producers, "stop");
    ledger.end();
    const bool is_drained = await(kPatience, [&] {
        const QueueStats stats = stress.stats();
        return stats.queued == 0 && stats.in_flight == 0;
    });
    workers.check_alive();
    const QueueStats stats = stress.stats();
    require(is_drained, "the consumers do not come to the end: " + describe(stats));
    workers.must(stress.producers, stress.consumers, "stop");
    require(stress.stats().held_bytes == 0, "blocks are held after all: " + describe(stats));
    require(stats.deaths >= workers.kills(), "deaths: " + describe(stats));
    stress.check_stopped();
    workers.all_must("close");
    stress.check_closed();
    require(run.premises.left().empty(), "a segment is left in /dev/shm");
    ledger.check(workers.kills(), stress.acks_at_once);
}

}  // namespace penstock::trust

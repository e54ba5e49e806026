// Ten times a Store's capacity put through it, by workers that are killed and stopped at random
// under load and replaced. Every hit is checked byte by byte, and the statistics add up to the
// byte; the printed seed repeats a run. The full tier puts 10 GB through 1 GiB.
// usage: store_stress_test [--full] [--seed N]
#include <array>

#include "tests/stress/store_stress_roles.hpp"

namespace penstock::trust {
namespace {

constexpr const char* kWorkerRole = "store-worker";

std::string describe(const StoreStats& stats) {
    return text_of(stats.used_bytes, " used, ", stats.objects, " objects of ", stats.object_bytes,
                   ", ", stats.staged, " staged, ", stats.doomed, " doomed, ", stats.in_use,
                   " in use, ", stats.retained, " retained, other ", stats.other_bytes,
                   ", committed ", stats.committed, ", evicted ", stats.evicted, ", deleted ",
                   stats.deleted, ", deaths ", stats.deaths);
}

// The sum over all objects that can be found agrees with the statistics.
void check_objects(Store& store, const StoreStats& stats) {
    std::uint64_t bytes = 0;
    std::uint64_t objects = 0;
    for (const std::string& key : store.keys()) {
        const Result<StoreObject> object = store.get(key);
        require(object.is_ok(), key + " is listed, and not there");
        bytes += key.size() + object->meta().size() + object->bytes().size();
        ++objects;
    }
    require(objects == stats.objects && bytes == stats.object_bytes,
            text_of(objects, " objects of ", bytes, " bytes: ", describe(stats)));
    require(stats.object_bytes + stats.padding_bytes == stats.used_bytes,
            "used is not what the objects take: " + describe(stats));
}

// Checks the statistics when the workers have closed; after clear() all memory must be free.
void check_accounts(Store& store, SharedWords& score, std::uint64_t kills) {
    store.reap_dead();
    const StoreStats stats = store.stats();
    const std::string described = describe(stats);
    require(stats.deaths >= kills, "deaths: " + described);
    require(stats.staged + stats.doomed + stats.in_use + stats.other_bytes == 0,
            "something of the dead is left: " + described);
    require(stats.retained == 0, "retained by none: " + described);
    require(stats.used_bytes + stats.free_bytes == stats.capacity, "the sum: " + described);
    check_objects(store, stats);
    // A death between an act and its count leaves the count one short.
    const auto counted =
        static_cast<std::int64_t>(stats.committed - stats.evicted - stats.deleted - stats.objects);
    require(static_cast<std::uint64_t>(std::abs(counted)) <= kills,
            text_of("committed, evicted, deleted and there differ by ", counted, ": ", described));
    require(stats.evicted > 0 && score[kHits] > 0, "a run without pressure: " + described);
    store.clear();
    const StoreStats after = store.stats();
    require(after.used_bytes == 0 && after.largest_free == after.capacity,
            "all is removed, and not all is free: " + describe(after));
    store.trim();
    require(store.stats().reserved_bytes < after.reserved_bytes / 2, "trimmed: nothing");
    report("  ", stats.evicted, " evicted, every hit right, every byte accounted for");
}

void stress_store(StressRun& run) {
    const bool is_long = run.is_full && !kIsSanitized;
    const std::uint64_t capacity = std::uint64_t{1} << (is_long ? 30U : 26U);
    const std::uint64_t bytes = (is_long ? 10'000'000'000 : 700'000'000) / (kIsSanitized ? 10 : 1);
    const std::string name = run.premises.name();
    Store store = Store::create(name, {.capacity = capacity, .objects = 16384, .participants = 16});
    Dice dice(run.seed);
    SharedWords score(kStoreScores);
    const auto start = [&](unsigned rank) {
        Actor actor(kWorkerRole,
                    {name, score.argument(), std::to_string(rank), std::to_string(dice.next())});
        actor.must("go");
        return actor;
    };
    Workers workers(kStoreWorkers, dice, score[kTurns], start);
    while (score[kBytesPut] < bytes) {
        workers.wait_for_progress(dice.between(1, 400));
        workers.maybe_stop_one(400);
        workers.kill_one(0, kStoreWorkers, 100);
    }
    workers.wait_for_progress(1000);
    workers.all_must("stop");
    workers.all_must("close");
    check_accounts(store, score, workers.kills());
    store.close();
    require(run.premises.left().empty(), "a segment is left in /dev/shm");
    report("  ", score[kBytesPut] / 1'000'000, " MB put and ", score[kBytesRead] / 1'000'000,
           " MB read in ", score[kTurns], " turns, ", score[kHits], " hits; ", workers.kills(),
           " killed, ", workers.stops(), " stopped");
}

// ---- as many places as writers, and one more

constexpr const char* kCrowderRole = "store-crowder";
constexpr unsigned kCrowders = 4;
constexpr std::uint64_t kPlaceBytes = std::uint64_t{64} << 10U;

// store-crowder NAME NUMBER PUTS: holds one place at a time, so at least one can be evicted.
int play_crowder(const Words& words) {
    Store store = Store::attach(words.at(0), Milliseconds(10'000));
    const std::uint64_t count = std::stoull(words.at(2));
    for (std::uint64_t i = 0; i < count; ++i) {
        auto reservation = store.reserve(text_of(words.at(1), "-", i), kPlaceBytes - 64);
        if (!reservation) {
            break_promise(text_of("put ", i, ": ", reservation.status().message()));
        }
        if (!reservation->commit()) break_promise("commit");
    }
    return 0;
}

void crowd_store(StressRun& run) {
    const std::uint64_t puts = (run.is_full ? 500'000U : 50'000U) / (kIsSanitized ? 10U : 1U);
    for (const Eviction eviction : {Eviction::Sieve, Eviction::Fifo, Eviction::Lru}) {
        const std::string name = run.premises.name();
        Store store = Store::create(name, {.capacity = (kCrowders + 1) * kPlaceBytes,
                                           .objects = 64,
                                           .participants = kCrowders + 1,
                                           .eviction = eviction});
        std::array<Process, kCrowders> crowders;
        for (std::size_t at = 0; at < crowders.size(); ++at) {
            crowders[at] =
                Process::start(kCrowderRole, {name, std::to_string(at), std::to_string(puts)});
        }
        for (Process& crowder : crowders) {
            const auto ending = crowder.wait(std::chrono::minutes(5));
            require(ending && ending->is_success(),
                    text_of(to_string(eviction), ": no room, where one can be evicted"));
        }
    }
    report("  ", kCrowders, " writers on ", kCrowders + 1, " places: ", 3 * kCrowders * puts,
           " puts, and room for each");
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    constexpr Role kRoles[] = {{kWorkerRole, play_worker<StoreWorker>},
                               {kCrowderRole, play_crowder}};
    return run_stress(argc, argv, "store-stress", kRoles, [](StressRun& run) {
        stress_store(run);
        crowd_store(run);
    });
}

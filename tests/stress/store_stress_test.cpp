// Ten times its capacity through one Store, by workers that are killed and stopped at random under
// load and replaced. Every hit is checked byte by byte, and the accounts close to the byte; the
// seed that is printed brings it back. The full tier is 10 GB through 1 GiB.
// usage: store_stress_test [--full] [--seed N]
#include <array>
#include <cstdio>
#include <random>
#include <string>

#include "tests/stress/store_stress_roles.hpp"
#include "tests/support/premises.hpp"
#include "tests/support/tier.hpp"

namespace penstock::trust {
namespace {

constexpr const char* kWorkerRole = "store-worker";

class StoreStress {
public:
    StoreStress(Premises& premises, std::uint64_t seed, std::uint64_t capacity)
        : premises_(premises), dice_(seed), name_(premises.name()),
          store_(
              Store::create(name_, {.capacity = capacity, .objects = 16384, .participants = 16})) {}

    void run(std::uint64_t bytes) {
        for (unsigned rank = 0; rank < kStoreWorkers; ++rank) start(rank);
        while (score_[kBytesPut] < bytes) {
            wait_for_progress(dice_.between(1, 400));
            if (dice_.between(0, 2) == 0) stop_somebody();
            kill_somebody();
        }
        wait_for_progress(1000);
        finish();
    }

private:
    void start(unsigned rank) {
        Actor& actor = workers_.at(rank);
        actor = Actor(kWorkerRole, {name_, score_.argument(), std::to_string(rank),
                                    std::to_string(dice_.next())});
        actor.must("go");
    }
    void wait_for_progress(std::uint64_t turns) {
        const std::uint64_t start = score_[kTurns];
        const bool is_going_on = await(kPatience, [&] { return score_[kTurns] >= start + turns; });
        for (Actor& actor : workers_) {
            if (!actor.process().is_over()) continue;
            const auto ending = actor.process().wait(kPatience);
            throw Broken("a process ended on its own: " + (ending ? ending->describe() : "?"));
        }
        require(is_going_on, "none gets on any more: " + describe(store_.stats()));
    }
    // That is no death, and the others go on.
    void stop_somebody() {
        Process& process = workers_[dice_.between(0, workers_.size() - 1)].process();
        process.stop();
        wait_for_progress(dice_.between(1, 400));
        process.resume();
        ++stops_;
    }
    void kill_somebody() {
        const auto rank = static_cast<unsigned>(dice_.between(0, workers_.size() - 1));
        Process& process = workers_.at(rank).process();
        if (dice_.between(0, 3) == 0) {
            process.stop();
            wait_for_progress(dice_.between(1, 100));
        }
        process.kill();
        const auto ending = process.wait(kPatience);
        require(ending && ending->was_killed, "a process had ended on its own");
        start(rank);
        ++kills_;
    }

    void finish() {
        for (Actor& actor : workers_) actor.must("stop");
        for (Actor& actor : workers_) actor.must("close");
        store_.reap_dead();
        const StoreStats stats = store_.stats();
        const std::string described = describe(stats);
        require(stats.deaths >= kills_, "deaths: " + described);
        require(stats.staged + stats.doomed + stats.in_use + stats.other_bytes == 0,
                "something of the dead is left: " + described);
        require(stats.retained == 0, "kept by none: " + described);
        require(stats.used_bytes + stats.free_bytes == stats.capacity, "the sum: " + described);
        check_objects(stats);
        // A death between an act and its count leaves the count one short.
        const auto counted = static_cast<std::int64_t>(stats.committed - stats.evicted -
                                                       stats.deleted - stats.objects);
        require(static_cast<std::uint64_t>(std::abs(counted)) <= kills_,
                "committed, evicted, deleted and there differ by " + std::to_string(counted) +
                    ": " + described);
        require(stats.evicted > 0 && score_[kHits] > 0, "a run without pressure: " + described);
        store_.clear();
        const StoreStats after = store_.stats();
        require(after.used_bytes == 0 && after.largest_free == after.capacity,
                "all is removed, and not all is free: " + describe(after));
        store_.trim();
        require(store_.stats().reserved_bytes < after.reserved_bytes / 2, "trimmed: nothing");
        store_.close();
        require(premises_.left().empty(), "a segment is left in /dev/shm");
        std::printf(
            "  %llu MB put and %llu MB read in %llu turns, %llu hits; %llu evicted, %llu killed, "
            "%llu stopped; every hit right, every byte accounted for\n",
            static_cast<unsigned long long>(score_[kBytesPut] / 1'000'000),
            static_cast<unsigned long long>(score_[kBytesRead] / 1'000'000),
            static_cast<unsigned long long>(score_[kTurns].load()),
            static_cast<unsigned long long>(score_[kHits].load()),
            static_cast<unsigned long long>(stats.evicted), static_cast<unsigned long long>(kills_),
            static_cast<unsigned long long>(stops_));
    }
    // The sum over all that can be found is what the accounts say.
    void check_objects(const StoreStats& stats) {
        std::uint64_t bytes = 0;
        std::uint64_t objects = 0;
        for (const std::string& key : store_.keys()) {
            const Result<StoreObject> object = store_.get(key);
            require(object.is_ok(), key + " is listed, and not there");
            bytes += key.size() + object->meta().size() + object->bytes().size();
            ++objects;
        }
        require(objects == stats.objects && bytes == stats.object_bytes,
                std::to_string(objects) + " objects of " + std::to_string(bytes) +
                    " bytes: " + describe(stats));
        require(stats.object_bytes + stats.padding_bytes == stats.used_bytes,
                "used is not what the objects take: " + describe(stats));
    }
    static std::string describe(const StoreStats& stats) {
        return std::to_string(stats.used_bytes) + " used, " + std::to_string(stats.objects) +
               " objects of " + std::to_string(stats.object_bytes) + ", " +
               std::to_string(stats.staged) + " staged, " + std::to_string(stats.doomed) +
               " doomed, " + std::to_string(stats.in_use) + " pinned, " +
               std::to_string(stats.retained) + " kept, other " +
               std::to_string(stats.other_bytes) + ", committed " +
               std::to_string(stats.committed) + ", evicted " + std::to_string(stats.evicted) +
               ", deleted " + std::to_string(stats.deleted) + ", deaths " +
               std::to_string(stats.deaths);
    }

    Premises& premises_;
    Dice dice_;
    std::string name_;
    Store store_;
    Scoreboard score_;
    std::array<Actor, kStoreWorkers> workers_;
    std::uint64_t kills_ = 0;
    std::uint64_t stops_ = 0;
};

// ---- as many places as writers, and one more
// ------------------------------------------------------------------------

constexpr const char* kCrowderRole = "store-crowder";
constexpr unsigned kCrowders = 4;
constexpr std::uint64_t kPlaceBytes = std::uint64_t{64} << 10U;

// store-crowder NAME NUMBER PUTS: each takes one place; so one at least can always be evicted.
int play_crowder(const Words& words) {
    Store store = Store::attach(words.at(0), Milliseconds(10'000));
    const std::uint64_t count = std::stoull(words.at(2));
    for (std::uint64_t i = 0; i < count; ++i) {
        auto reservation = store.reserve(words.at(1) + "-" + std::to_string(i), kPlaceBytes - 64);
        if (!reservation) {
            broken_store_promise("put " + std::to_string(i) + ": " +
                                 std::string(reservation.status().message()));
        }
        if (!reservation->commit()) broken_store_promise("commit");
    }
    return 0;
}

void crowd(Premises& premises, std::uint64_t puts) {
    for (const Eviction eviction : {Eviction::Sieve, Eviction::Fifo, Eviction::Lru}) {
        const std::string name = premises.name();
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
                    std::string(to_string(eviction)) + ": no room, where one can be evicted");
        }
    }
    std::printf("  %u writers on %u places: %llu puts, and room for each\n", kCrowders,
                kCrowders + 1, static_cast<unsigned long long>(3 * kCrowders) * puts);
}

int run(int argc, char** argv) {
    ::signal(SIGPIPE, SIG_IGN);
    std::uint64_t seed = std::random_device{}();
    const bool is_full = is_full_tier(argc, argv) && !kIsSanitized;
    const std::uint64_t capacity = std::uint64_t{1} << (is_full ? 30U : 26U);
    std::uint64_t bytes = is_full ? 10'000'000'000 : 700'000'000;
    if (kIsSanitized) bytes /= 10;
    for (int i = 1; i + 1 < argc; ++i) {
        if (std::string(argv[i]) == "--seed") seed = std::stoull(argv[i + 1]);
    }
    std::printf("store stress: --seed %llu, %llu MB through %llu MiB\n",
                static_cast<unsigned long long>(seed),
                static_cast<unsigned long long>(bytes / 1'000'000),
                static_cast<unsigned long long>(capacity >> 20U));
    std::fflush(stdout);
    Premises premises("store-stress");
    try {
        StoreStress(premises, seed, capacity).run(bytes);
        crowd(premises, (is_full ? 500'000 : 50'000) / (kIsSanitized ? 10 : 1));
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
    constexpr Role kRoles[] = {{kWorkerRole, play_store_worker}, {kCrowderRole, play_crowder}};
    if (const auto code = play_role(argc, argv, kRoles)) return *code;
    return run(argc, argv);
}

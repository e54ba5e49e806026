// The Store: the cost of a look-up, a put and a reserved block beside a plain copy of the same
// bytes, the scaling over several processes, and the hit rate of each eviction policy.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "bench/cpp/common/arguments.hpp"
#include "bench/cpp/common/clock.hpp"
#include "bench/cpp/common/guardian.hpp"
#include "bench/cpp/common/payload.hpp"
#include "bench/cpp/common/process.hpp"
#include "bench/cpp/common/report.hpp"
#include "bench/cpp/common/shared.hpp"
#include "penstock/store.hpp"

namespace penstock::bench {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;

std::string numbered(std::uint64_t number) {
    return "key-" + std::to_string(number);
}

Store make_store(std::uint64_t capacity, Eviction eviction = Eviction::Sieve) {
    StoreOptions options;
    options.capacity = capacity;
    options.eviction = eviction;
    options.objects = capacity / 4096;
    return Store::create(new_name(), options);
}

// Looks an object up and releases it, several times per sample, since one is shorter than reading
// the clock.
void measure_gets(std::size_t size, unsigned turns) {
    constexpr unsigned kBatch = 100;
    Store store = make_store(128 * kMiB);
    Payload payload(size);
    require(store.put("object", payload.numbered(0)));
    Samples samples;
    for (unsigned turn = 0; turn < turns; ++turn) {
        for (unsigned sample = 0; sample < 200; ++sample) {
            const Ticks begin = ticks();
            for (unsigned i = 0; i < kBatch; ++i) {
                Result<StoreObject> object = store.get("object");
                require(object.is_ok(), "a miss");
            }
            samples.add(ticks() - begin);
        }
        samples.end_turn();
    }
    payload.check(require(store.get("object")).bytes(), 0);
    Record("store_get")
        .text("who", "penstock")
        .count("size", size)
        .latency(samples, kBatch)
        .print();
}

// put() and a plain copy into memory of the same store take turns; both find it warm.
class Puts {
public:
    explicit Puts(std::size_t size)
        : payload_(size), store_(make_store(std::max<std::uint64_t>(4 * size, 16 * kMiB))) {}

    void run(unsigned rounds) {
        constexpr unsigned kWarmUp = 4;
        for (unsigned round = 0; round < rounds + kWarmUp; ++round) {
            keep(round >= kWarmUp, put_, put(round));
            keep(round >= kWarmUp, plain_, copy_plainly(round));
        }
        print("penstock put", put_);
        print("plain copy, same memory", plain_);
    }

private:
    static void keep(bool counts, Samples& samples, Ticks span) {
        if (counts) {
            samples.add(span);
            samples.end_turn();
        }
    }
    Ticks put(unsigned round) {
        const auto bytes = payload_.numbered(round);
        const Ticks begin = ticks();
        require(store_.put("object", bytes));
        const Ticks span = ticks() - begin;
        check_and_remove(round);
        return span;
    }
    // Called after either, so that the next one finds the memory warm.
    void check_and_remove(unsigned round) {
        payload_.check(require(store_.get("object")).bytes(), round);
        require(store_.remove("object"));
    }
    Ticks copy_plainly(unsigned round) {
        const auto bytes = payload_.numbered(round);
        StoreReservation room = require(store_.reserve("object", bytes.size()));
        const Ticks begin = ticks();
        std::memcpy(room.bytes().data(), bytes.data(), bytes.size());
        const Ticks span = ticks() - begin;
        require(room.commit());
        check_and_remove(round);
        return span;
    }
    void print(const char* who, const Samples& samples) const {
        Record("store_put")
            .text("who", who)
            .count("size", payload_.size())
            .latency(samples)
            .print();
    }

    Payload payload_;
    Store store_;
    Samples put_, plain_;
};

// Reserve and commit of a block of 2 MiB, without the copy; in a store with room, and in a full
// one, where each reservation evicts.
void measure_pairs(unsigned turns) {
    constexpr std::uint64_t kBlock = 2 * kMiB;
    constexpr unsigned kPairs = 100;
    for (const bool evicts : {false, true}) {
        Store store = make_store(256 * kMiB);
        const std::uint64_t fits = 256 * kMiB / kBlock - 2;
        std::uint64_t number = 0;
        while (number < fits) {
            StoreReservation room = require(store.reserve(numbered(number++), kBlock));
            std::memset(room.bytes().data(), 1, kBlock);
            require(room.commit());
        }
        if (!evicts) {
            store.clear();
        }
        Samples samples;
        for (unsigned turn = 0; turn < turns; ++turn) {
            for (unsigned pair = 0; pair < kPairs; ++pair) {
                const std::string key = numbered(number++);
                const Ticks begin = ticks();
                require(require(store.reserve(key, kBlock)).commit());
                samples.add(ticks() - begin);
                if (!evicts) {
                    require(store.remove(key));
                }
            }
            samples.end_turn();
        }
        Record("store_pair")
            .text("who", evicts ? "reserve and commit, evicting" : "reserve and commit")
            .count("size", kBlock)
            .latency(samples)
            .print();
    }
}

// Several processes look up and, at times, put, all at once.
void measure_scaling(unsigned processes, bool quick) {
    struct Counters {
        std::atomic<std::uint64_t> done{0};
        std::atomic<unsigned> ready{0};
        std::atomic<bool> begins{false};
        std::atomic<bool> is_over{false};
    };
    constexpr std::uint64_t kObjects = 2000;
    const Shared<Counters> counters;
    Store store = make_store(64 * kMiB);
    const std::vector<std::byte> value(8192);
    for (std::uint64_t number = 0; number < kObjects; ++number) {
        require(store.put(numbered(number), value));
    }
    std::vector<Child> children;
    for (unsigned rank = 0; rank < processes; ++rank) {
        children.emplace_back([&, rank] {
            pin_to(cores()[rank % cores().size()]);
            Store own = Store::attach(store.name());
            std::mt19937 random(rank);
            ++counters->ready;
            while (!counters->begins) {
            }
            for (std::uint64_t turn = 0; !counters->is_over; ++turn) {
                const std::string key = numbered(random() % (kObjects * 2));
                if (!own.get(key)) {
                    static_cast<void>(own.put(key, value));
                }
                if (turn % 64 == 0) {
                    counters->done += 64;
                }
            }
        });
    }
    while (counters->ready < processes) {
        std::this_thread::yield();
    }
    const auto span = std::chrono::milliseconds(quick ? 300 : 2000);
    counters->begins = true;
    const std::uint64_t before = counters->done;
    std::this_thread::sleep_for(span);
    const std::uint64_t done = counters->done - before;
    counters->is_over = true;
    for (Child& child : children) {
        child.join();
    }
    Record("store_scale")
        .count("processes", processes)
        .number("operations_per_s",
                static_cast<double>(done) / std::chrono::duration<double>(span).count())
        .print();
}

// Keys with a popular few and a long tail (Zipf, exponent 0.9), with or without a scan of keys that
// are never used again after every thousand.
class Trace {
public:
    Trace(std::uint64_t objects, bool scans) : scans_(scans) {
        double sum = 0;
        for (std::uint64_t rank = 1; rank <= objects; ++rank) {
            sum += 1 / std::pow(static_cast<double>(rank), 0.9);
            cumulated_.push_back(sum);
        }
    }
    std::uint64_t next() {
        ++count_;
        if (scans_ && count_ % 1000 >= 500) {
            return 1'000'000'000 + count_;
        }
        std::uniform_real_distribution<double> share(0, cumulated_.back());
        const auto found = std::lower_bound(cumulated_.begin(), cumulated_.end(), share(random_));
        return static_cast<std::uint64_t>(found - cumulated_.begin());
    }

private:
    std::vector<double> cumulated_;
    std::mt19937_64 random_{7};
    bool scans_;
    std::uint64_t count_ = 0;
};

void measure_hits(Eviction eviction, bool scans, bool quick) {
    constexpr std::uint64_t kObjects = 20'000;
    Store store = make_store(16 * kMiB, eviction);  // room for a tenth of them
    Trace trace(kObjects, scans);
    const std::vector<std::byte> value(8000);
    std::uint64_t hits = 0;
    std::uint64_t looks = 0;
    for (int turn = quick ? 100'000 : 400'000; turn > 0; --turn) {
        const std::uint64_t number = trace.next();
        const bool is_scan = number >= kObjects;
        looks += is_scan ? 0 : 1;
        if (store.get(numbered(number))) {
            ++hits;
        } else {
            require(store.put(numbered(number), value));
        }
    }
    Record("store_hits")
        .text("policy", to_string(eviction))
        .text("trace", scans ? "Zipf with scans" : "Zipf")
        .number("hit_rate", static_cast<double>(hits) / static_cast<double>(looks))
        .print();
}

// The parts, by their names for `--who`; `--readers N` is the number of processes of `scale`.
void run_all(const Arguments& arguments) {
    const bool quick = arguments.quick;
    for (const std::uint64_t size : {kMiB / 256, kMiB, 64 * kMiB}) {
        if (arguments.wants("gets") && arguments.wants_size(size)) {
            measure_gets(size, quick ? 5 : 50);
        }
    }
    for (const std::uint64_t size : {kMiB, 16 * kMiB, 64 * kMiB}) {
        if (arguments.wants("puts") && arguments.wants_size(size)) {
            Puts(size).run((quick ? 10 : 40) * (size < 4 * kMiB ? 4 : 1));
        }
    }
    if (arguments.wants("pairs")) measure_pairs(quick ? 10 : 100);
    for (const unsigned processes : {1U, 2U, 4U, 8U}) {
        if (arguments.wants("scale") && arguments.wants_readers(processes)) {
            measure_scaling(processes, quick);
        }
    }
    if (!arguments.wants("hits")) return;
    for (const bool scans : {false, true}) {
        for (const Eviction eviction : {Eviction::Sieve, Eviction::Lru, Eviction::Fifo}) {
            measure_hits(eviction, scans, quick);
        }
    }
}

}  // namespace
}  // namespace penstock::bench

int main(int argc, char** argv) {
    using namespace penstock::bench;
    const auto arguments = parse_arguments(argc, argv);
    return run_guarded(300, [&] {
        fail_when_a_child_fails();
        run_all(arguments);
    });
}

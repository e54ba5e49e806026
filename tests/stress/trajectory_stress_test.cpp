// Four environments and a trainer, killed at random under load and replaced. Every group is
// numbered and every token names its group; a ledger in memory that all share says what became of
// each. usage: trajectory_stress_test [--full] [--seed N]
#include <array>
#include <atomic>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/support/premises.hpp"
#include "tests/support/tier.hpp"
#include "tests/unit/support/child.hpp"

#include "penstock/trajectories.hpp"

namespace penstock::trust {
namespace {

using test::Child;
using test::require;
using namespace std::chrono_literals;

constexpr unsigned kProducers = 4;
constexpr std::int32_t kMaxGroups = 100'000;
constexpr std::uint64_t kBatch = 60;  // any one environment alone can fill it
constexpr std::chrono::seconds kLong{30};

// What became of one group. Written by its producer (put) and by the one trainer (the others).
struct Fate {
    std::atomic<std::uint8_t> put;    // 1: about to be, 2: put() has returned
    std::atomic<std::uint8_t> reads;  // in batches; stays at 255
    std::atomic<std::uint8_t> done;   // 1: ack() is called, 2: it has returned
};

struct Ledger {
    std::array<std::array<Fate, kMaxGroups>, kProducers> fates;
    std::array<std::atomic<std::int32_t>, kProducers> next;
    std::atomic<std::uint64_t> acknowledged;
    std::atomic<std::uint64_t> redelivered;
    std::atomic<bool> is_over;  // every producer has ended
};

std::int32_t token_of(std::int32_t number, std::size_t sequence, std::int64_t at) {
    return number * 31 + static_cast<std::int32_t>(sequence) * 7 + static_cast<std::int32_t>(at);
}

std::vector<std::int64_t> lengths_of(unsigned rank, std::int32_t number) {
    std::vector<std::int64_t> lengths(2 + rank);  // 2, 3, 4 and 5 sequences
    for (std::size_t s = 0; s < lengths.size(); ++s) {
        lengths[s] = 1 + (number + static_cast<std::int64_t>(s) * 13) % 60;
    }
    return lengths;
}

void put_group(TrajectoryWriter& writer, Rollout& rollout, unsigned rank, std::int32_t number) {
    const std::vector<std::int64_t> lengths = lengths_of(rank, number);
    std::vector<std::int32_t> tokens;
    for (std::size_t s = 0; s < lengths.size(); ++s) {
        for (std::int64_t at = 0; at < lengths[s]; ++at) tokens.push_back(token_of(number, s, at));
    }
    const std::string id = std::to_string(rank) + ":" + std::to_string(number);
    GroupSource source;
    source.environment = writer.environment();
    source.instance_id = id;
    source.begun = rollout.version();
    source.lengths = lengths;
    source.columns[0] = {codec::DType::Int32, tokens.data()};
    codec::MessageWriter message;
    write_group(source, message);
    require(writer.put(message, &rollout, kLong).is_ok());
}

void produce(Ledger& ledger, const std::string& name, unsigned rank, std::int32_t groups) {
    EnvironmentOptions environment;
    environment.name = "env" + std::to_string(rank);
    environment.group_size = 2 + rank;
    auto writer = TrajectoryWriter::attach(name, environment, kLong);
    while (true) {
        // A number that a killed one had begun stays its own: it was put, or it was not.
        const std::int32_t number = ledger.next[rank].fetch_add(1);
        if (number >= groups) return;
        Rollout rollout = writer.begin(kLong).or_throw();
        Fate& fate = ledger.fates[rank][static_cast<std::size_t>(number)];
        fate.put.store(1);
        put_group(writer, rollout, rank, number);
        fate.put.store(2);
    }
}

struct Label {
    unsigned rank;
    std::int32_t number;
};

Label label_of(const GroupView& group) {
    const std::size_t colon = group.instance_id.find(':');
    require(colon == 1);
    return {static_cast<unsigned>(group.instance_id[0] - '0'),
            std::stoi(group.instance_id.substr(2))};
}

// Nothing torn, nothing mixed: in the group itself, and in the arrays.
void check_contents(const TrajectoryBatch& batch) {
    std::vector<std::int32_t> tokens(batch.total());
    require(batch
                .fill_packed(Column::Tokens,
                             {codec::DType::Int32, reinterpret_cast<std::byte*>(tokens.data()), 0,
                              0, tokens.size()})
                .is_ok());
    std::size_t at = 0;
    for (std::size_t g = 0; g < batch.groups(); ++g) {
        const Label label = label_of(batch.group(g));
        const std::vector<std::int64_t> lengths = lengths_of(label.rank, label.number);
        require(batch.group(g).sequences() == lengths.size());
        for (std::size_t s = 0; s < lengths.size(); ++s) {
            for (std::int64_t t = 0; t < lengths[s]; ++t) {
                require(tokens[at++] == token_of(label.number, s, t));
            }
        }
    }
    require(at == tokens.size());
}

void train_on(Ledger& ledger, TrajectoryBatch& batch, std::uint64_t step) {
    check_contents(batch);
    std::vector<Fate*> fates;
    for (std::size_t g = 0; g < batch.groups(); ++g) {
        const Label label = label_of(batch.group(g));
        Fate& fate = ledger.fates[label.rank][static_cast<std::size_t>(label.number)];
        require(fate.put.load() != 0);
        require(fate.done.load() != 2);  // acknowledged: never again
        const bool is_marked = batch.deliveries(g) > 1;
        require(fate.reads.load() == 0 || is_marked);
        if (fate.reads.load() < 255) fate.reads.fetch_add(1);
        if (is_marked) ledger.redelivered.fetch_add(1);
        fates.push_back(&fate);
    }
    for (Fate* fate : fates) fate->done.store(1);
    batch.ack(step);
    for (Fate* fate : fates) fate->done.store(2);
    ledger.acknowledged.fetch_add(fates.size());
}

void train(Ledger& ledger, const std::string& name) {
    auto reader = TrajectoryReader::attach(name, kBatch, kLong);
    while (true) {
        auto batch = reader.next_batch({}, 50ms);
        const bool is_over = batch.code() == ErrorCode::Closed || ledger.is_over.load();
        if (!batch && is_over) {
            // What is left makes no batch of that size: all of it together does.
            std::uint64_t left = 0;
            for (const auto& one : reader.stats().environments) left += one.waiting_sequences;
            if (left == 0) return;
            batch = reader.next_batch({.sequences = left}, 50ms);
            // A trainer killed just now still has some of it, until the kernel lets go.
            if (batch.code() == ErrorCode::Closed) continue;
        }
        if (!batch && batch.code() == ErrorCode::Timeout) continue;
        TrajectoryBatch taken = std::move(batch).or_throw();
        train_on(ledger, taken, reader.version() + 1);
    }
}

class Stress {
public:
    Stress(Premises& premises, std::int32_t groups, std::uint64_t seed)
        : name_(premises.name()), groups_(groups), random_(seed),
          overseer_(TrajectoryReader::create(name_,
                                             {.capacity = std::uint64_t{16} << 20U,
                                              .slots = 256,
                                              .participants = 16,
                                              .max_staleness = 3},
                                             kBatch)),
          keeper_(TrajectoryWriter::attach(name_, {.name = "keeper", .weight = 1e-6})) {
        auto* const memory = ::mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        require(memory != MAP_FAILED);
        ledger_ = static_cast<Ledger*>(memory);
    }
    Stress(const Stress&) = delete;
    Stress& operator=(const Stress&) = delete;
    ~Stress() { ::munmap(ledger_, sizeof(Ledger)); }

    void run() {
        for (unsigned rank = 0; rank < kProducers; ++rank) start_producer(rank);
        start_trainer();
        std::uint64_t next_kill = pause();
        while (!is_produced()) {
            if (ledger_->acknowledged.load() < next_kill) {
                std::this_thread::yield();
                continue;
            }
            kill_somebody();
            next_kill = ledger_->acknowledged.load() + pause();
        }
        keeper_.close();
        ledger_->is_over.store(true);
        require(trainer_->wait() == 0);
        judge();
    }

private:
    std::uint64_t pause() {
        return std::uniform_int_distribution<std::uint64_t>(
            1, static_cast<std::uint64_t>(groups_) / 20)(random_);
    }

    void start_producer(unsigned rank) {
        producers_[rank] =
            std::make_unique<Child>([this, rank] { produce(*ledger_, name_, rank, groups_); });
    }
    void start_trainer() {
        trainer_ = std::make_unique<Child>([this] { train(*ledger_, name_); });
    }

    bool is_produced() {
        bool is_over = true;
        for (auto& producer : producers_) {
            if (producer == nullptr) continue;
            siginfo_t info{};
            ::waitid(P_PID, static_cast<id_t>(producer->pid()), &info, WEXITED | WNOHANG | WNOWAIT);
            if (info.si_pid == 0) {
                is_over = false;
            } else {
                require(producer->wait() == 0);
                producer.reset();
            }
        }
        return is_over;
    }

    void kill_somebody() {
        const unsigned who = std::uniform_int_distribution<unsigned>(0, kProducers + 1)(random_);
        if (who >= kProducers) {
            trainer_->send(SIGKILL);
            start_trainer();
            ++trainer_kills_;
        } else if (producers_[who] != nullptr) {
            producers_[who]->send(SIGKILL);
            if (producers_[who]->wait() == 0) {
                producers_[who].reset();  // it had just finished
            } else {
                start_producer(who);
                ++producer_kills_;
            }
        }
    }

    void judge() {
        std::uint64_t put = 0;
        std::uint64_t unsure = 0;
        for (unsigned rank = 0; rank < kProducers; ++rank) {
            for (std::int32_t number = 0; number < groups_; ++number) {
                const Fate& fate = ledger_->fates[rank][static_cast<std::size_t>(number)];
                if (fate.put.load() == 2) {
                    ++put;
                    require(fate.reads.load() > 0);
                    require(fate.done.load() > 0);
                } else {
                    ++unsure;
                }
            }
        }
        require(unsure <= producer_kills_);
        const TrajectoryStats stats = overseer_.stats();
        require(stats.queue.queued == 0 && stats.queue.in_flight == 0);
        require(stats.queue.held_bytes == 0);
        for (const auto& one : stats.environments) require(one.running_groups == 0);
        std::printf(
            "%llu groups put and all delivered, %llu in doubt at a kill; %u producers and "
            "%u trainers killed; %llu deliveries marked as repeated; no block held\n",
            static_cast<unsigned long long>(put), static_cast<unsigned long long>(unsure),
            producer_kills_, trainer_kills_,
            static_cast<unsigned long long>(ledger_->redelivered.load()));
    }

    std::string name_;
    std::int32_t groups_;
    std::mt19937_64 random_;
    TrajectoryReader overseer_;
    TrajectoryWriter keeper_;  // so that the stream does not end between a kill and a new life
    Ledger* ledger_ = nullptr;
    std::array<std::unique_ptr<Child>, kProducers> producers_;
    std::unique_ptr<Child> trainer_;
    unsigned producer_kills_ = 0;
    unsigned trainer_kills_ = 0;
};

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    std::uint64_t seed = std::random_device{}();
    for (int i = 1; i + 1 < argc; ++i) {
        if (std::string(argv[i]) == "--seed") seed = std::stoull(argv[i + 1]);
    }
    const std::int32_t groups = is_full_tier(argc, argv) && !kIsSanitized ? kMaxGroups : 5'000;
    std::printf("seed %llu, 4 x %d groups\n", static_cast<unsigned long long>(seed), groups);
    std::fflush(stdout);
    Premises premises("trajectories");
    Stress(premises, groups, seed).run();
    return 0;
}

// Four environments and a trainer, killed at random under load and replaced. Every group is
// numbered and every token names its group; the printed seed repeats a run.
// usage: trajectory_stress_test [--full] [--seed N] [--kills N]
#include "penstock/trajectories.hpp"
#include "tests/stress/delivery_stress.hpp"

namespace penstock::trust {
namespace {

constexpr unsigned kEnvironments = 4;
constexpr std::uint64_t kBatch = 60;  // any one environment alone can fill it
constexpr std::chrono::seconds kLong{30};

std::int32_t token_of(std::uint64_t number, std::size_t sequence, std::int64_t at) {
    return static_cast<std::int32_t>(number * 31 + sequence * 7) + static_cast<std::int32_t>(at);
}
std::uint64_t group_size(std::uint64_t rank) {
    return 2 + rank;  // 2, 3, 4 and 5 sequences
}
std::vector<std::int64_t> lengths_of(std::uint64_t number) {
    std::vector<std::int64_t> lengths(group_size(DeliveryLedger::rank_of(number)));
    for (std::size_t s = 0; s < lengths.size(); ++s) {
        lengths[s] = 1 + static_cast<std::int64_t>((number + s * 13) % 60);
    }
    return lengths;
}

class Environment : DeliveryWorker, public StressWorker<Environment> {
public:
    explicit Environment(const Words& words)
        : DeliveryWorker(words),
          writer_(TrajectoryWriter::attach(name,
                                           {.name = "env" + std::to_string(rank),
                                            .group_size = static_cast<unsigned>(group_size(rank))},
                                           kLong)) {}

    void turn() {
        Rollout rollout = writer_.begin(kLong).or_throw();
        const std::uint64_t number = ledger.begin_put(rank);
        put(rollout, number);
        ledger.accepted(number);
    }
    void close() { writer_.close(); }

private:
    void put(Rollout& rollout, std::uint64_t number) {
        const std::vector<std::int64_t> lengths = lengths_of(number);
        std::vector<std::int32_t> tokens;
        for (std::size_t s = 0; s < lengths.size(); ++s) {
            for (std::int64_t t = 0; t < lengths[s]; ++t) tokens.push_back(token_of(number, s, t));
        }
        const std::string id = std::to_string(number);
        GroupSource source;
        source.environment = writer_.environment();
        source.instance_id = id;
        source.begun = rollout.version();
        source.lengths = lengths;
        source.columns[0] = {codec::DType::Int32, tokens.data()};
        codec::MessageWriter message;
        write_group(source, message);
        writer_.put(message, &rollout, kLong).or_throw();
    }

    TrajectoryWriter writer_;
};

class Trainer : DeliveryWorker, public StressWorker<Trainer> {
public:
    explicit Trainer(const Words& words)
        : DeliveryWorker(words), reader_(TrajectoryReader::attach(name, kBatch, kLong)) {}

    void turn() {
        constexpr Milliseconds kIdle{50};
        auto batch = reader_.next_batch({}, kIdle);
        if (!batch && ledger.is_over()) {
            // The remaining groups make no batch of the usual size: one batch of all of them.
            std::uint64_t left = 0;
            for (const auto& one : reader_.stats().environments) left += one.waiting_sequences;
            if (left > 0) batch = reader_.next_batch({.sequences = left}, kIdle);
        }
        if (batch) return train_on(*batch);
        if (batch.code() != ErrorCode::Timeout) {
            break_promise(text_of("next_batch: ", batch.status().message()));
        }
    }
    void close() { reader_.close(); }

private:
    void train_on(TrajectoryBatch& batch) {
        check_contents(batch);
        std::vector<std::uint64_t> numbers;
        for (std::size_t g = 0; g < batch.groups(); ++g) {
            numbers.push_back(std::stoull(batch.group(g).instance_id));
            ledger.taken(numbers.back(), batch.deliveries(g) > 1);
        }
        for (const std::uint64_t number : numbers) ledger.begin_ack(number);
        batch.ack(reader_.version() + 1);
        for (const std::uint64_t number : numbers) ledger.acked(number);
    }
    // No group is torn or mixed with another, nor are the arrays.
    static void check_contents(const TrajectoryBatch& batch) {
        std::vector<std::int32_t> tokens(batch.total());
        batch
            .fill_packed(Column::Tokens,
                         {codec::DType::Int32, reinterpret_cast<std::byte*>(tokens.data()), 0, 0,
                          tokens.size()})
            .or_throw();
        std::size_t at = 0;
        for (std::size_t g = 0; g < batch.groups(); ++g) {
            const std::uint64_t number = std::stoull(batch.group(g).instance_id);
            const std::vector<std::int64_t> lengths = lengths_of(number);
            require(batch.group(g).sequences() == lengths.size(), "a group of another size");
            for (std::size_t s = 0; s < lengths.size(); ++s) {
                for (std::int64_t t = 0; t < lengths[s]; ++t) {
                    require(tokens.at(at++) == token_of(number, s, t), "a token of another group");
                }
            }
        }
        require(at == tokens.size(), "more tokens than the groups have");
    }

    TrajectoryReader reader_;
};

void stress_trajectories(StressRun& run) {
    const std::string name = run.premises.name();
    const TrajectoryOptions options{.capacity = std::uint64_t{16} << 20U,
                                    .slots = 256,
                                    .participants = 16,
                                    .ends_with = EndsWith::LastProducer,
                                    .max_staleness = 3};
    TrajectoryReader overseer = TrajectoryReader::create(name, options, kBatch);
    // Keeps the stream open between a death and its replacement.
    TrajectoryWriter keeper = TrajectoryWriter::attach(name, {.name = "keeper", .weight = 1e-6});
    const auto check_stopped = [&] {
        for (const auto& one : overseer.stats().environments) {
            require(one.running_groups == 0, "a rollout runs after all, of " + one.name);
        }
    };
    const auto check_closed = [&] {
        keeper.close();
        require(overseer.next_batch({}, kLong).code() == ErrorCode::Closed,
                "the last writer has closed, and the stream goes on");
        overseer.close();
    };
    const bool is_long = run.is_full && !kIsSanitized;
    stress_deliveries(run, {.name = name,
                            .producers = kEnvironments,
                            .consumers = 1,
                            .kills = run.option("--kills", 220),
                            .between_kills = is_long ? 4000U : 200U,
                            .acks_at_once = kBatch / group_size(0),
                            .stats = [&] { return overseer.stats().queue; },
                            .check_stopped = check_stopped,
                            .check_closed = check_closed});
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    constexpr Role kRoles[] = {{kProducerRole, play_worker<Environment>},
                               {kConsumerRole, play_worker<Trainer>}};
    return run_stress(argc, argv, "trajectory-stress", kRoles, stress_trajectories);
}

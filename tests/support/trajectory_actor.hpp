// A process that obeys commands with trajectories, as an environment's writer or a trainer. Groups
// are numbered, with the actor's own number in front, and every token follows from that number; a
// batch is checked token by token before the answer names its groups.
#pragma once

#include <algorithm>
#include <ctime>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "penstock/trajectories.hpp"
#include "tests/support/actor_program.hpp"
#include "tests/support/numbered.hpp"
#include "tests/support/queue_ledger.hpp"

namespace penstock::trust {

inline constexpr const char* kTrajectoryRole = "trajectory-actor";

// Four groups make a batch, and the window is two batches.
inline constexpr std::uint64_t kGroupSequences = 2;
inline constexpr std::uint64_t kBatchGroups = 4;
inline constexpr std::uint64_t kBatchSequences = kBatchGroups * kGroupSequences;
inline constexpr std::uint64_t kStaleness = 1;
inline constexpr std::uint64_t kWindowGroups = (kStaleness + 1) * kBatchGroups;

class TrajectoryActor : public ActorProgram {
public:
    explicit TrajectoryActor(std::uint64_t number) : number_(number) {
        on("create", [this](const std::string& name, const std::string& environment) {
            forget();
            writer_.emplace(TrajectoryWriter::create(name,
                                                     {.capacity = std::uint64_t{1} << 20U,
                                                      .slots = 32,
                                                      .participants = 8,
                                                      .max_staleness = kStaleness},
                                                     options(environment)));
        });
        on("write",
           [this](const std::string& name, const std::string& environment, const Wait& wait) {
               forget();
               writer_.emplace(TrajectoryWriter::attach(name, options(environment), wait));
           });
        on("train", [this](const std::string& name, const Wait& wait) {
            forget();
            reader_.emplace(TrajectoryReader::attach(name, kBatchSequences, wait));
        });
        // COUNT WAIT: one after another; ends at the first that is not granted.
        on("begin", [this](std::uint64_t count, const Wait& wait) { return begin(count, wait); });
        on("release", [this] {
            rollouts_.pop_front();
            return ok().with("begun", rollouts_.size());
        });
        // COUNT TOKENS: puts rollouts, oldest first, with sequences of TOKENS tokens; ends at the
        // first failure.
        on("put", [this](std::uint64_t count, std::size_t tokens, const Wait& wait) {
            Status status;
            while (count-- > 0 && (status = put_group(tokens, wait))) {
                rollouts_.pop_front();
                ++accepted_;
            }
            return counted(status);
        });
        // Takes a batch and holds it.
        on("batch", [this](const Wait& wait) { return hold(wait); });
        on("ack", [this](std::uint64_t step) {
            batch_.value().ack(step);
            batch_.reset();
        });
        on("nack", [this] {
            batch_.value().nack();
            batch_.reset();
        });
        // COUNT: checks and acknowledges each; ends at the first failure.
        on("recv", [this](std::uint64_t count, const Wait& wait) { return receive(count, wait); });
        on("end", [this] { writer_.value().end(); });
        // Rollouts may be running and a batch in hand: the queue gets both back.
        on("close", [this] {
            if (writer_) writer_->close();
            if (reader_) reader_->close();
            forget();
            return counted({});
        });
    }

private:
    // "share" is the cost of waiting, in thousandths of a processor.
    Answer begin(std::uint64_t count, const Wait& wait) {
        const std::int64_t since = os::monotonic_ns();
        const std::int64_t cpu_since = cpu_ns();
        Answer answer = ok();
        for (; count > 0 && answer.is_ok(); --count) {
            Result<Rollout> rollout = writer_.value().begin(wait);
            if (!rollout) {
                answer = failure_of(rollout.status());
            } else {
                rollouts_.push_back(*std::move(rollout));
            }
        }
        const std::int64_t span = os::monotonic_ns() - since;
        answer.with("share", (cpu_ns() - cpu_since) * 1000 / std::max<std::int64_t>(span, 1));
        return answer.with("begun", rollouts_.size());
    }
    Answer hold(const Wait& wait) {
        Result<TrajectoryBatch> batch = reader_.value().next_batch({}, wait);
        if (!batch) return failure_of(batch.status());
        std::string got;
        if (Answer wrong = note(*batch, got); !wrong.is_ok()) return wrong;
        batch_.emplace(*std::move(batch));
        return ok().with("got", got);
    }
    Answer receive(std::uint64_t count, const Wait& wait) {
        std::string got;
        for (; count > 0; --count) {
            Result<TrajectoryBatch> batch = reader_.value().next_batch({}, wait);
            if (!batch) return failure_of(batch.status()).with("got", got);
            if (Answer wrong = note(*batch, got); !wrong.is_ok()) return wrong;
            batch->ack(reader_->version() + 1);
        }
        return ok().with("got", got);
    }

    void forget() {
        rollouts_.clear();
        batch_.reset();
        writer_.reset();
        reader_.reset();
    }
    static EnvironmentOptions options(const std::string& name) {
        return {.name = name, .group_size = kGroupSequences};
    }
    static std::int64_t cpu_ns() {
        timespec now{};
        ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
        return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
    }

    // A group whose sequences have `tokens` tokens.
    Status put_group(std::size_t tokens, const Wait& wait) {
        const std::uint64_t number = number_ * kMaxOfOne + accepted_;
        const std::vector<std::int64_t> lengths(kGroupSequences, static_cast<std::int64_t>(tokens));
        std::vector<std::int32_t> values(kGroupSequences * tokens);
        fill_numbered(std::as_writable_bytes(std::span(values)), number);
        const std::string id = std::to_string(number);
        GroupSource source;
        source.environment = writer_.value().environment();
        source.instance_id = id;
        source.begun = rollouts_.at(0).version();
        source.lengths = lengths;
        source.columns[0] = {codec::DType::Int32, values.data()};
        codec::MessageWriter message;
        write_group(source, message);
        return writer_->put(message, &rollouts_.at(0), wait);
    }

    // Adds "number/deliveries/sequence,..." in the order of the batch.
    static Answer note(const TrajectoryBatch& batch, std::string& got) {
        std::size_t sequences = 0;
        for (std::size_t at = 0; at < batch.groups(); ++at) {
            const GroupView& group = batch.group(at);
            const std::string wrong =
                check_numbered(group.columns[0].value().data, std::stoull(group.instance_id));
            if (!wrong.empty()) return intact(wrong);
            sequences += group.sequences();
            got += (got.empty() ? "" : ",") + group.instance_id + "/" +
                   std::to_string(batch.deliveries(at)) + "/" + std::to_string(batch.sequence(at));
        }
        if (sequences == kBatchSequences) return ok();
        return {"Inexact", {}, "a batch of " + std::to_string(sequences) + " sequences"};
    }
    Answer counted(const Status& status) const {
        return (status ? ok() : failure_of(status)).with("accepted", accepted_);
    }

    std::uint64_t number_;
    std::uint64_t accepted_ = 0;
    std::optional<TrajectoryWriter> writer_;
    std::deque<Rollout> rollouts_;
    std::optional<TrajectoryReader> reader_;
    std::optional<TrajectoryBatch> batch_;
};

// trajectory-actor NUMBER
inline int play_trajectory_actor(const Words& arguments) {
    return TrajectoryActor(std::stoull(arguments.at(0))).run();
}

}  // namespace penstock::trust

// A process that does what it is told with trajectories: an environment's writer, or a trainer.
// Groups are numbered, the actor's own number in front, and every token follows from the number;
// a batch is checked token by token before it is answered which groups it has.
#pragma once

#include <algorithm>
#include <ctime>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "os/crash_point.hpp"
#include "penstock/trajectories.hpp"
#include "tests/support/actor_role.hpp"
#include "tests/support/answers.hpp"
#include "tests/support/numbered.hpp"
#include "tests/support/queue_ledger.hpp"
#include "tests/support/talk.hpp"

namespace penstock::trust {

inline constexpr const char* kTrajectoryRole = "trajectory-actor";

// Four groups make a batch, and two batches may be on the way.
inline constexpr std::uint64_t kGroupSequences = 2;
inline constexpr std::uint64_t kBatchGroups = 4;
inline constexpr std::uint64_t kBatchSequences = kBatchGroups * kGroupSequences;
inline constexpr std::uint64_t kStaleness = 1;
inline constexpr std::uint64_t kWindowGroups = (kStaleness + 1) * kBatchGroups;

class TrajectoryActor : public ActorRole<TrajectoryActor> {
public:
    explicit TrajectoryActor(std::uint64_t number) : number_(number) {}

private:
    friend class ActorRole<TrajectoryActor>;

    // create NAME ENVIRONMENT
    Answer create(const Words& words) {
        forget();
        writer_.emplace(TrajectoryWriter::create(words.at(1),
                                                 {.capacity = std::uint64_t{1} << 20U,
                                                  .slots = 32,
                                                  .participants = 8,
                                                  .max_staleness = kStaleness},
                                                 environment(words.at(2))));
        return ok();
    }
    // write NAME ENVIRONMENT MS
    Answer write(const Words& words) {
        forget();
        writer_.emplace(
            TrajectoryWriter::attach(words.at(1), environment(words.at(2)), wait_of(words.at(3))));
        return ok();
    }
    // train NAME MS
    Answer train(const Words& words) {
        forget();
        reader_.emplace(
            TrajectoryReader::attach(words.at(1), kBatchSequences, wait_of(words.at(2))));
        return ok();
    }

    // begin COUNT MS: one after another; ends at the first that is not granted. "share" is what
    // waiting cost, in thousandths of a processor.
    Answer begin(const Words& words) {
        const std::int64_t since = os::monotonic_ns();
        const std::int64_t cpu_since = cpu_ns();
        Answer answer = ok();
        for (std::uint64_t i = std::stoull(words.at(1)); i > 0 && answer.is_ok(); --i) {
            Result<Rollout> rollout = writer_.value().begin(wait_of(words.at(2)));
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
    Answer release(const Words&) {
        rollouts_.pop_front();
        return ok().with("begun", rollouts_.size());
    }
    // put COUNT TOKENS MS: what was begun first; ends at the first failure.
    Answer put(const Words& words) {
        for (std::uint64_t i = std::stoull(words.at(1)); i > 0; --i) {
            const Status status = put_group(std::stoul(words.at(2)), wait_of(words.at(3)));
            if (!status) return counted(failure_of(status));
            rollouts_.pop_front();
            ++accepted_;
        }
        return counted(ok());
    }

    // batch MS: takes one and holds it.
    Answer hold(const Words& words) {
        Result<TrajectoryBatch> batch = reader_.value().next_batch({}, wait_of(words.at(1)));
        if (!batch) return failure_of(batch.status());
        std::string got;
        if (Answer wrong = note(*batch, got); !wrong.is_ok()) return wrong;
        batch_.emplace(*std::move(batch));
        return ok().with("got", got);
    }
    // ack STEP
    Answer ack(const Words& words) {
        batch_.value().ack(std::stoull(words.at(1)));
        batch_.reset();
        return ok();
    }
    Answer nack(const Words&) {
        batch_.value().nack();
        batch_.reset();
        return ok();
    }
    // recv COUNT MS: batches, each checked and acknowledged; ends at the first failure.
    Answer recv(const Words& words) {
        std::string got;
        for (std::uint64_t i = std::stoull(words.at(1)); i > 0; --i) {
            Result<TrajectoryBatch> batch = reader_.value().next_batch({}, wait_of(words.at(2)));
            if (!batch) return failure_of(batch.status()).with("got", got);
            if (Answer wrong = note(*batch, got); !wrong.is_ok()) return wrong;
            batch->ack(reader_->version() + 1);
        }
        return ok().with("got", got);
    }

    Answer end(const Words&) {
        writer_.value().end();
        return ok();
    }
    // With rollouts running and a batch in hand: what is left of them follows.
    Answer close(const Words&) {
        if (writer_) writer_->close();
        if (reader_) reader_->close();
        forget();
        return counted(ok());
    }

    void forget() {
        rollouts_.clear();
        batch_.reset();
        writer_.reset();
        reader_.reset();
    }
    static EnvironmentOptions environment(const std::string& name) {
        return {.name = name, .group_size = kGroupSequences};
    }
    static std::int64_t cpu_ns() {
        timespec now{};
        ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
        return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
    }

    // `tokens` of each of its sequences.
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
            if (!wrong.empty()) return {"Torn", {}, wrong};
            sequences += group.sequences();
            got += (got.empty() ? "" : ",") + group.instance_id + "/" +
                   std::to_string(batch.deliveries(at)) + "/" + std::to_string(batch.sequence(at));
        }
        if (sequences == kBatchSequences) return ok();
        return {"Inexact", {}, "a batch of " + std::to_string(sequences) + " sequences"};
    }

    Answer counted(Answer answer) const { return answer.with("accepted", accepted_); }

    static const std::vector<Command> kCommands;

    std::uint64_t number_;
    std::uint64_t accepted_ = 0;
    std::optional<TrajectoryWriter> writer_;
    std::deque<Rollout> rollouts_;
    std::optional<TrajectoryReader> reader_;
    std::optional<TrajectoryBatch> batch_;
};

inline const std::vector<TrajectoryActor::Command> TrajectoryActor::kCommands = {
    {"arm", &TrajectoryActor::arm},       {"trace", &TrajectoryActor::trace},
    {"traced", &TrajectoryActor::traced}, {"create", &TrajectoryActor::create},
    {"write", &TrajectoryActor::write},   {"train", &TrajectoryActor::train},
    {"begin", &TrajectoryActor::begin},   {"release", &TrajectoryActor::release},
    {"put", &TrajectoryActor::put},       {"batch", &TrajectoryActor::hold},
    {"ack", &TrajectoryActor::ack},       {"nack", &TrajectoryActor::nack},
    {"recv", &TrajectoryActor::recv},     {"end", &TrajectoryActor::end},
    {"close", &TrajectoryActor::close},   {"depart", &TrajectoryActor::depart},
};

// trajectory-actor NUMBER
inline int play_trajectory_actor(const Words& arguments) {
    TrajectoryActor actor(std::stoull(arguments.at(0)));
    return listen([&actor](const Words& words) { return actor.obey(words); });
}

}  // namespace penstock::trust

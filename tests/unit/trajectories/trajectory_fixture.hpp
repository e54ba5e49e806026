// Fixture of the trajectory tests: groups whose values name their group.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "penstock/trajectories.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/messages.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock::test {

inline TrajectoryOptions small_trajectories(std::uint64_t max_staleness = kUnlimited) {
    TrajectoryOptions options;
    options.capacity = 4 << 20U;
    options.slots = 64;
    options.participants = 16;
    options.max_staleness = max_staleness;
    return options;
}

inline EnvironmentOptions environment(std::string name, unsigned group_size = 2, double weight = 1,
                                      double min_share = 0) {
    EnvironmentOptions options;
    options.name = std::move(name);
    options.group_size = group_size;
    options.weight = weight;
    options.min_share = min_share;
    return options;
}

// Token t of sequence s of group g is g * 1'000'000 + s * 1'000 + t; the logprob is its negative.
struct MadeGroup {
    MadeGroup(std::string environment, std::int32_t number, std::vector<std::int64_t> lengths,
              std::uint64_t begun = 0)
        : environment_(std::move(environment)), id_("g" + std::to_string(number)),
          lengths_(std::move(lengths)), begun_(begun) {
        for (std::size_t s = 0; s < lengths_.size(); ++s) {
            scores_.push_back(number + 0.5 * static_cast<double>(s));
            for (std::int32_t t = 0; t < lengths_[s]; ++t) {
                const std::int32_t token =
                    number * 1'000'000 + static_cast<std::int32_t>(s) * 1'000 + t;
                tokens_.push_back(token);
                masks_.push_back(t == 0 ? -100 : token);
                logprobs_.push_back(-static_cast<float>(token));
            }
        }
    }

    [[nodiscard]] GroupSource source() const {
        GroupSource source;
        source.environment = environment_;
        source.instance_id = id_;
        source.begun = begun_;
        source.lengths = lengths_;
        source.columns[0] = {codec::DType::Int32, tokens_.data()};
        source.columns[1] = {codec::DType::Int32, masks_.data()};
        source.columns[4] = {codec::DType::Float32, logprobs_.data()};
        source.scores = {codec::DType::Float64, scores_.data()};
        return source;
    }

    [[nodiscard]] std::vector<std::byte> message() const {
        codec::MessageWriter writer;
        write_group(source(), writer);
        std::vector<std::byte> bytes(writer.nbytes());
        writer.write(bytes.data());
        return bytes;
    }

    std::string environment_;
    std::string id_;
    std::vector<std::int64_t> lengths_;
    std::uint64_t begun_;
    std::vector<std::int32_t> tokens_;
    std::vector<std::int32_t> masks_;
    std::vector<float> logprobs_;
    std::vector<double> scores_;
};

inline Status put(TrajectoryWriter& writer, const MadeGroup& group, Rollout* rollout = nullptr) {
    codec::MessageWriter message;
    write_group(group.source(), message);
    return writer.put(message, rollout, kLong);
}

// Puts a group of the writer's environment with `sequences` sequences of three tokens.
inline Status put(TrajectoryWriter& writer, std::int32_t number, std::size_t sequences = 2,
                  Rollout* rollout = nullptr, std::uint64_t begun = 0) {
    return put(writer,
               MadeGroup(writer.environment(), number, std::vector<std::int64_t>(sequences, 3),
                         rollout == nullptr ? begun : rollout->version()),
               rollout);
}

inline std::vector<std::string> ids(const TrajectoryBatch& batch) {
    std::vector<std::string> found;
    for (std::size_t at = 0; at < batch.groups(); ++at)
        found.push_back(batch.group(at).instance_id);
    return found;
}

class TrajectoryTest : public CleanTest {
protected:
    std::string name_ = new_name();
};

}  // namespace penstock::test

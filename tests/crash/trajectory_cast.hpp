// The cast of a scenario of trajectories, what is known of their groups, and what the accounts
// must say: looked up from outside, where no process's opinion counts.
#pragma once

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "penstock/trajectories.hpp"
#include "tests/support/crash_walk.hpp"
#include "tests/support/queue_ledger.hpp"
#include "tests/support/trajectory_actor.hpp"

namespace penstock::trust {

class TrajectoryCast : public Scenario {
public:
    explicit TrajectoryCast(std::string segment) : segment_(std::move(segment)) {}

protected:
    // Two environments of equal weight: each may have half of the window while both live.
    static constexpr const char* kOurs = "steady";
    static constexpr const char* kOther = "struck";
    static constexpr std::uint64_t kHalf = kWindowGroups / 2;

    struct Party {
        std::string name;
        std::uint64_t number = 0;
        Actor actor;
        std::uint64_t accepted = 0;  // groups of which it has said that they are
        std::uint64_t begun = 0;     // rollouts that it has
    };

    void start(Party& party, const std::string& name) {
        party.name = name;
        party.number = ++parties_;
        party.accepted = party.begun = 0;
        party.actor = Actor(name, Process::start(kTrajectoryRole, {std::to_string(party.number)}));
    }
    [[nodiscard]] std::string create_line() const { return "create " + segment_ + " " + kOurs; }
    [[nodiscard]] std::string write_line(const std::string& environment) const {
        return "write " + segment_ + " " + environment + " 1000";
    }
    [[nodiscard]] std::string train_line() const { return "train " + segment_ + " 1000"; }
    void start_creator(Party& party, const std::string& name) {
        start(party, name);
        party.actor.must(create_line());
    }
    void start_writer(Party& party, const std::string& name, const std::string& environment) {
        start(party, name);
        party.actor.must(write_line(environment));
    }
    void start_trainer(Party& party, const std::string& name) {
        start(party, name);
        party.actor.must(train_line());
    }
    static void kill(Party& party) {
        party.actor.process().kill();
        require(party.actor.process().wait(kPatience).has_value(), party.name + " lives on");
    }

    // ---- environments

    void begin(Party& party, std::uint64_t count) {
        const Answer answer = party.actor.ask("begin " + std::to_string(count) + " 5000");
        require(answer.is_ok(), party.name + " got no credit: " + answer.line());
        note_begun(party, answer);
    }
    static void note_begun(Party& party, const Answer& answer) {
        party.begun = static_cast<std::uint64_t>(answer.number("begun"));
    }
    // All that it is granted at once, which must be so much and no more.
    void begin_all(Party& party, std::uint64_t expected) {
        const Answer answer = party.actor.ask("begin 100 0");
        require(answer.outcome == "Timeout", "credit without end: " + answer.line());
        const std::uint64_t before = party.begun;
        note_begun(party, answer);
        require(party.begun - before == expected, party.name + " was to get credit for " +
                                                      std::to_string(expected) + ", and got " +
                                                      std::to_string(party.begun - before));
    }
    [[nodiscard]] static std::uint64_t next_of(const Party& party) {
        return party.number * kMaxOfOne + party.accepted;
    }
    void accept(Party& party, const Answer& answer) {
        require(answer.is_ok(), party.name + " could not put: " + answer.line());
        const auto accepted = static_cast<std::uint64_t>(answer.number("accepted"));
        while (party.accepted < accepted) {
            ledger_.accepted(next_of(party));
            ++party.accepted;
            if (party.begun > 0) --party.begun;
        }
    }
    // What was begun first. Their numbers.
    std::vector<std::uint64_t> put(Party& party, std::uint64_t count) {
        std::vector<std::uint64_t> numbers;
        for (std::uint64_t i = 0; i < count; ++i) numbers.push_back(next_of(party) + i);
        if (count == 0) return numbers;
        const std::string tokens = party.accepted % 2 == 0 ? "3000" : "8";
        accept(party, party.actor.ask("put " + std::to_string(count) + " " + tokens + " 5000"));
        return numbers;
    }

    // ---- trainers

    // The groups of a batch that it says it holds, in order.
    std::vector<std::uint64_t> hold(Party& party, const Answer& answer) {
        require(answer.is_ok(), party.name + " got no batch: " + answer.line());
        std::vector<std::uint64_t> numbers;
        std::istringstream items(answer.text("got"));
        for (std::string item; std::getline(items, item, ',');) {
            numbers.push_back(ledger_.held(party.name, ok().with("got", item)));
        }
        return numbers;
    }
    void receive(Party& party, std::uint64_t batches) {
        receive(party, party.actor.ask("recv " + std::to_string(batches) + " 5000"));
    }
    void receive(Party& party, const Answer& answer) {
        require(answer.is_ok(), party.name + " got no batch: " + answer.line());
        ledger_.received(party.name, answer);
    }

    // ---- the accounts

    [[nodiscard]] TrajectoryStats look() const {
        return inspect_trajectories(segment_).trajectories;
    }
    // Groups that were put and are not acknowledged.
    [[nodiscard]] std::uint64_t waiting() const {
        std::uint64_t groups = 0;
        for (const EnvironmentStats& one : look().environments) groups += one.waiting_groups;
        return groups;
    }
    void check_closed_accounts() const {
        const TrajectoryStats stats = look();
        require(stats.queue.queued == 0 && stats.queue.in_flight == 0,
                std::to_string(stats.queue.queued) + " groups are queued and " +
                    std::to_string(stats.queue.in_flight) + " in flight after all");
        require(stats.queue.held_bytes == 0,
                std::to_string(stats.queue.held_bytes) + " bytes are held, and no group");
        for (const EnvironmentStats& one : stats.environments) {
            require(one.running_groups == 0 && one.waiting_groups == 0,
                    "'" + one.name + "' has " + std::to_string(one.running_groups) +
                        " rollouts running and " + std::to_string(one.waiting_groups) +
                        " groups waiting after all");
        }
    }
    void check_name_is_free() const {
        require(segments_left(segment_).empty(), "the last one left, and its name is still there");
    }

    std::string segment_;
    std::uint64_t parties_ = 0;
    QueueLedger ledger_;
    Party writer_;  // of the steady environment; created it all
    Party asker_;   // of the same; waits for credit
    Party trainer_;
    Party victim_;
};

}  // namespace penstock::trust

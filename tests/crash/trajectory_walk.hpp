// The promises of trajectories as checks: beside a victim, the others get credit up to the window
// and no further, every group is in exactly one acknowledged batch, and the accounts close. They
// are inspected from outside.
#pragma once

#include <algorithm>
#include <cstdint>
#include <sstream>
#include <string>

#include "penstock/trajectories.hpp"
#include "tests/crash/cast.hpp"
#include "tests/support/queue_ledger.hpp"
#include "tests/support/trajectory_actor.hpp"

namespace penstock::trust {

struct TrajectoryRow {
    const char* name;
    Words before = {};
    std::string act = {};
    const char* answer = "ok";
    const char* must_pass = "";
    const char* about = "";
    Words meanwhile = {};

    Words stopped = {};  // while the victim is stopped, before the others go on
    Words then = {};     // what the victim still does after its act

    // For a writer's act.
    const char* no_credit_at = nullptr;  // the window is full there: waiting must be cheap
    bool frees_by_death = true;          // its death gives credit to the asker
    bool frees_by_itself = false;        // as each point of the act does
};

// Two environments of equal weight, "steady" and "struck": each may have half of the window, four
// groups, while both live. The writer, of "steady", has created the queue; the asker, also of
// "steady", waits for credit; the ledger knows all groups.
class TrajectoryWalk : public Cast<TrajectoryRow> {
public:
    using Cast::Cast;

protected:
    [[nodiscard]] std::string join_line(const std::string& name) const override {
        if (name == "writer") return "create @ steady";
        if (name == "trainer") return "train @ 1000";
        return name == "asker" ? "write @ steady 1000" : "write @ struck 1000";
    }
    [[nodiscard]] Process start(std::uint64_t number) const override {
        return Process::start(kTrajectoryRole, {std::to_string(number)});
    }
    void note(Party& one, const Words& told, const Answer& answer) override {
        const std::string& verb = told.at(0);
        if (verb == "begin" || verb == "release") {
            one.begun = static_cast<std::uint64_t>(answer.number("begun"));
        }
        while (std::cmp_less(one.accepted, answer.number("accepted"))) {
            ledger_.accepted(next_of(one));
            ++one.accepted;
            if (one.begun > 0) --one.begun;
        }
        if (verb == "recv") ledger_.received(one.name, answer);
        if (verb == "batch") hold(one, answer);
        if (verb == "ack" && answer.is_ok()) acknowledge(one, one.held.size());
        if (verb == "nack" || verb == "depart") one.held.clear();
        if (verb == "close" || verb == "depart") one.begun = 0;
    }
    // Notes the groups of a batch, in order.
    void hold(Party& one, const Answer& answer) {
        std::istringstream items(answer.text("got"));
        for (std::string item; std::getline(items, item, ',');) {
            one.held.push_back(ledger_.held(one.name, ok().with("got", item)));
        }
    }
    void acknowledge(Party& one, std::size_t groups) {
        for (; groups > 0; --groups) {
            ledger_.acknowledged(one.held.at(0));
            one.held.pop_front();
        }
    }
    [[nodiscard]] static std::uint64_t next_of(const Party& one) {
        return one.number * kMaxOfOne + one.accepted;
    }
    [[nodiscard]] bool is_act(const char* verb) const { return row.act.starts_with(verb); }

    [[nodiscard]] bool is_asking() { return has("asker") && !party("asker").told.empty(); }
    // The asker must be granted credit now, by the event at `since`.
    void asker_is_granted(std::int64_t since, const std::string& what) {
        if (is_asking()) noticed(since, must("asker: answer"), what);
    }
    // Begins until credit ends, which must be after exactly `expected` groups.
    void begin_all(const std::string& name, std::uint64_t expected) {
        const std::uint64_t begun = party(name).begun + expected;
        must(name + ": begin 100 0 -> Timeout begun=" + std::to_string(begun));
    }
    void put(const std::string& name, std::uint64_t count) {
        if (count == 0) return;
        const std::string tokens = party(name).accepted % 2 == 0 ? " 3000" : " 8";
        must(name + ": put " + std::to_string(count) + tokens);
    }
    void put_begun(const std::string& name) {
        if (has(name)) put(name, party(name).begun);
    }
    // The trainer gets and acknowledges every whole batch that is there.
    void train(std::uint64_t available) {
        std::uint64_t batches = available / kBatchGroups;
        if (batches == 0) return;
        const std::int64_t since = os::monotonic_ns();
        if (!party("trainer").told.empty()) {
            must("trainer: answer");
            --batches;
        }
        if (batches > 0) must("trainer: recv " + std::to_string(batches));
        asker_is_granted(std::max(since, blow_at), "credit that came back with a batch");
    }

    // Puts all begun groups, and more to fill the last batch; all are received.
    void settle() {
        put_begun("writer");
        if (!is_asking()) put_begun("asker");
        train(waiting());
        put_begun("asker");
        const std::uint64_t odd = waiting() % kBatchGroups;
        if (odd != 0) {
            must("writer: begin " + std::to_string(kBatchGroups - odd));
            put_begun("writer");
        }
        train(waiting());
        require(!is_asking(), "the asker still waits, and nothing is on the way");
        check_closed_accounts();
    }
    // Only one environment is left alive: it has the whole window.
    void everybody_leaves() {
        begin_all("writer", kWindowGroups);
        put_begun("writer");
        must("trainer: recv 2");
        check_closed_accounts();
        if (has("asker")) must("asker: close");
        play({"writer: end", "trainer: recv 1 -> Closed", "writer: close", "trainer: close"});
        check_name_is_free();
        ledger_ = {};  // the numbers of a new queue begin again
        play({"writer: create @ steady", "trainer: train @ 1000", "writer: begin 4"});
        put_begun("writer");
        must("trainer: recv 1");
        check_closed_accounts();
        play({"writer: close", "trainer: close"});
        check_name_is_free();
    }

    [[nodiscard]] TrajectoryStats look() const {
        return inspect_trajectories(segment).trajectories;
    }
    // Groups that were put and not acknowledged.
    [[nodiscard]] std::uint64_t waiting() const {
        std::uint64_t groups = 0;
        for (const EnvironmentStats& one : look().environments) groups += one.waiting_groups;
        return groups;
    }
    void check_closed_accounts() const {
        ledger_.check_complete();
        const TrajectoryStats stats = look();
        require(
            stats.queue.queued == 0 && stats.queue.in_flight == 0 && stats.queue.held_bytes == 0,
            std::to_string(stats.queue.queued) + " groups are queued, " +
                std::to_string(stats.queue.in_flight) + " in flight, and " +
                std::to_string(stats.queue.held_bytes) + " bytes held after all");
        for (const EnvironmentStats& one : stats.environments) {
            require(one.running_groups == 0 && one.waiting_groups == 0,
                    "'" + one.name + "' has " + std::to_string(one.running_groups) +
                        " rollouts running and " + std::to_string(one.waiting_groups) +
                        " groups waiting after all");
        }
    }

    QueueLedger ledger_;
};

// The victim is an environment's writer, beside another writer and one that waits for credit. Dead,
// its rollouts hold nothing; stopped, it keeps its credit, and the others go on with the rest.
class WriterWalk : public TrajectoryWalk {
public:
    using TrajectoryWalk::TrajectoryWalk;

    void prepare() override {
        party("writer");
        party("trainer");
        play(row.before);
    }
    void after_completion(const Answer& answer) override {
        take_answer(answer);
        if (!has_flowed_) flow();
        play(row.then);
        put_begun("victim");
        must("victim: close");
        settle();
        everybody_leaves();
    }
    void after_death() override {
        if (is_act("put")) note_dead_put();
        ask_now();
        if (row.frees_by_death) asker_is_granted(std::max(asked_at_, blow_at), "the dead's credit");
        check_window();
        settle();
        everybody_leaves();
    }
    void while_stopped() override {
        if (row.no_credit_at != nullptr && point.starts_with(row.no_credit_at)) {
            check_waiting_is_cheap();
        }
        play(row.stopped);
        flow();
    }

private:
    // The others' half of the window is theirs, whatever state the victim is in.
    void flow() {
        has_flowed_ = true;
        ask_now();
        if (row.frees_by_itself) asker_is_granted(blow_at, "credit that was given up");
        put_begun("writer");
        train(waiting());
    }
    // An asker that could not be parked before the act, because it would have got the victim's
    // credit, asks when the victim is struck.
    void ask_now() {
        if (is_asking() || party("asker").begun > 0) return;
        asked_at_ = os::monotonic_ns();
        must("asker: tell begin 1 15000");
    }
    void note_dead_put() {
        const bool is_put = waiting() > 0;
        require(is_put || !point.starts_with("trajectories.put."), "the group that was put");
        Party& victim = party("victim");
        ledger_.maybe_accepted(next_of(victim));
        if (is_put) ledger_.accepted(next_of(victim));
    }
    // There is no credit, whatever the stopped victim did: waiting for it costs next to nothing.
    void check_waiting_is_cheap() {
        constexpr std::int64_t kMaxShare = 200;  // thousandths; spinning takes several hundreds
        const std::int64_t share = must("asker: begin 1 300 -> Timeout").number("share");
        require(
            kIsSanitized || share < kMaxShare,
            "waiting for credit takes " + std::to_string(share) + " thousandths of a processor");
    }
    // The dead victim has no credit: queued groups, those of the living and the rest add up to the
    // window.
    void check_window() {
        if (is_asking()) return;
        const std::uint64_t used = waiting() + party("writer").begun + party("asker").begun;
        begin_all("writer", kWindowGroups - used);
    }

    bool has_flowed_ = false;
    std::int64_t asked_at_ = 0;
};

// The victim is a trainer. Dead, its unacknowledged groups come again, marked, to the next one;
// stopped, it keeps its batch, and another trainer gets the rest.
class TrainerWalk : public TrajectoryWalk {
public:
    using TrajectoryWalk::TrajectoryWalk;

    void prepare() override {
        party("writer");
        must(is_first() ? "victim: start" : "victim: train @ 1000");
        if (!is_first()) must("writer: begin 8");
        play(row.before);
        for (std::size_t i = 0; i < party("victim").held.size(); ++i) {
            require(party("victim").held[i] == put_as(i), "another batch than was put");
        }
    }
    void after_completion(const Answer& answer) override {
        take_answer(answer);
        if (is_act("ack")) require(look().version >= 1, "acknowledged, at the old version");
        if (is_first()) asker_is_granted(0, "credit by a trainer");
        const std::uint64_t version = look().version;
        play(row.then);
        require(!is_act("depart") || look().version == version, "one that has left acknowledged");
        must("victim: close");
        party("trainer");
        settle();
        everybody_leaves();
    }
    void after_death() override {
        if (is_act("ack")) note_acknowledged();
        // Groups that make a batch may have been delivered, and no others.
        const std::uint64_t put = party("writer").accepted;
        for (std::size_t i = 0; is_act("batch") && put >= kBatchGroups && i < put; ++i) {
            ledger_.maybe_taken(put_as(i));
        }
        another_comes();
        settle();
        everybody_leaves();
    }
    void while_stopped() override {
        if (is_act("ack")) note_acknowledged();
        another_comes();
        if (is_first()) return;
        put_begun("writer");
        train(kBatchGroups);
        // A new trainer has no groups in reserve. To the ledger it is another one: older groups may
        // come to it after younger ones.
        play({"trainer: close", "trainer: train @ 1000"});
        party("trainer").name += ", again";
    }

private:
    // The first trainer: before it there is no credit.
    [[nodiscard]] bool is_first() const { return row.act.starts_with("train"); }
    // The writer's groups, in order.
    [[nodiscard]] std::uint64_t put_as(std::size_t at) {
        return party("writer").number * kMaxOfOne + at;
    }
    void another_comes() {
        const std::int64_t since = os::monotonic_ns();
        party("trainer");
        if (is_first()) asker_is_granted(since, "credit by a trainer");
    }
    // Group by group, the oldest first, after the version. As many as the accounts say, and no
    // others.
    void note_acknowledged() {
        const std::uint64_t groups = kBatchGroups - waiting();
        if (point == "trajectories.ack.version") require(groups == 0, "acknowledged too early");
        if (point == "trajectories.ack.group") {
            require(std::cmp_equal(groups, occurrence), std::to_string(groups) +
                                                            " groups are acknowledged instead of " +
                                                            std::to_string(occurrence));
        }
        require(look().version == 1, "a group is acknowledged before the version");
        acknowledge(party("victim"), groups);
        if (groups > 0) asker_is_granted(blow_at, "credit of what was acknowledged");
        begin_all("writer", groups > 0 ? groups - 1 : 0);
    }
};

}  // namespace penstock::trust

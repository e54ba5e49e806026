// The promises of trajectories as checks: beside a victim, the others get credit up to the whole
// window and no further, every group that was put makes part of exactly one batch that is
// acknowledged, and the accounts close.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "tests/crash/trajectory_cast.hpp"

namespace penstock::trust {

class TrajectoryStruck : public TrajectoryCast {
public:
    using TrajectoryCast::TrajectoryCast;
    Actor& victim() override { return victim_.actor; }

protected:
    // The asker waits for credit: asleep before the blow, unless that is still to come.
    void park_asker() {
        start_writer(asker_, "the asker", kOurs);
        asker_.actor.park("begin 1 15000");
        is_asking_ = true;
    }
    // It must be granted now, by what happened at `since`.
    void asker_is_granted(std::int64_t since, const std::string& what) {
        if (!is_asking_) return;
        is_asking_ = false;
        const Answer answer = asker_.actor.answer();
        require(answer.is_ok(), "the waiter for credit: " + answer.line());
        note_begun(asker_, answer);
        if (blow_at != 0) noticed_after(answer.number("t") - since, what);
    }
    // There is no credit, whatever the stopped one was about: waiting for it costs next to
    // nothing.
    void waiting_is_cheap() {
        constexpr std::int64_t kMaxShare = 200;  // thousandths; spinning takes several hundreds
        const Answer answer = asker_.actor.ask("begin 1 300");
        require(answer.outcome == "Timeout", "more than the window: " + answer.line());
        if (kIsSanitized) return;
        require(answer.number("share") < kMaxShare, "waiting for credit takes " +
                                                        std::to_string(answer.number("share")) +
                                                        " thousandths of a processor");
    }

    // The trainer gets and acknowledges every whole batch that is there.
    void train(std::uint64_t available) {
        const std::uint64_t batches = available / kBatchGroups;
        if (batches == 0) return;
        const std::int64_t since = os::monotonic_ns();
        if (is_training_) receive(trainer_, trainer_.actor.answer());
        const std::uint64_t rest = batches - (is_training_ ? 1 : 0);
        if (rest > 0) receive(trainer_, rest);
        is_training_ = false;
        asker_is_granted(std::max(since, blow_at), "credit that came back with a batch");
    }

    // All that was begun is put, some more so that whole batches come of it, and is received.
    void settle() {
        put(writer_, writer_.begun);
        if (asker_.actor.is_started() && !is_asking_) put(asker_, asker_.begun);
        train(waiting());
        put(asker_, asker_.begun);
        const std::uint64_t odd = waiting() % kBatchGroups;
        if (odd != 0) {
            begin(writer_, kBatchGroups - odd);
            put(writer_, kBatchGroups - odd);
        }
        train(waiting());
        require(!is_asking_, "the asker still waits, and nothing is on the way");
        ledger_.check_complete();
        check_closed_accounts();
    }
    // Of the living only the one environment is left: the window is all its own.
    void everybody_leaves() {
        begin_all(writer_, kWindowGroups);
        put(writer_, kWindowGroups);
        receive(trainer_, kWindowGroups / kBatchGroups);
        ledger_.check_complete();
        check_closed_accounts();
        if (asker_.actor.is_started()) asker_.actor.must("close");
        writer_.actor.must("end");
        const Answer last = trainer_.actor.ask("recv 1 5000");
        require(last.outcome == "Closed", "after the end: " + last.line());
        writer_.actor.must("close");
        trainer_.actor.must("close");
        check_name_is_free();
        start_over();
    }
    void start_over() {
        writer_.actor.must(create_line());
        trainer_.actor.must(train_line());
        begin(writer_, kBatchGroups);
        put(writer_, kBatchGroups);
        receive(trainer_, 1);
        check_closed_accounts();
        writer_.actor.must("close");
        trainer_.actor.must("close");
        check_name_is_free();
    }

    // It sleeps until there is a batch.
    void park_trainer() {
        trainer_.actor.park("recv 1 15000");
        is_training_ = true;
    }

    bool is_asking_ = false;
    bool is_training_ = false;
};

// An environment's writer is struck, beside another writer and one that waits for credit. Dead, its
// rollouts hold nothing; stopped, it holds what it has, and the others go on with the rest.
class WriterStruck : public TrajectoryStruck {
public:
    WriterStruck(std::string segment, std::string environment)
        : TrajectoryStruck(std::move(segment)), environment_(std::move(environment)) {}

    void prepare() override {
        start_creator(writer_, "the writer");
        start_trainer(trainer_, "the trainer");
        set_up();
    }
    void after_completion(const Answer& answer) override {
        accept_act(answer);
        if (!has_flowed_) flow();
        use_victim();
        victim_.actor.must("close");
        settle();
        everybody_leaves();
    }
    void after_death() override {
        accept_death();
        ask_now();
        if (frees_by_death()) asker_is_granted(asked_at(), "credit of the dead");
        check_window();
        settle();
        everybody_leaves();
    }
    void while_stopped() override { flow(); }

protected:
    virtual void set_up() {
        start_writer(victim_, "the victim", environment_);
        begin(writer_, kHalf);
        begin(victim_, kHalf);
        park_asker();
    }
    virtual void accept_act(const Answer& answer) = 0;
    virtual void accept_death() {}
    [[nodiscard]] virtual bool frees_by_death() const { return true; }
    // Of this act, at every point that it passes.
    [[nodiscard]] virtual bool frees_by_itself() const { return false; }
    // What the victim has is put, like any other's.
    virtual void use_victim() { put(victim_, victim_.begun); }

    // One that could not be parked before the act, because it would have had what the victim was to
    // get, asks when that one is struck.
    void ask_now() {
        if (is_asking_ || asker_.begun > 0) return;
        asked_at_ = os::monotonic_ns();
        asker_.actor.tell("begin 1 15000");
        is_asking_ = true;
    }
    [[nodiscard]] std::int64_t asked_at() const { return std::max(asked_at_, blow_at); }

    // The others' half of the window is theirs, whatever has become of the victim.
    void flow() {
        has_flowed_ = true;
        ask_now();
        if (frees_by_itself()) asker_is_granted(blow_at, "credit that was given up");
        put(writer_, writer_.begun);
        train(waiting());
    }
    // The dead has no part of it: what waits, what the living have, and the rest of the window.
    void check_window() {
        if (is_asking_) return;
        begin_all(writer_, kWindowGroups - waiting() - writer_.begun - asker_.begun);
    }

    std::string environment_;
    bool has_flowed_ = false;

private:
    std::int64_t asked_at_ = 0;
};

// A trainer is struck. Dead, what it had not acknowledged comes again, marked, to the next one;
// stopped, it has what it has, and another one gets the rest.
class TrainerStruck : public TrajectoryStruck {
public:
    using TrajectoryStruck::TrajectoryStruck;

    void prepare() override {
        start_creator(writer_, "the writer");
        start_trainer(victim_, "the victim");
        begin(writer_, kWindowGroups);
        set_up();
    }
    void after_completion(const Answer& answer) override {
        accept_act(answer);
        victim_.actor.must("close");
        if (!trainer_.actor.is_started()) start_trainer(trainer_, "the next trainer");
        settle();
        everybody_leaves();
    }
    void after_death() override {
        accept_death();
        start_trainer(trainer_, "the next trainer");
        settle();
        everybody_leaves();
    }
    void while_stopped() override {
        start_trainer(trainer_, "the other trainer");
        put(writer_, writer_.begun);
        train(kBatchGroups);
        trainer_.actor.must("close");  // so that it has nothing in reserve
        trainer_.actor.must(train_line());
        // To the ledger another one: older groups may come to it after those younger ones.
        trainer_.name += ", again";
    }

protected:
    virtual void set_up() {}
    virtual void accept_act(const Answer& answer) = 0;
    virtual void accept_death() = 0;
};

}  // namespace penstock::trust

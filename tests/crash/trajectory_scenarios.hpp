// Every operation of trajectories that changes shared memory, as a scenario for the crash walk.
// What is only the queue's (creating, ending, discarding) is walked there.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/crash/trajectory_stage.hpp"

namespace penstock::trust {

// ---- a writer is struck
// ------------------------------------------------------------------------

// There is credit for one more, and the victim asks for it.
class Begin : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "begin 1 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "trajectories.begin.running"; }

    void while_stopped() override {
        if (is_window_full()) waiting_is_cheap();
        WriterStruck::while_stopped();
    }

protected:
    void set_up() override {
        start_writer(victim_, "the victim", environment_);
        begin(writer_, kHalf);
        begin(victim_, kHalf - 1);
        if (is_last_credit()) {
            start_writer(asker_, "the asker", kOurs);
        } else {
            park_asker();
        }
    }
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "no credit: " + answer.line());
        note_begun(victim_, answer);
    }
    // The asker would have it instead.
    [[nodiscard]] bool is_last_credit() const { return environment_ == kOurs; }
    // With what the victim has, or asks for.
    [[nodiscard]] virtual bool is_window_full() const {
        return is_last_credit() && point.starts_with("trajectories.begin.");
    }
};

// There is none, until another gives a rollout up.
class BeginBlocked : public Begin {
public:
    explicit BeginBlocked(std::string segment) : Begin(std::move(segment), kOurs) {}
    [[nodiscard]] std::string must_pass() const override { return "signal.announce.set"; }
    void meanwhile() override {
        victim_.actor.await_rest();
        note_begun(writer_, writer_.actor.must("release"));
    }

protected:
    void set_up() override {
        start_writer(victim_, "the victim", kOurs);
        start_writer(asker_, "the asker", kOurs);
        begin(writer_, kWindowGroups);
    }
};

// The credit is a dead one's: the victim finds that out and clears up after it.
class BeginAfterDeath : public Begin {
public:
    explicit BeginAfterDeath(std::string segment) : Begin(std::move(segment), kOurs) {}
    [[nodiscard]] std::string must_pass() const override { return "queue.janitor.cleared"; }

protected:
    void set_up() override {
        Party doomed;
        start_writer(doomed, "the doomed", kOther);
        start_writer(victim_, "the victim", kOurs);
        start_writer(asker_, "the asker", kOurs);
        begin(doomed, kHalf);
        begin(writer_, kHalf);
        kill(doomed);
    }
    [[nodiscard]] bool is_window_full() const override { return false; }
};

// A group, to a trainer that sleeps.
class Put : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "put 1 3000 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "trajectories.put.put"; }
    void while_stopped() override {
        begin_all(writer_, 0);  // on its way from the one place to the other, it is never in none
        WriterStruck::while_stopped();
    }

protected:
    void set_up() override {
        if (environment_ == kOther) {
            WriterStruck::set_up();
        } else {  // none is there that could have too much credit before the look
            start_writer(victim_, "the victim", environment_);
            start_writer(asker_, "the asker", kOurs);
            begin(writer_, kHalf);
            begin(victim_, kHalf);
        }
        park_trainer();
    }
    void accept_act(const Answer& answer) override { accept(victim_, answer); }
    void accept_death() override {
        const bool is_put = waiting() > 0;
        if (point.starts_with("trajectories.put.")) require(is_put, "the group that was put");
        ledger_.maybe_accepted(next_of(victim_));
        if (is_put) ledger_.accepted(next_of(victim_));
    }
};

// A rollout that came to nothing: its credit goes to a waiter.
class Release : public WriterStruck {
public:
    explicit Release(std::string segment) : WriterStruck(std::move(segment), kOurs) {}
    std::string act() override { return "release"; }
    [[nodiscard]] std::string must_pass() const override { return "signal.wake.cleared"; }

protected:
    void accept_act(const Answer& answer) override { note_begun(victim_, answer); }
    [[nodiscard]] bool frees_by_itself() const override { return true; }
};

// With rollouts running and a group that was not taken: that stays, and they are void.
class WriterCloses : public WriterStruck {
public:
    WriterCloses(std::string segment, std::string act)
        : WriterStruck(std::move(segment), kOther), act_(std::move(act)) {}
    std::string act() override { return act_; }
    [[nodiscard]] std::string must_pass() const override { return "queue.close.resigned"; }

protected:
    void set_up() override {
        WriterStruck::set_up();
        put(victim_, 1);
        asker_.actor.await_sleep();  // a group on its way no more may mean credit, and did not
    }
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "leaving failed: " + answer.line());
        victim_.begun = 0;
    }
    [[nodiscard]] bool frees_by_itself() const override { return true; }

private:
    std::string act_;
};

// A newcomer takes nothing from others before it asks.
class AttachWriter : public WriterStruck {
public:
    explicit AttachWriter(std::string segment) : WriterStruck(std::move(segment), kOther) {}
    std::string act() override { return write_line(kOther); }
    [[nodiscard]] std::string must_pass() const override { return "membership.join.active"; }

protected:
    void set_up() override {
        start(victim_, "the victim");
        begin(writer_, kWindowGroups);
        park_asker();
    }
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "attaching failed: " + answer.line());
    }
    void use_victim() override {
        begin(victim_, 1);
        put(victim_, 1);
    }
    [[nodiscard]] bool frees_by_death() const override { return false; }
};

// ---- a trainer is struck
// ------------------------------------------------------------------------

// Four groups are there, or come while it sleeps: all at once, or so many at a time.
class TakeBatch : public TrainerStruck {
public:
    TakeBatch(std::string segment, std::uint64_t groups_at_once, std::string must_pass)
        : TrainerStruck(std::move(segment)), groups_at_once_(groups_at_once),
          must_pass_(std::move(must_pass)) {}
    std::string act() override { return "batch 5000"; }
    [[nodiscard]] std::string must_pass() const override { return must_pass_; }
    void meanwhile() override {
        while (numbers_.size() < kBatchGroups) {
            victim_.actor.await_rest();
            victim_.actor.in_its_sleep([this] { put_some(groups_at_once_); });
        }
    }

protected:
    void set_up() override {
        if (groups_at_once_ == 0) put_some(kBatchGroups);
    }
    void accept_act(const Answer& answer) override {
        const std::vector<std::uint64_t> got = hold(victim_, answer);
        victim_.actor.must("ack 1");
        for (const std::uint64_t number : got) ledger_.acknowledged(number);
    }
    void accept_death() override {
        for (const std::uint64_t number : numbers_) ledger_.maybe_taken(number);
    }

private:
    void put_some(std::uint64_t groups) {
        const std::vector<std::uint64_t> numbers = put(writer_, groups);
        numbers_.insert(numbers_.end(), numbers.begin(), numbers.end());
    }

    std::uint64_t groups_at_once_;
    std::string must_pass_;
    std::vector<std::uint64_t> numbers_;
};

// It has a batch, the rest of the window is begun, and a writer waits for credit.
class BatchStruck : public TrainerStruck {
public:
    using TrainerStruck::TrainerStruck;

protected:
    void set_up() override {
        numbers_ = put(writer_, kBatchGroups);
        require(hold(victim_, victim_.actor.must("batch 5000")) == numbers_, "another batch");
        park_asker();
    }

    std::vector<std::uint64_t> numbers_;
};

// Group by group, the oldest first; the version before all of them.
class Acknowledge : public BatchStruck {
public:
    using BatchStruck::BatchStruck;
    std::string act() override { return "ack 1"; }
    [[nodiscard]] std::string must_pass() const override { return "trajectories.ack.group"; }
    void while_stopped() override {
        note_acknowledged();
        BatchStruck::while_stopped();
    }

protected:
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        acknowledge(kBatchGroups);
        require(look().version >= 1, "acknowledged, and the version is the old one");
    }
    void accept_death() override { note_acknowledged(); }

private:
    void acknowledge(std::uint64_t groups) {
        for (; acknowledged_ < groups; ++acknowledged_) {
            ledger_.acknowledged(numbers_[acknowledged_]);
        }
    }
    // As many as the accounts say, and no others.
    void note_acknowledged() {
        const std::uint64_t groups = kBatchGroups - waiting();
        if (point == "trajectories.ack.version") require(groups == 0, "acknowledged too early");
        if (point == "trajectories.ack.group") {
            require(std::cmp_equal(groups, occurrence), std::to_string(groups) +
                                                            " groups are acknowledged instead of " +
                                                            std::to_string(occurrence));
        }
        require(look().version == 1, "a group is acknowledged before the version");
        acknowledge(groups);
        if (groups > 0) {
            asker_is_granted(blow_at, "credit of what was acknowledged");
            begin_all(writer_, groups - 1);
        } else {
            begin_all(writer_, 0);
        }
    }

    std::uint64_t acknowledged_ = 0;
};

class GiveBack : public BatchStruck {
public:
    using BatchStruck::BatchStruck;
    std::string act() override { return "nack"; }
    [[nodiscard]] std::string must_pass() const override { return "queue.return.announced"; }

protected:
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
    }
    void accept_death() override {}
};

// Three groups make no batch. They are looked at and were never delivered, whatever becomes of the
// trainer: they don't say that they come again.
class SearchInVain : public TrainerStruck {
public:
    using TrainerStruck::TrainerStruck;
    std::string act() override { return "batch 0"; }
    [[nodiscard]] std::string must_pass() const override { return "queue.defer.returned"; }

protected:
    void set_up() override { put(writer_, kBatchGroups - 1); }
    void accept_act(const Answer& answer) override {
        require(answer.outcome == "Timeout", "a batch of three: " + answer.line());
    }
    void accept_death() override {}
};

// With groups that made no batch, as above.
class TrainerCloses : public TrainerStruck {
public:
    using TrainerStruck::TrainerStruck;
    std::string act() override { return "close"; }
    [[nodiscard]] std::string must_pass() const override { return "queue.close.resigned"; }

protected:
    void set_up() override {
        put(writer_, kBatchGroups - 1);
        const Answer answer = victim_.actor.ask("batch 0");
        require(answer.outcome == "Timeout", "a batch of three: " + answer.line());
    }
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "leaving failed: " + answer.line());
    }
    void accept_death() override {}
};

// With a batch in hand: it comes again.
class TrainerDeparts : public BatchStruck {
public:
    using BatchStruck::BatchStruck;
    std::string act() override { return "depart"; }
    [[nodiscard]] std::string must_pass() const override { return "queue.janitor.cleared"; }

protected:
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "departing failed: " + answer.line());
        const std::uint64_t version = look().version;
        victim_.actor.must("ack 1000");
        require(look().version == version, "one that has left acknowledged");
    }
    void accept_death() override {}
};

// The first trainer: before it there is no credit.
class AttachTrainer : public TrainerStruck {
public:
    using TrainerStruck::TrainerStruck;
    std::string act() override { return train_line(); }
    [[nodiscard]] std::string must_pass() const override { return "membership.join.active"; }

    void prepare() override {
        start_creator(writer_, "the writer");
        start(victim_, "the victim");
        park_asker();
    }
    void while_stopped() override { another_comes(); }
    void after_death() override {
        another_comes();
        settle();
        everybody_leaves();
    }

protected:
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "attaching failed: " + answer.line());
        asker_is_granted(0, "credit by a trainer");
    }
    void accept_death() override {}

private:
    void another_comes() {
        const std::int64_t since = os::monotonic_ns();
        start_trainer(trainer_, "the other trainer");
        asker_is_granted(since, "credit by a trainer");
    }
};

template <typename Kind, typename... Rest>
Operation trajectory_operation(const std::string& name, const Rest&... rest) {
    return {name, [rest...](const std::string& segment) {
                return std::make_unique<Kind>(segment, rest...);
            }};
}

inline std::vector<Operation> trajectory_operations() {
    using Text = std::string;
    return {
        trajectory_operation<AttachWriter>("attach a writer"),
        trajectory_operation<AttachTrainer>("attach a trainer"),
        trajectory_operation<Begin>("begin", Text("struck")),
        trajectory_operation<Begin>("begin with the last credit", Text("steady")),
        trajectory_operation<BeginBlocked>("begin blocked"),
        trajectory_operation<BeginAfterDeath>("begin after a death"),
        trajectory_operation<Release>("release"),
        trajectory_operation<Put>("put", Text("struck")),
        trajectory_operation<Put>("put beside a namesake", Text("steady")),
        trajectory_operation<TakeBatch>("next batch", 0U, Text("queue.take.taken")),
        trajectory_operation<TakeBatch>("next batch parked", 4U, Text("signal.announce.set")),
        trajectory_operation<TakeBatch>("next batch in parts", 2U, Text("queue.return.announced")),
        trajectory_operation<SearchInVain>("next batch in vain"),
        trajectory_operation<Acknowledge>("ack"),
        trajectory_operation<GiveBack>("give back"),
        trajectory_operation<WriterCloses>("writer closes", Text("close")),
        trajectory_operation<WriterCloses>("writer departs", Text("depart")),
        trajectory_operation<TrainerCloses>("trainer closes"),
        trajectory_operation<TrainerDeparts>("trainer departs"),
    };
}

}  // namespace penstock::trust

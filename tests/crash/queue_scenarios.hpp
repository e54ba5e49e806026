// Every operation of a Queue that changes shared memory, as a scenario for the crash walk.
// The victim, what the others have done before, and what they do meanwhile.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/crash/queue_life_scenarios.hpp"
#include "tests/crash/queue_stage.hpp"

namespace penstock::trust {

// ---- a producer is struck
// ------------------------------------------------------------------------

// Any act that puts what is under way to a consumer that sleeps.
class Put : public ProducerStruck {
public:
    Put(std::string segment, std::string act, std::uint64_t under_way)
        : ProducerStruck(std::move(segment)), act_(std::move(act)) {
        under_way_ = under_way;
    }
    std::string act() override { return act_; }

private:
    std::string act_;
};

// In the second lap, where the first message is still taken: its slot is passed by.
class PutPastTaken : public ProducerStruck {
public:
    using ProducerStruck::ProducerStruck;
    std::string act() override { return "put 1 100 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "queue.claim.passed"; }

protected:
    void set_up() override {
        start_member(holder_, "the holder");
        accept(producer_, producer_.actor.must("put 1 10000 5000"));
        held_ = ledger_.held(holder_.name, holder_.actor.must("hold 5000"));
        accept(producer_, producer_.actor.must("put " + std::to_string(kSlots - 1) + " 100 5000"));
        receive(consumer_, consumer_.actor.must("recv " + std::to_string(kSlots - 1) + " 5000"));
    }
    void tidy_up() override {
        holder_.actor.must("recheck");
        holder_.actor.must("ack");
        ledger_.acknowledged(held_);
        holder_.actor.must("close");
    }

private:
    Party holder_;
    std::uint64_t held_ = 0;
};

// No room: the consumer starts when the producer sleeps.
class PutBlocked : public ProducerStruck {
public:
    PutBlocked(std::string segment, std::string full, std::string act)
        : ProducerStruck(std::move(segment)), full_(std::move(full)), act_(std::move(act)) {
        is_parked_ = false;
    }
    std::string act() override { return act_; }
    [[nodiscard]] std::string must_pass() const override { return "signal.announce.set"; }
    void meanwhile() override {
        victim().await_rest();
        consumer_.actor.tell("recv 1 10000");
        is_parked_ = true;
    }

protected:
    void set_up() override { accept(producer_, producer_.actor.must(full_)); }

private:
    std::string full_;
    std::string act_;
};

// It was stopped before it could publish; others have passed it by; now it goes on, and is struck.
class PutOvertaken : public ProducerStruck {
public:
    PutOvertaken(std::string segment, std::string size, std::string must_pass)
        : ProducerStruck(std::move(segment)), size_(std::move(size)),
          must_pass_(std::move(must_pass)) {}
    std::string act() override { return "put-overtaken " + size_ + " 5000"; }
    [[nodiscard]] std::string must_pass() const override { return must_pass_; }
    void meanwhile() override {
        Process& process = victim().process();
        require(await(kPatience, [&process] { return process.is_stopped(); }),
                "the victim never came to where it is overtaken");
        accept(producer_, producer_.actor.must("put 1 100 5000"));
        receive(consumer_, consumer_.actor.answer());
        park_consumer();
        process.resume();
    }

private:
    std::string size_;
    std::string must_pass_;
};

// Two seconds after the last block was freed its memory goes back to the system.
class TrimWhenIdle : public ProducerStruck {
public:
    using ProducerStruck::ProducerStruck;
    std::string act() override { return "recv 1 0"; }
    [[nodiscard]] std::string must_pass() const override { return "arena.trim.punched"; }
    [[nodiscard]] bool is_about(const std::string& name) const override {
        return name.starts_with("arena.");
    }

protected:
    void set_up() override {
        accept(victim_, victim_.actor.must("put 1 10000 5000"));
        receive(victim_, victim_.actor.must("recv 1 5000"));
        const auto idle_until = SteadyClock::now() + Milliseconds(2050);
        await(Milliseconds(4000), [&] { return SteadyClock::now() >= idle_until; });
    }
    void accept_act(const Answer& answer) override {
        require(answer.outcome == "Timeout" || answer.is_ok(), "the act: " + answer.line());
        ledger_.received(victim_.name, answer);
    }
};

// ---- a consumer is struck
// ------------------------------------------------------------------------

// One of two that wait: taken and acknowledged, or copied out.
class Take : public ConsumerStruck {
public:
    Take(std::string segment, std::string size, std::string act)
        : ConsumerStruck(std::move(segment)), size_(std::move(size)), act_(std::move(act)) {
        is_parked_ = false;
    }
    std::string act() override { return act_; }

protected:
    void set_up() override {
        in_hand_ = put_one(size_);
        put_one(kSmall);
    }
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        if (answer.number("copied") < 0) return receive(victim_, answer);
        require(std::cmp_equal(answer.number("copied"), in_hand_), "got another message");
        ledger_.acknowledged(in_hand_);
    }

private:
    std::string size_;
    std::string act_;
};

// Of what it has held for a while. The consumer sleeps.
class Acknowledge : public ConsumerStruck {
public:
    Acknowledge(std::string segment, std::string size)
        : ConsumerStruck(std::move(segment)), size_(std::move(size)) {}
    std::string act() override { return "ack"; }

protected:
    void set_up() override { hand_over(size_); }
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        ledger_.acknowledged(in_hand_);
    }

private:
    std::string size_;
};

// All slots are taken, and a producer sleeps until there is room.
class AcknowledgeAndWake : public Acknowledge {
public:
    explicit AcknowledgeAndWake(std::string segment) : Acknowledge(std::move(segment), kSmall) {
        is_parked_ = false;
    }
    [[nodiscard]] std::string must_pass() const override { return "signal.wake.cleared"; }
    void after_death() override {
        check_room_is_noticed();
        ConsumerStruck::after_death();
    }
    void while_stopped() override {
        check_room_is_noticed();
        ConsumerStruck::while_stopped();
    }

protected:
    void set_up() override {
        Acknowledge::set_up();
        const std::string others = std::to_string(kSlots - 1);
        accept(producer_, producer_.actor.must("put " + others + " 100 5000"));
        for (std::uint64_t i = 1; i < kSlots; ++i) {
            rest_.push_back(ledger_.held(victim_.name, victim_.actor.must("hold 5000")));
        }
        start_member(blocked_, "the blocked producer");
        blocked_.actor.park("put 1 100 10000");
    }
    void after_act() override {
        for (const std::uint64_t number : rest_) {
            victim_.actor.must("ack");
            ledger_.acknowledged(number);
        }
    }
    void tidy_up() override {
        if (!is_unblocked_) accept(blocked_, blocked_.actor.answer());
        blocked_.actor.must("close");
    }

private:
    // Every point of this comes after the slot was freed.
    void check_room_is_noticed() {
        const Answer put = blocked_.actor.answer();
        notice(blow_at, put, "noticing room");
        accept(blocked_, put);
        is_unblocked_ = true;
    }

    Party blocked_;
    std::vector<std::uint64_t> rest_;  // that it holds and goes on holding
    bool is_unblocked_ = false;
};

// Returned by hand: it is delivered again. The consumer sleeps.
class GiveBack : public ConsumerStruck {
public:
    GiveBack(std::string segment, std::string size)
        : ConsumerStruck(std::move(segment)), size_(std::move(size)) {
        is_acknowledging_ = false;
    }
    std::string act() override { return "nack"; }
    [[nodiscard]] std::string must_pass() const override { return "queue.return.announced"; }

protected:
    void set_up() override { hand_over(size_); }

private:
    std::string size_;
};

class TakeAndGiveBack : public ConsumerStruck {
public:
    explicit TakeAndGiveBack(std::string segment) : ConsumerStruck(std::move(segment)) {
        is_parked_ = false;
        is_acknowledging_ = false;
    }
    std::string act() override { return "take-nack 5000"; }
    void while_stopped() override {
        ledger_.maybe_taken(in_hand_);  // it may have given it back by now
        ConsumerStruck::while_stopped();
    }

protected:
    void set_up() override { in_hand_ = put_one(kLarge); }
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        require(QueueLedger::names(answer, in_hand_), "took another message: " + answer.line());
        ledger_.maybe_taken(in_hand_);
    }
    void accept_death() override { ledger_.taken(in_hand_); }
};

// A message given back comes before what has waited longer.
class TakeReturned : public ConsumerStruck {
public:
    explicit TakeReturned(std::string segment) : ConsumerStruck(std::move(segment)) {
        is_parked_ = false;
    }
    std::string act() override { return "recv 1 5000"; }

protected:
    void set_up() override {
        hand_over(kLarge);
        put_one(kSmall);
        victim_.actor.must("nack");
    }
    void accept_act(const Answer& answer) override {
        require(QueueLedger::names(answer, in_hand_), "not the returned one: " + answer.line());
        ConsumerStruck::accept_act(answer);
    }
};

// A message that comes while it sleeps.
class TakeParked : public ConsumerStruck {
public:
    explicit TakeParked(std::string segment) : ConsumerStruck(std::move(segment)) {
        is_parked_ = false;
    }
    std::string act() override { return "recv 1 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "signal.announce.set"; }
    void meanwhile() override {
        victim().await_rest();
        in_hand_ = put_one(kSmall);
    }
    // Stopped before it slept, it finds its message taken by the consumer, and this one later.
    void while_stopped() override {
        ConsumerStruck::while_stopped();
        if (point == "signal.announce.set") put_one(kSmall);
    }
};

// A producer stands still in the slot that is next: it is passed by.
class TakeOvertaking : public ConsumerStruck {
public:
    explicit TakeOvertaking(std::string segment) : ConsumerStruck(std::move(segment)) {
        is_parked_ = false;
    }
    std::string act() override { return "recv 1 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "queue.take.overtaken"; }
    // Stopped here, it finds its message taken by the consumer, and this one later.
    void while_stopped() override {
        ConsumerStruck::while_stopped();
        if (point == "queue.take.overtaken") put_one(kSmall);
    }

protected:
    void set_up() override {
        start_member(slow_, "the slow producer");
        slow_.actor.must("arm queue.put.written:1:stop");
        slow_.actor.tell("put 1 10000 5000");
        require(await(kPatience, [this] { return slow_.actor.process().is_stopped(); }),
                "the slow producer never stopped");
        in_hand_ = put_one(kSmall);
    }
    void tidy_up() override {
        slow_.actor.process().resume();
        accept(slow_, slow_.actor.answer());
        slow_.actor.must("close");
    }

private:
    Party slow_;
};

// Three at once. Two of them may come while it waits in line for all three.
class TakeWhole : public ConsumerStruck {
public:
    TakeWhole(std::string segment, std::uint64_t there, std::string must_pass)
        : ConsumerStruck(std::move(segment)), there_(there), must_pass_(std::move(must_pass)) {
        is_parked_ = false;
    }
    std::string act() override { return "take-whole 3 10000"; }
    [[nodiscard]] std::string must_pass() const override { return must_pass_; }
    void meanwhile() override {
        if (there_ == kWanted) return;
        victim().await_rest();
        victim().in_its_sleep([this] { put_until(kWanted); });
    }
    // The consumer goes first when the victim has given no sign of life for a while; then there are
    // three more for it.
    void while_stopped() override {
        has_flowed_ = true;
        put_one(kSmall);
        receive(consumer_, consumer_.actor.must("recv 1 5000"));
        for (std::uint64_t i = 0; i < kWanted; ++i) put_one(kSmall);
    }

protected:
    static constexpr std::uint64_t kWanted = 3;

    void set_up() override { put_until(there_); }
    void put_until(std::uint64_t count) {
        while (numbers_.size() < count) {
            numbers_.push_back(put_one(numbers_.empty() ? kLarge : kSmall));
        }
    }
    void accept_death() override {
        for (const std::uint64_t number : numbers_) {
            ledger_.maybe_taken(number);
            ledger_.maybe_acknowledged(number);
        }
    }
    bool comes_by_itself() override { return false; }

private:
    std::uint64_t there_;
    std::string must_pass_;
    std::vector<std::uint64_t> numbers_;
};

// The first in line stands still: the victim finds that it gives no sign of life, and passes it.
class PassStopped : public ConsumerStruck {
public:
    explicit PassStopped(std::string segment) : ConsumerStruck(std::move(segment)) {
        is_parked_ = false;
    }
    std::string act() override { return "recv 1 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "queue.line.passed"; }
    void after_death() override {
        kill(first_);
        ConsumerStruck::after_death();
    }
    void while_stopped() override {
        has_flowed_ = true;
        kill(first_);
        put_one(kSmall);
        receive(consumer_, consumer_.actor.must("recv 1 5000"));
        put_one(kSmall);
    }

protected:
    void set_up() override {
        start_member(first_, "the first in line");
        first_.actor.park("take-whole 3 60000");
        first_.actor.process().stop();
        require(await(kPatience, [this] { return first_.actor.process().is_stopped(); }),
                "the first in line never stopped");
        in_hand_ = put_one(kSmall);
    }
    void after_act() override { kill(first_); }
    void accept_death() override {
        ledger_.maybe_taken(in_hand_);
        ledger_.maybe_acknowledged(in_hand_);
    }
    bool comes_by_itself() override { return false; }

private:
    Party first_;
};

// ---- clearing up after the dead
// ------------------------------------------------------------------

// A participant died in mid-operation; the victim looks for a message and finds it dead.
class ReapDead : public ConsumerStruck {
public:
    // The doomed one does `before`, then dies at `blow` of `last`, or where it stands if none.
    struct Death {
        std::vector<std::string> before;
        std::string blow = {};
        std::string last = {};
        unsigned holds = 0;      // messages that it has taken
        bool is_acking = false;  // and of which it was acknowledging the first
    };
    ReapDead(std::string segment, Death death)
        : ConsumerStruck(std::move(segment)), death_(std::move(death)) {
        is_parked_ = false;
        is_acknowledging_ = false;
    }
    std::string act() override { return "hold 0"; }
    [[nodiscard]] std::string must_pass() const override { return "membership.reap.locked"; }

protected:
    void set_up() override {
        start_member(doomed_, "the doomed");
        for (unsigned i = 0; i < death_.holds; ++i) put_one(i == 0 ? kLarge : kSmall);
        for (const std::string& line : death_.before) obey(line);
        if (death_.blow.empty()) return kill(doomed_);
        doomed_.actor.must("arm " + death_.blow + ":1:kill");
        doomed_.actor.tell(death_.last);
        await_death(doomed_);
        ledger_.maybe_accepted(next_of(doomed_));
    }
    void obey(const std::string& line) {
        const Answer answer = doomed_.actor.must(line);
        if (!line.starts_with("hold")) return;
        const std::uint64_t number = ledger_.held(doomed_.name, answer);
        if (death_.is_acking && in_hand_ == 0) {
            ledger_.acknowledged(in_hand_ = number);
        } else {
            ++due_back_;
        }
    }
    void accept_act(const Answer& answer) override {
        if (due_back_ == 0 || has_flowed_) {
            require(answer.is_ok() || answer.outcome == "Timeout", "the act: " + answer.line());
        } else {
            require(answer.is_ok(), "what the dead one held is not there: " + answer.line());
        }
        if (!answer.is_ok()) return;
        const std::uint64_t held = ledger_.held(victim_.name, answer);
        victim_.actor.must("ack");
        ledger_.acknowledged(held);
    }
    void accept_death() override {}
    bool comes_by_itself() override { return is_dead_ && due_back_ > 0; }
    void tidy_up() override {
        drain(consumer_, "Timeout");
        require(look().stats.deaths >= 1, "no death was counted");
    }

private:
    Death death_;
    Party doomed_;
    unsigned due_back_ = 0;
};

// The dead one waited in line. While its janitor stands still it can't be cleared, and is passed as
// one that gives no sign of life: that takes longer than to notice a death.
class ReapInLine : public ReapDead {
public:
    explicit ReapInLine(std::string segment)
        : ReapDead(
              std::move(segment),
              Death{.before = {}, .blow = "queue.line.announced", .last = "take-whole 3 5000"}) {}
    void while_stopped() override {
        has_flowed_ = true;
        put_one(kSmall);
        receive(consumer_, consumer_.actor.must("recv 1 5000"));
    }
};

// The place of a dead one, whose messages must come back.
class AttachAfterDeath : public QueueStruck {
public:
    explicit AttachAfterDeath(std::string segment) : QueueStruck(std::move(segment)) {
        is_parked_ = false;
    }
    void prepare() override {
        start_creator(producer_, "the producer");
        start_member(doomed_, "the doomed");
        start_member(consumer_, "the consumer");
        start(victim_, "the victim");
        for (const char* size : {kLarge, kSmall}) {
            accept(producer_, producer_.actor.must(std::string("put 1 ") + size + " 5000"));
            ledger_.held(doomed_.name, doomed_.actor.must("hold 5000"));
        }
        doomed_.actor.must("loan 20000 5000");
        kill(doomed_);
    }
    std::string act() override { return "attach " + segment_ + " any 1000"; }
    [[nodiscard]] std::string must_pass() const override { return "queue.janitor.cleared"; }

protected:
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "attaching failed: " + answer.line());
    }
    void accept_death() override {}
    bool comes_by_itself() override { return is_dead_; }

private:
    Party doomed_;
};

// A fresh place.
class Attach : public QueueStruck {
public:
    Attach(std::string segment, std::string role)
        : QueueStruck(std::move(segment)), role_(std::move(role)) {}
    void prepare() override {
        start_creator(producer_, "the producer");
        start_member(consumer_, "the consumer");
        start(victim_, "the victim");
        park_consumer();
    }
    std::string act() override { return "attach " + segment_ + " " + role_ + " 1000"; }

protected:
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "attaching failed: " + answer.line());
    }
    void accept_death() override {
        Party next;
        start_member(next, "the replacement", role_);
        next.actor.must("close");
        if (look().stats.closed) throw Broken("a death, or a consumer's close, ended the stream");
    }

private:
    std::string role_;
};

template <typename Kind, typename... Rest>
Operation queue_operation(const std::string& name, const Rest&... rest) {
    return {name, [rest...](const std::string& segment) {
                return std::make_unique<Kind>(segment, rest...);
            }};
}

inline std::vector<Operation> queue_operations() {
    using Text = std::string;
    const Text put_one = "put 1 100 5000";
    const Text put_block = "put 1 10000 5000";
    const Text recv_one = "recv 1 5000";
    return {
        queue_operation<CreateQueue>("create", false),
        queue_operation<CreateQueue>("create over the dead", true),
        queue_operation<Attach>("attach", Text("any")),
        queue_operation<AttachAfterDeath>("attach after a death"),
        queue_operation<Put>("put inline", put_one, std::uint64_t{1}),
        queue_operation<Put>("put in a block", put_block, std::uint64_t{1}),
        queue_operation<Put>("put many", Text("put-many 3 100 5000"), std::uint64_t{3}),
        queue_operation<PutPastTaken>("put past a taken slot"),
        queue_operation<PutBlocked>("put blocked", Text("put 8 100 5000"), put_one),
        queue_operation<PutBlocked>("put blocked for bytes", Text("put 2 400000 5000"),
                                    Text("put 1 400000 5000")),
        queue_operation<PutOvertaken>("put overtaken", Text("100"), Text("queue.put.abandoned")),
        queue_operation<PutOvertaken>("put overtaken with a block", Text("10000"),
                                      Text("queue.put.taken_back")),
        queue_operation<Put>("loan and commit", Text("loan-commit 10000 5000"), std::uint64_t{1}),
        queue_operation<Put>("loan and drop", Text("loan-drop 10000 5000"), std::uint64_t{0}),
        queue_operation<TrimWhenIdle>("trim when idle"),
        queue_operation<Take>("take and ack", Text("100"), recv_one),
        queue_operation<Take>("take and ack a block", Text("10000"), recv_one),
        queue_operation<Take>("get", Text("100"), Text("get 5000")),
        queue_operation<Take>("get from a block", Text("4000"), Text("get 5000")),
        queue_operation<Acknowledge>("ack", Text("100")),
        queue_operation<Acknowledge>("ack a block", Text("10000")),
        queue_operation<AcknowledgeAndWake>("ack and wake a producer"),
        queue_operation<GiveBack>("give back", Text("100")),
        queue_operation<GiveBack>("give back a block", Text("10000")),
        queue_operation<TakeAndGiveBack>("take and give back"),
        queue_operation<TakeReturned>("take what was returned"),
        queue_operation<TakeParked>("take parked"),
        queue_operation<TakeOvertaking>("take overtaking"),
        queue_operation<ReapDead>(
            "reap a dead consumer",
            ReapDead::Death{.before = {"hold 5000", "hold 5000"}, .holds = 2}),
        queue_operation<ReapDead>("reap one dead in ack", ReapDead::Death{.before = {"hold 5000"},
                                                                          .blow = "queue.ack.done",
                                                                          .last = "ack",
                                                                          .holds = 1,
                                                                          .is_acking = true}),
        queue_operation<ReapDead>("reap one dead in nack",
                                  ReapDead::Death{.before = {"hold 5000"},
                                                  .blow = "queue.return.returned",
                                                  .last = "nack",
                                                  .holds = 1}),
        queue_operation<ReapDead>(
            "reap one dead in put",
            ReapDead::Death{.before = {}, .blow = "queue.put.named", .last = put_block}),
        queue_operation<TakeWhole>("take whole", std::uint64_t{3}, Text("queue.take.taken")),
        queue_operation<TakeWhole>("take whole after a wait in line", std::uint64_t{1},
                                   Text("queue.line.announced")),
        queue_operation<PassStopped>("pass a stopped request"),
        queue_operation<ReapInLine>("reap one dead in line"),
        queue_operation<ReapDead>("reap a dead lender",
                                  ReapDead::Death{.before = {"loan 20000 5000"}}),
        queue_operation<Closing>("creator closes", Closing::Who::Creator, Text("close")),
        queue_operation<Closing>("creator closes a queue with messages",
                                 Closing::Who::CreatorWithMessages, Text("close")),
        queue_operation<Closing>("last producer closes", Closing::Who::LastProducer, Text("close")),
        queue_operation<Closing>("creator departs", Closing::Who::Creator, Text("depart")),
        queue_operation<Closing>("creator departs from a queue with messages",
                                 Closing::Who::CreatorWithMessages, Text("depart")),
        queue_operation<Closing>("last producer departs", Closing::Who::LastProducer,
                                 Text("depart")),
        queue_operation<Closing>("end", Closing::Who::Member, Text("end")),
        queue_operation<EndWhileBlocked>("end a full queue", Text("put 8 100 5000"),
                                         Text("put 1 100 2000")),
        queue_operation<EndWhileBlocked>("end while one waits for bytes", Text("put 2 400000 5000"),
                                         Text("put 1 400000 2000")),
        queue_operation<ConsumerCloses>("consumer closes", false),
        queue_operation<ConsumerCloses>("consumer closes and acks later", true),
        queue_operation<ConsumerDeparts>("consumer departs"),
        queue_operation<LeaveLast>("last one leaves nothing", false, Text("close")),
        queue_operation<LeaveLast>("last one leaves messages", true, Text("close")),
        queue_operation<LeaveLast>("last one departs", false, Text("depart")),
        queue_operation<LeaveLast>("last one departs from messages", true, Text("depart")),
        queue_operation<LeaveBeside>("leave beside another"),
        queue_operation<ProducerCloses>("producer closes the creator's stream", Text("close")),
        queue_operation<ProducerCloses>("producer departs from the creator's stream",
                                        Text("depart")),
        queue_operation<MoveDeadLetters>("requeue dead letters", Text("requeue")),
        queue_operation<MoveDeadLetters>("drop dead letters", Text("drop")),
        queue_operation<Discard>("discard"),
        queue_operation<RemoveQueue>("remove abandoned"),
        queue_operation<Inspect>("inspect"),
    };
}

}  // namespace penstock::trust

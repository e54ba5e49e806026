// The life of a Queue as scenarios for the crash walk: created, ended, left, discarded, removed.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "tests/crash/queue_stage.hpp"

namespace penstock::trust {

// No participant may keep another from creating or attaching for longer.
class Promptly {
public:
    explicit Promptly(std::string what) : what_(std::move(what)), begun_(os::monotonic_ns()) {}
    void check() const {
        require(os::monotonic_ns() - begun_ < 2'000'000'000, what_ + " hung for 2 s");
    }

private:
    std::string what_;
    std::int64_t begun_;
};

// Creating, with nothing of that name there, or with what the dead left.
class CreateQueue : public QueueCast {
public:
    CreateQueue(std::string segment, bool is_replacing)
        : QueueCast(std::move(segment)), is_replacing_(is_replacing) {}

    void prepare() override {
        if (is_replacing_) leave_a_wreck();
        start(victim_, "the victim");
    }
    Actor& victim() override { return victim_.actor; }
    std::string act() override { return "create " + segment_ + kShape; }

    void after_completion(const Answer& answer) override {
        if (has_outsider_) {  // another process took the name while we stood still
            require(answer.outcome == "AlreadyExists", "two of one name: " + answer.line());
            return use(outsider_);
        }
        require(answer.is_ok(), "creating failed: " + answer.line());
        use(victim_);
    }
    void after_death() override {
        attach_and_leave();
        start_over();
    }
    void while_stopped() override {
        const bool is_there = attach_and_leave();
        const Promptly promptly("a second create");
        start(outsider_, "the outsider");
        const Answer created = outsider_.actor.ask(act());
        promptly.check();
        has_outsider_ = created.is_ok();
        require(created.is_ok() || created.outcome == "AlreadyExists",
                "a second create: " + created.line());
        const bool is_ours = is_there && point == "segment.create.published";
        require(!is_ours || !has_outsider_, "two queues of one name");
    }

private:
    void leave_a_wreck() {
        Party creator;
        Party member;
        start_creator(creator, "the creator");
        start_member(member, "the member");
        creator.actor.must("put 3 10000 5000");
        member.actor.must("hold 5000");
        kill(creator);
        kill(member);
    }
    // An attach now finds nothing, or a queue that works. Says whether there was one.
    bool attach_and_leave() {
        Party visitor;
        start(visitor, "a visitor");
        const Promptly promptly("attaching");
        const Answer attached = visitor.actor.ask("attach " + segment_ + " any 0");
        promptly.check();
        require(attached.is_ok() || attached.outcome == "NotFound" || attached.outcome == "Busy",
                "attaching during a create: " + attached.line());
        if (!attached.is_ok()) return false;
        const Answer drained = visitor.actor.ask("drain 0");  // of the dead, perhaps
        require(drained.outcome == "Timeout", "draining: " + drained.line());
        visitor.actor.must("close");
        return true;
    }
    void use(Party& owner) {
        start_member(consumer_, "the consumer");
        accept(owner, owner.actor.must("put 3 10000 5000"));
        receive(consumer_, consumer_.actor.must("recv 3 5000"));
        ledger_.check_complete();
        check_nothing_is_held();
        owner.actor.must("close");
        drain(consumer_, "Closed", 5000);
        consumer_.actor.must("close");
        check_name_is_free();
        start_over();
    }

    bool is_replacing_;
    bool has_outsider_ = false;
    Party outsider_;
};

// The stream is ended by one that may; dead before saying so, it has not ended it.
class Closing : public QueueCast {
public:
    enum class Who { Creator, CreatorWithMessages, LastProducer, Member };
    Closing(std::string segment, Who who, std::string act)
        : QueueCast(std::move(segment)), who_(who), act_(std::move(act)) {}

    void prepare() override {
        const bool is_creator = who_ == Who::Creator || who_ == Who::CreatorWithMessages;
        if (is_creator) start_creator(victim_, "the victim");
        if (is_creator) start_member(producer_, "the producer");
        if (!is_creator) start_creator(producer_, "the producer", "0 last_producer");
        start_member(consumer_, "the consumer");
        if (!is_creator) start_member(victim_, "the victim", "producer");
        if (who_ == Who::LastProducer) {
            accept(victim_, victim_.actor.must("put 1 10000 5000"));
            receive(consumer_, consumer_.actor.must("recv 1 5000"));
        }
        if (who_ == Who::CreatorWithMessages) {
            accept(producer_, producer_.actor.must("put 2 10000 5000"));
        } else {
            consumer_.actor.park("recv 1 10000");
        }
    }
    Actor& victim() override { return victim_.actor; }
    std::string act() override { return act_; }
    [[nodiscard]] std::string must_pass() const override { return "queue.end.marked"; }

    void after_completion(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        if (!is_checked_) check_stream(true);
        // A producer that put while the last one stood still is the last one now.
        const bool is_over = !has_successor_ || who_ != Who::LastProducer;
        require(look().stats.closed == is_over, "the stream should have ended, or not");
        victim_.actor.must("close");
        finish();
    }
    void after_death() override {
        check_stream(point != "queue.close.resigned");
        finish();
    }
    void while_stopped() override { check_stream(point != "queue.close.resigned"); }

private:
    void check_stream(bool is_over) {
        is_checked_ = true;
        require(look().stats.closed == is_over,
                is_over ? "the stream has not ended" : "the stream ended too soon");
        if (is_over) {
            check_end();
        } else {
            check_going_on();
        }
    }
    void check_end() {
        if (who_ == Who::CreatorWithMessages) {
            drain(consumer_, "Closed", 5000);
        } else {
            const Answer parked = consumer_.actor.answer();
            require(parked.outcome == "Closed", "a parked consumer: " + parked.line());
            if (blow_at != 0) noticed_after(parked.number("t") - blow_at, "the end of the stream");
        }
        const Answer put = producer_.actor.ask("put 1 100 5000");
        require(put.outcome == "Closed", "put after the end: " + put.line());
    }
    void check_going_on() {
        has_successor_ = true;
        accept(producer_, producer_.actor.must("put 1 10000 5000"));
        receive(consumer_, who_ == Who::CreatorWithMessages ? consumer_.actor.ask("recv 3 5000")
                                                            : consumer_.actor.answer());
    }
    void finish() {
        producer_.actor.must("end");
        drain(consumer_, "Closed", 5000);
        ledger_.check_complete();
        check_nothing_is_held();
        everybody_leaves();
    }

    Who who_;
    std::string act_;
    bool is_checked_ = false;
    bool has_successor_ = false;
};

// The same while a producer waits for room, slots or bytes: it is told that none will come.
class EndWhileBlocked : public QueueCast {
public:
    EndWhileBlocked(std::string segment, std::string full, std::string blocked)
        : QueueCast(std::move(segment)), full_(std::move(full)), blocked_act_(std::move(blocked)) {}

    void prepare() override {
        start_creator(producer_, "the producer");
        start_member(consumer_, "the consumer");
        start_member(victim_, "the victim");
        start_member(blocked_, "the blocked producer");
        accept(producer_, producer_.actor.must(full_));
        blocked_.actor.park(blocked_act_);
    }
    Actor& victim() override { return victim_.actor; }
    std::string act() override { return "end"; }
    [[nodiscard]] std::string must_pass() const override { return "queue.end.marked"; }

    void after_completion(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        if (!is_told_) check_told();
        victim_.actor.must("close");
        finish();
    }
    void after_death() override {
        check_told();
        finish();
    }
    void while_stopped() override { check_told(); }

private:
    void check_told() {
        is_told_ = true;
        const Answer put = blocked_.actor.answer();
        require(put.outcome == "Closed", "a producer waiting for room: " + put.line());
        if (blow_at != 0) noticed_after(put.number("t") - blow_at, "the end, to the blocked one,");
    }
    void finish() {
        blocked_.actor.must("close");
        drain(consumer_, "Closed", 5000);
        ledger_.check_complete();
        check_nothing_is_held();
        everybody_leaves();
    }

    std::string full_;
    std::string blocked_act_;
    Party blocked_;
    bool is_told_ = false;
};

// A consumer's going ends nothing. With a delivery in its hands it goes when that is acknowledged.
class ConsumerCloses : public ConsumerStruck {
public:
    ConsumerCloses(std::string segment, bool has_delivery)
        : ConsumerStruck(std::move(segment)), has_delivery_(has_delivery) {}
    std::string act() override { return has_delivery_ ? "ack" : "close"; }

protected:
    void set_up() override {
        if (!has_delivery_) return;
        hand_over(kLarge);
        victim_.actor.must("close");
        victim_.actor.must("recheck");
    }
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        if (has_delivery_) ledger_.acknowledged(in_hand_);
    }
    void accept_death() override {
        if (has_delivery_) ledger_.acknowledged(in_hand_);
    }
    void check_victim_works() override {}
    void tidy_up() override {
        require(!look().stats.closed, "a consumer's going ended the stream");
    }

private:
    bool has_delivery_;
};

// It departs with a delivery in its hands and a loan open: both are the queue's again.
class ConsumerDeparts : public ConsumerStruck {
public:
    explicit ConsumerDeparts(std::string segment) : ConsumerStruck(std::move(segment)) {
        is_acknowledging_ = false;
    }
    std::string act() override { return "depart"; }
    [[nodiscard]] std::string must_pass() const override { return "queue.janitor.reaped"; }

protected:
    void set_up() override {
        hand_over(kLarge);
        victim_.actor.must("loan 20000 5000");
    }
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        ledger_.taken(in_hand_);
        is_dead_ = true;  // to the others
        victim_.actor.must("recheck");
        victim_.actor.must("ack");
    }
    void check_victim_works() override {}
    void tidy_up() override {
        require(!look().stats.closed, "a consumer's going ended the stream");
    }
};

// The last one to leave removes the name, unless there are messages: they wait for a newcomer.
class LeaveLast : public QueueCast {
public:
    LeaveLast(std::string segment, bool has_messages, std::string act)
        : QueueCast(std::move(segment)), has_messages_(has_messages), act_(std::move(act)) {}

    void prepare() override {
        start_creator(victim_, "the victim");
        if (has_messages_) accept(victim_, victim_.actor.must("put 2 10000 5000"));
    }
    Actor& victim() override { return victim_.actor; }
    std::string act() override { return act_; }

    void after_completion(const Answer& answer) override {
        require(answer.is_ok(), "leaving failed: " + answer.line());
        if (!is_visited_) visit();
        finish();
    }
    void after_death() override {
        visit();
        finish();
    }
    void while_stopped() override { visit(); }

private:
    void visit() {
        is_visited_ = true;
        start(consumer_, "the heir");
        const Promptly promptly("attaching");
        const Answer attached = consumer_.actor.ask("attach " + segment_ + " any 0");
        promptly.check();
        if (!attached.is_ok()) {
            const bool is_excused = attached.outcome == "NotFound" || attached.outcome == "Busy";
            require(is_excused && !has_messages_, "attaching meanwhile: " + attached.line());
            return;
        }
        const Answer drained = consumer_.actor.ask("drain 0");
        require(drained.outcome == (look().stats.closed ? "Closed" : "Timeout"),
                "the heir ended with " + drained.line());
        ledger_.received(consumer_.name, drained);
        ledger_.check_complete();
        check_nothing_is_held();
        consumer_.actor.must("close");
    }
    // A dead one's empty queue may be there still: it is in no one's way.
    void finish() {
        if (has_messages_) check_name_is_free();
        start_over();
    }

    bool has_messages_;
    std::string act_;
    bool is_visited_ = false;
};

// Two leave at the same time, the one with the last message in its hands: nothing stays behind.
class LeaveBeside : public QueueCast {
public:
    using QueueCast::QueueCast;

    void prepare() override {
        start_creator(victim_, "the victim");
        start_member(consumer_, "the consumer");
        accept(victim_, victim_.actor.must("put 1 10000 5000"));
        held_ = ledger_.held(consumer_.name, consumer_.actor.must("hold 5000"));
    }
    Actor& victim() override { return victim_.actor; }
    std::string act() override { return "close"; }

    void after_completion(const Answer& answer) override {
        require(answer.is_ok(), "leaving failed: " + answer.line());
        after_death();
    }
    void after_death() override {
        if (!has_left_) other_leaves();
        check_name_is_free();
        start_over();
    }
    void while_stopped() override { other_leaves(); }

private:
    void other_leaves() {
        has_left_ = true;
        consumer_.actor.must("recheck");
        consumer_.actor.must("ack");
        ledger_.acknowledged(held_);
        ledger_.check_complete();
        consumer_.actor.must("close");
    }

    std::uint64_t held_ = 0;
    bool has_left_ = false;
};

// A producer goes, and then all of them: the stream is its creator's to end.
class ProducerCloses : public ProducerStruck {
public:
    ProducerCloses(std::string segment, std::string act)
        : ProducerStruck(std::move(segment)), act_(std::move(act)) {
        is_parked_ = false;
    }
    std::string act() override { return act_; }

protected:
    void set_up() override { accept(victim_, victim_.actor.must("put 1 100 5000")); }
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
    }
    void accept_death() override {}
    bool comes_by_itself() override { return true; }
    void check_victim_works() override {}
    void tidy_up() override {
        require(!look().stats.closed, "a producer's going ended the stream");
    }

private:
    std::string act_;
};

// A dead letter is requeued or dropped. Dead in between: it comes once, or is gone, or is a dead
// letter still that another operator can move.
class MoveDeadLetters : public QueueCast {
public:
    MoveDeadLetters(std::string segment, std::string act)
        : QueueCast(std::move(segment)), act_(std::move(act)) {}

    void prepare() override {
        start_creator(producer_, "the producer", "1");
        start_member(consumer_, "the consumer");
        start_member(victim_, "the operator");
        for (const char* size : {kSmall, kLarge}) {
            const std::uint64_t number = next_of(producer_);
            ledger_.maybe_taken(number);
            ledger_.maybe_acknowledged(number);
            accept(producer_, producer_.actor.must(std::string("put 1 ") + size + " 5000"));
            consumer_.actor.must("take-nack 5000");
        }
        require(look().stats.dead_letters == 2, "two should have been set aside");
    }
    Actor& victim() override { return victim_.actor; }
    std::string act() override { return act_; }
    [[nodiscard]] std::string must_pass() const override {
        return act_ == "drop" ? "queue.dead.dropped" : "queue.dead.requeued";
    }

    void after_completion(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        moved_ += static_cast<std::size_t>(answer.number("moved"));
        if (!is_moved_) move_the_rest();
        require(moved_ == 2, std::to_string(moved_) + " moved of two");
        finish();
        victim_.actor.must("close");
        everybody_leaves();
    }
    void after_death() override {
        move_the_rest();
        require(moved_ <= 1, "what the dead operator had moved was moved again");
        finish();
        everybody_leaves();
    }
    void while_stopped() override { move_the_rest(); }

private:
    void move_the_rest() {
        is_moved_ = true;
        const Answer answer = producer_.actor.must(act_);
        moved_ += static_cast<std::size_t>(answer.number("moved"));
        require(look().stats.dead_letters == 0, "a dead letter that can't be moved");
    }
    void finish() {
        const std::size_t got = ledger_.received(consumer_.name, drain(consumer_));
        require(got == (act_ == "drop" ? 0U : 2U), std::to_string(got) + " came of two");
        ledger_.check_complete();
        check_nothing_is_held();
    }
    Answer drain(Party& party) {
        Answer answer = party.actor.ask("drain 0");
        require(answer.outcome == "Timeout", "draining: " + answer.line());
        return answer;
    }

    std::string act_;
    std::size_t moved_ = 0;
    bool is_moved_ = false;
};

// What is queued is thrown away. Dead in between: each message is gone, or comes once.
class Discard : public QueueCast {
public:
    using QueueCast::QueueCast;

    void prepare() override {
        start_creator(producer_, "the producer");
        start_member(consumer_, "the consumer");
        start_member(victim_, "the victim");
        for (const char* size : {kSmall, kLarge, kSmall}) {
            const std::uint64_t number = next_of(producer_);
            ledger_.maybe_taken(number);
            ledger_.maybe_acknowledged(number);
            accept(producer_, producer_.actor.must(std::string("put 1 ") + size + " 5000"));
        }
    }
    Actor& victim() override { return victim_.actor; }
    std::string act() override { return "discard"; }

    void after_completion(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        take_the_rest();
        const auto dropped = static_cast<std::size_t>(answer.number("dropped"));
        require(dropped + received_ == 3, std::to_string(dropped) + " dropped and " +
                                              std::to_string(received_) + " taken of three");
        victim_.actor.must("close");
        finish();
    }
    void after_death() override {
        take_the_rest();
        finish();
    }
    void while_stopped() override { take_the_rest(); }

private:
    void take_the_rest() {
        received_ += ledger_.received("the taker", consumer_.actor.ask("drain 0"));
        require(look().stats.closed, "discarded, and the stream goes on");
    }
    void finish() {
        ledger_.check_complete();
        check_nothing_is_held();
        everybody_leaves();
    }

    std::size_t received_ = 0;
};

// What the dead left is removed from outside (`penstock gc`).
class RemoveQueue : public QueueCast {
public:
    using QueueCast::QueueCast;

    void prepare() override {
        Party creator;
        start_creator(creator, "the creator");
        creator.actor.must("put 3 10000 5000");
        kill(creator);
        start(victim_, "the collector");
    }
    Actor& victim() override { return victim_.actor; }
    std::string act() override { return "remove " + segment_; }

    void after_completion(const Answer& answer) override {
        require(answer.is_ok() && answer.number("removed") == 1, "not removed: " + answer.line());
        check_name_is_free();
        start_over();
    }
    void after_death() override { start_over(); }
    void while_stopped() override {
        const Promptly promptly("a second removal");
        Party other;
        start(other, "another collector");
        const Answer answer = other.actor.ask(act());
        promptly.check();
        require(answer.is_ok() || answer.outcome == "NotFound",
                "a second removal: " + answer.line());
    }
};

// Looking on from outside. Changes nothing, so it passes no point; and shows what is there.
class Inspect : public QueueCast {
public:
    using QueueCast::QueueCast;

    void prepare() override {
        start_creator(producer_, "the producer");
        start_member(consumer_, "the consumer");
        start(victim_, "the inspector");
        accept(producer_, producer_.actor.must("put 2 10000 5000"));
    }
    Actor& victim() override { return victim_.actor; }
    std::string act() override { return "inspect " + segment_; }

    void after_completion(const Answer& answer) override {
        require(answer.is_ok() && answer.number("queued") == 2, "inspected: " + answer.line());
        after_death();
    }
    void after_death() override {
        settle();
        everybody_leaves();
    }
    void while_stopped() override {}
};

}  // namespace penstock::trust

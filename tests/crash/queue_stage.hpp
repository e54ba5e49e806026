// The cast of the Queue scenarios: a producer, a consumer, the victim. And the promises as checks:
// what was accepted comes exactly once, what the dead had taken comes back, none is blocked.
#pragma once

#include <string>

#include "penstock/queue.hpp"
#include "tests/crash/queue_cast.hpp"

namespace penstock::trust {

// One participant is struck. Producer and consumer go on; no other's message is lost.
class QueueStruck : public QueueCast {
public:
    using QueueCast::QueueCast;

    void prepare() override {
        start_creator(producer_, "the producer");
        start_member(consumer_, "the consumer");
        start_member(victim_, "the victim");
        set_up();
        if (is_parked_) park_consumer();
    }
    Actor& victim() override { return victim_.actor; }

    void after_completion(const Answer& answer) override {
        accept_act(answer);
        if (!has_flowed_) flow();
        after_act();
        check_victim_works();
        tidy_up();
        settle();
        victim_.actor.must("close");
        everybody_leaves();
    }
    void after_death() override {
        is_dead_ = true;
        accept_death();
        flow();
        tidy_up();
        settle();
        everybody_leaves();
    }
    void while_stopped() override { flow(); }

protected:
    virtual void set_up() {}
    virtual void accept_act(const Answer& answer) = 0;
    virtual void accept_death() = 0;
    // What the victim has yet to do in the test's plan.
    virtual void after_act() {}
    // What others than these three have yet to do.
    virtual void tidy_up() {}
    // Something waits that the consumer must get by itself, without further help.
    virtual bool comes_by_itself() { return is_dead_ && look().stats.queued > 0; }

    void park_consumer() { consumer_.actor.park("recv 1 10000"); }

    // Others put and take, and soon, whatever has become of the victim.
    void flow() {
        has_flowed_ = true;
        const std::uint64_t number = next_of(producer_);
        const std::int64_t since = blow_at;
        if (!is_parked_) consumer_.actor.tell("recv 1 5000");
        is_parked_ = false;
        std::optional<Answer> first;
        if (comes_by_itself()) {
            first = consumer_.actor.answer();
            notice(since, *first, "what was there, or came back,");
        }
        const std::int64_t put_at = os::monotonic_ns();
        producer_.actor.tell(std::string("put 1 ") + kSmall + " 5000");
        if (!first) {
            first = consumer_.actor.answer();
            notice(put_at, *first, "the next message");
        }
        receive(consumer_, *first);
        if (!QueueLedger::names(*first, number)) {
            receive(consumer_, consumer_.actor.ask("recv-to " + std::to_string(number) + " 5000"));
        }
        const Answer put = producer_.actor.answer();
        notice(put_at, put, "the next put");
        accept(producer_, put);
    }
    void notice(std::int64_t since, const Answer& answer, const std::string& what) {
        if (blow_at != 0) noticed_after(answer.number("t") - since, what);
    }

    virtual void check_victim_works() {
        accept(victim_, victim_.actor.must(std::string("put 1 ") + kLarge + " 5000"));
        accept(victim_, victim_.actor.must(std::string("put 1 ") + kSmall + " 5000"));
        receive(victim_, victim_.actor.must("recv 1 5000"));
    }

    bool is_parked_ = true;  // the consumer sleeps before the act
    bool has_flowed_ = false;
    bool is_dead_ = false;
};

// It puts. Dead, of the messages under way all or nothing is there of each.
class ProducerStruck : public QueueStruck {
public:
    using QueueStruck::QueueStruck;

protected:
    void accept_act(const Answer& answer) override { accept(victim_, answer); }
    void accept_death() override {
        for (std::uint64_t i = 0; i < under_way_; ++i) {
            ledger_.maybe_accepted(next_of(victim_) + i);
        }
    }
    bool comes_by_itself() override { return look().stats.queued > 0; }

    std::uint64_t under_way_ = 1;
};

// It takes `in_hand_`, or has taken it. Dead, that comes back, unless it had acknowledged it.
class ConsumerStruck : public QueueStruck {
public:
    using QueueStruck::QueueStruck;

protected:
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        receive(victim_, answer);
    }
    void accept_death() override {
        if (has_acknowledged()) {
            ledger_.acknowledged(in_hand_);
        } else if (is_held_ || point == "queue.take.taken" || point == "queue.get.copied") {
            ledger_.taken(in_hand_);
        } else {
            ledger_.maybe_taken(in_hand_);
        }
    }
    bool comes_by_itself() override {
        if (!is_dead_) return false;  // what it has taken, it has
        return look().stats.queued > 0 || !has_acknowledged();
    }
    // From Done on (or Empty, where there is no block) it is never seen again.
    [[nodiscard]] bool has_acknowledged() const {
        return is_acknowledging_ && point != "queue.take.taken" && point != "queue.get.copied" &&
               point != "queue.take.overtaken" && point != "signal.announce.set";
    }

    // Puts one, and has the victim hold it: before any other is there to take it.
    void hand_over(const std::string& size) {
        in_hand_ = put_one(size);
        const Answer held = victim_.actor.must("hold 5000");
        require(ledger_.held(victim_.name, held) == in_hand_, "held another: " + held.line());
        is_held_ = true;
    }
    std::uint64_t put_one(const std::string& size) {
        const std::uint64_t number = next_of(producer_);
        accept(producer_, producer_.actor.must("put 1 " + size + " 5000"));
        return number;
    }

    std::uint64_t in_hand_ = 0;
    bool is_held_ = false;  // before the act
    bool is_acknowledging_ = true;
};

}  // namespace penstock::trust

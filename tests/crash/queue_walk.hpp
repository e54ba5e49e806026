// The promises of a Queue as checks: accepted messages come exactly once, those taken by the dead
// come back marked, each producer's messages keep their order, and no process is blocked.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "penstock/queue.hpp"
#include "tests/crash/cast.hpp"
#include "tests/support/queue_actor.hpp"
#include "tests/support/queue_ledger.hpp"

namespace penstock::trust {

class QueueLifeWalk;

// What must hold where a queue begins or ends.
struct QueuePromise {
    void (*beside)(QueueLifeWalk&) = nullptr;  // by a stopped or dead victim, or after its act
    void (*completed)(QueueLifeWalk&, const Answer&) = nullptr;
    void (*died)(QueueLifeWalk&) = nullptr;
};

struct QueueRow {
    const char* name;
    Words before = {};
    std::string act = {};
    const char* answer = "ok";
    const char* must_pass = "";
    const char* about = "";
    Words meanwhile = {};

    Words stopped = {};  // while the victim is stopped, in place of the usual flow
    Words then = {};     // what the victim still does after its act
    Words after_death = {};
    Words tidy = {};                // what the others still do
    bool gets_first = false;        // the victim gets the first message, and no other
    bool is_uncertain = false;      // dead, it may be done with what it asked for
    bool may_vanish = false;        // messages put before may be dropped
    bool has_left = false;          // the victim has left before its act
    bool is_last_producer = false;  // the victim
    Words another_at = {};  // stopped there, it finds its message taken by the consumer: one more
    const QueuePromise* promise = nullptr;
};

// Notes in the ledger what each answer and each death means for messages.
class QueueWalk : public Cast<QueueRow> {
public:
    using Cast::Cast;

    // ---- for the promises

    [[nodiscard]] QueueInfo look() const { return inspect_queue(segment); }
    [[nodiscard]] bool is_closed() const { return look().stats.closed; }
    using Cast::is_waiting;
    void check_all_came() const {
        ledger.check_complete();
        const QueueStats stats = look().stats;
        require(stats.queued == 0 && stats.in_flight == 0 && stats.held_bytes == 0,
                std::to_string(stats.queued) + " messages are queued, " +
                    std::to_string(stats.in_flight) + " in flight, and " +
                    std::to_string(stats.held_bytes) + " bytes held after all");
    }
    // The living leave in good order; the last removes the name, which can be used again.
    void everybody_leaves() {
        play({"producer: end", "consumer: drain -> Closed"});
        check_all_came();
        play({"producer: close", "consumer: close"});
        check_name_is_free();
        start_over();
    }
    void start_over() {
        ledger = {};  // the sequences of a new queue begin again
        play({"producer: create @ 0 creator", "consumer: attach @ any 1000",
              "producer: put 3 10000", "consumer: recv 3"});
        check_all_came();
        play({"producer: close", "consumer: close"});
        check_name_is_free();
    }

    QueueLedger ledger;

protected:
    [[nodiscard]] std::string join_line(const std::string& name) const override {
        return name == "producer" ? "create @ 0 creator" : "attach @ any 1000";
    }
    [[nodiscard]] Process start(std::uint64_t number) const override {
        return Process::start(kQueueRole, {std::to_string(number)});
    }
    void note(Party& one, const Words& told, const Answer& answer) override {
        const std::string& verb = told.at(0);
        while (std::cmp_less(one.accepted, answer.number("accepted"))) {
            ledger.accepted(next_of(one));
            ++one.accepted;
        }
        if (verb == "recv" || verb == "recv-to" || verb == "take-whole" || verb == "drain") {
            ledger.received(one.name, answer);
        }
        if (verb == "depart") note_gone(one);
        if (!answer.is_ok()) return;
        if (verb == "hold") one.held.push_back(ledger.held(one.name, answer));
        if (verb == "get") ledger.acknowledged(static_cast<std::uint64_t>(answer.number("copied")));
        if (verb == "take-nack") ledger.maybe_taken(std::stoull(answer.text("got")));
        if (verb == "ack" || verb == "nack") let_go(one, verb == "ack");
    }
    // A put cut short is there whole or not at all. A message in ack() is done with.
    void note_death(Party& one, const Words& told) override {
        const std::string verb = told.empty() ? "" : told[0];
        const bool puts = verb.starts_with("put") || verb == "loan-commit";
        const bool has_count = verb == "put" || verb.starts_with("put-many");
        const std::uint64_t count = has_count ? std::stoull(told.at(1)) : 1;
        for (std::uint64_t i = 0; puts && i < count; ++i) {
            ledger.maybe_accepted(next_of(one) + i);
        }
        if (verb == "ack") let_go(one, true);
        note_gone(one);
    }
    // The messages that a dead process held come back, marked.
    void note_gone(Party& one) {
        due_back_ += one.held.size();
        one.held.clear();
    }
    void let_go(Party& one, bool is_acknowledged) {
        if (one.held.empty()) return;  // it has departed: the queue no longer knows it
        if (is_acknowledged) ledger.acknowledged(one.held[0]);
        one.held.pop_front();
    }
    [[nodiscard]] static std::uint64_t next_of(const Party& one) {
        return one.number * kMaxOfOne + one.accepted;
    }
    [[nodiscard]] bool is_act(const Words& beginnings) const {
        return std::any_of(beginnings.begin(), beginnings.end(),
                           [this](const std::string& one) { return row.act.starts_with(one); });
    }
    // Its puts so far may have been delivered, or dropped.
    void note_uncertain(const Party& one, bool is_maybe_gone) {
        for (std::uint64_t i = 0; i < one.accepted; ++i) {
            ledger.maybe_taken(one.number * kMaxOfOne + i);
            if (is_maybe_gone) ledger.maybe_acknowledged(one.number * kMaxOfOne + i);
        }
    }
    [[nodiscard]] std::uint64_t first() { return party("producer").number * kMaxOfOne; }

    std::size_t due_back_ = 0;  // messages that the dead held
};

// One participant is the victim. Producer and consumer continue; no other's message is lost.
class QueueStruckWalk : public QueueWalk {
public:
    using QueueWalk::QueueWalk;

    void prepare() override {
        party("producer");
        party("consumer");
        if (!is_act({"attach"})) party("victim");
        play(row.before);
    }
    void after_completion(const Answer& answer) override {
        if (is_act({"hold"}) && has_flowed_) row.answer = "ok|Timeout";
        take_answer(answer);
        require(!row.gets_first || std::cmp_equal(answer.number("copied"), first()) ||
                    QueueLedger::names(answer, first()),
                "not the first message: " + answer.line());
        is_dead_ = is_act({"depart"});  // to the others
        if (!has_flowed_) flow();
        play(row.then);
        if (is_act({"hold"}) && answer.is_ok()) must("victim: ack");
        const bool has_left = row.has_left || is_act({"close", "depart"});
        if (!has_left) play({"victim: put 1 10000", "victim: put 1 100", "victim: recv 1"});
        tidy();
        must("victim: close");
        everybody_leaves();
    }
    void after_death() override {
        is_dead_ = true;
        await_death("victim");
        note_dead_consumer();
        play(row.after_death);
        check_room_is_noticed();
        flow();
        tidy();
        everybody_leaves();
    }
    void while_stopped() override {
        check_room_is_noticed();
        if (is_act({"take-nack"})) note_uncertain(party("producer"), false);  // it may be back
        if (row.stopped.empty()) flow();
        has_flowed_ = true;
        play(row.stopped);
        if (is_struck_at(row.another_at)) must("producer: put 1 100");
    }

private:
    // The victim took the message that was put first. It comes back, unless it was acknowledged:
    // from Done on (or Empty, where there is no block) it never comes again.
    void note_dead_consumer() {
        if (row.is_uncertain) return note_uncertain(party("producer"), true);
        if (party("producer").accepted == 0) return;
        if (is_act({"take-nack"}) ||
            (is_act({"recv", "get"}) && is_struck_at({"queue.take.taken:", "queue.get.copied:"}))) {
            ledger.taken(first());
            ++due_back_;
        } else if (is_act({"recv", "get"})) {
            const bool is_early = is_struck_at({"queue.take.overtaken:", "signal.announce.set:"});
            is_early ? ledger.maybe_taken(first()) : ledger.acknowledged(first());
            due_back_ += is_early ? 1 : 0;
        }
    }
    // A message is queued that the consumer must get without further calls.
    [[nodiscard]] bool comes_by_itself() {
        if (is_dead_ && due_back_ > 0) return true;
        const bool puts = is_act({"put", "loan"}) || party("victim").accepted > 0;
        const bool takes = is_dead_ && !row.is_uncertain && !is_act({"hold", "attach"});
        return (puts || takes) && look().stats.queued > 0;
    }
    // The others put and take in time, whatever state the victim is in.
    void flow() {
        has_flowed_ = true;
        const std::uint64_t number = next_of(party("producer"));
        if (!is_waiting("consumer")) must("consumer: tell recv 1");
        const bool is_there = comes_by_itself();
        Answer first = is_there ? must("consumer: answer") : ok();
        if (is_there) noticed(blow_at, first, "what was there, or came back,");
        const std::int64_t put_at = os::monotonic_ns();
        must("producer: tell put 1 100");
        if (!is_there) {
            first = must("consumer: answer");
            noticed(put_at, first, "the next message");
        }
        if (!QueueLedger::names(first, number)) {
            must("consumer: recv-to " + std::to_string(number));
        }
        noticed(put_at, must("producer: answer"), "the next put");
    }
    // A producer that waits for room gets it.
    void check_room_is_noticed() {
        if (is_waiting("blocked")) noticed(blow_at, must("blocked: answer"), "noticing room");
    }
    void tidy() {
        if (is_waiting("blocked")) must("blocked: answer");
        play(row.tidy);
        require(!is_closed(), "the stream has ended without its creator");
        must("consumer: drain 0 -> Timeout");
        check_all_came();
        require(!has("doomed") || look().stats.deaths >= 1, "no death was counted");
    }

    bool has_flowed_ = false;
    bool is_dead_ = false;
};

// The victim begins or ends a queue.
class QueueLifeWalk : public QueueWalk {
public:
    using QueueWalk::QueueWalk;

    void prepare() override {
        play(row.before);
        for (const char* name : {"producer", "creator"}) {
            if (row.may_vanish && has(name)) note_uncertain(party(name), true);
        }
    }
    void after_completion(const Answer& answer) override {
        take_answer(answer);
        beside();
        row.promise->completed(*this, answer);
    }
    void after_death() override {
        beside();
        row.promise->died != nullptr ? row.promise->died(*this)
                                     : row.promise->completed(*this, ok());
    }
    void while_stopped() override { beside(); }

    // Whether the victim has messages accepted.
    [[nodiscard]] bool has_put() { return party("victim").accepted > 0; }
    [[nodiscard]] bool is_stopped() {
        return blow_at != 0 && !party("victim").actor.process().is_over();
    }
    void close(const std::string& name) {
        if (is_alive(name)) must(name + ": close");
    }

    std::int64_t count = 0;  // for the promises

private:
    void beside() {
        if (!std::exchange(has_looked_, true) && row.promise->beside != nullptr) {
            row.promise->beside(*this);
        }
    }

    bool has_looked_ = false;
};

}  // namespace penstock::trust

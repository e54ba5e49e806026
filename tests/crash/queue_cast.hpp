// The cast of a Queue scenario, and what is known of their messages.
#pragma once

#include <string>

#include "penstock/queue.hpp"
#include "tests/support/crash_walk.hpp"
#include "tests/support/queue_actor.hpp"
#include "tests/support/queue_ledger.hpp"

namespace penstock::trust {

class QueueCast : public Scenario {
public:
    explicit QueueCast(std::string segment) : segment_(std::move(segment)) {}

protected:
    static constexpr const char* kShape = " 8 1048576 8";  // slots, bytes, participants
    static constexpr const char* kSmall = "100";
    static constexpr const char* kLarge = "10000";  // three granules
    static constexpr std::uint64_t kSlots = 8;

    struct Party {
        std::string name;
        std::uint64_t number = 0;
        Actor actor;
        std::uint64_t accepted = 0;  // messages of which it has said that they are
    };

    void start(Party& party, const std::string& name) {
        party.name = name;
        party.number = ++parties_;
        party.accepted = 0;
        party.actor = Actor(name, Process::start(kQueueRole, {std::to_string(party.number)}));
    }
    // `rules`: delivery limit, and "last_producer" where the stream ends with that.
    void start_creator(Party& party, const std::string& name, const std::string& rules = "") {
        start(party, name);
        party.actor.must("create " + segment_ + kShape + (rules.empty() ? "" : " " + rules));
    }
    void start_member(Party& party, const std::string& name, const std::string& role = "any") {
        start(party, name);
        party.actor.must("attach " + segment_ + " " + role + " 1000");
    }
    static void kill(Party& party) {
        party.actor.process().kill();
        await_death(party);
    }
    static void await_death(Party& party) {
        require(party.actor.process().wait(kPatience).has_value(), party.name + " lives on");
    }

    [[nodiscard]] static std::uint64_t next_of(const Party& party) {
        return party.number * kMaxOfOne + party.accepted;
    }
    // What the answer to a put says, successful or not.
    void note_accepted(Party& party, const Answer& answer) {
        const std::int64_t accepted = answer.number("accepted");
        require(accepted >= 0, party.name + " should say what it put: " + answer.line());
        while (party.accepted < static_cast<std::uint64_t>(accepted)) {
            ledger_.accepted(next_of(party));
            ++party.accepted;
        }
    }
    void accept(Party& party, const Answer& answer) {
        require(answer.is_ok(), party.name + " could not put: " + answer.line());
        note_accepted(party, answer);
    }
    void receive(Party& party, const Answer& answer) {
        require(answer.is_ok(), party.name + " could not take: " + answer.line());
        ledger_.received(party.name, answer);
    }
    // The consumer takes what is there; it must end with `outcome`.
    Answer drain(Party& party, const std::string& outcome, int wait = 0) {
        Answer answer = party.actor.ask("drain " + std::to_string(wait));
        require(answer.outcome == outcome,
                party.name + " should end with " + outcome + ", not: " + answer.line());
        ledger_.received(party.name, answer);
        return answer;
    }

    [[nodiscard]] QueueInfo look() const { return inspect_queue(segment_); }
    void check_nothing_is_held() const {
        const QueueStats stats = look().stats;
        require(stats.queued == 0 && stats.in_flight == 0,
                std::to_string(stats.queued) + " messages are queued and " +
                    std::to_string(stats.in_flight) + " in flight after all");
        require(stats.held_bytes == 0,
                std::to_string(stats.held_bytes) + " bytes are held, and no message");
    }
    void check_name_is_free() const {
        require(segments_left(segment_).empty(), "the last one left, and its name is still there");
    }
    // Everything is taken, and all of it was right.
    void settle() {
        drain(consumer_, "Timeout");
        ledger_.check_complete();
        check_nothing_is_held();
    }
    // The living ones, in good order; the name goes with the last. And it can be used again.
    void everybody_leaves() {
        producer_.actor.must("end");
        drain(consumer_, "Closed", 5000);
        producer_.actor.must("close");
        consumer_.actor.must("close");
        check_name_is_free();
        start_over();
    }
    void start_over() {
        if (!producer_.actor.is_started()) start(producer_, "the next producer");
        if (!consumer_.actor.is_started()) start(consumer_, "the next consumer");
        producer_.actor.must("create " + segment_ + kShape);
        consumer_.actor.must("attach " + segment_ + " any 1000");
        accept(producer_, producer_.actor.must(std::string("put 3 ") + kLarge + " 5000"));
        require(ledger_.received(consumer_.name, drain_of_three()) == 3,
                "three put, not three got");
        check_nothing_is_held();
        producer_.actor.must("close");
        consumer_.actor.must("close");
        check_name_is_free();
    }

    std::string segment_;
    std::uint64_t parties_ = 0;
    QueueLedger ledger_;
    Party producer_;
    Party consumer_;
    Party victim_;

private:
    Answer drain_of_three() { return consumer_.actor.must("recv 3 5000"); }
};

}  // namespace penstock::trust

// The fate of every message of a Queue (accepted, taken, acknowledged), and whether it is allowed.
// Works on numbers only, without processes.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "tests/support/queue_actor.hpp"
#include "tests/support/talk.hpp"

namespace penstock::trust {

class QueueLedger {
public:
    using Number = std::uint64_t;

    // put() returned ok. / Its process died in put().
    void accepted(Number number) { fates_[number].is_accepted = true; }
    void maybe_accepted(Number number) { fates_[number].is_put = true; }

    // It was taken, or may have been, and not acknowledged: it must come again, marked.
    void taken(Number number) { fates_[number].least_deliveries = 2; }
    void maybe_taken(Number number) { fates_[number].is_maybe_taken = true; }

    // Done: it must not come again. / A process that died may have been done with it.
    void acknowledged(Number number) {
        Fate& fate = fates_[number];
        require(++fate.acknowledged == 1, "message " + std::to_string(number) + " came again");
    }
    void maybe_acknowledged(Number number) { fates_[number].is_maybe_acknowledged = true; }

    // Notes all messages of an answer of `consumer`; returns their number.
    std::size_t received(const std::string& consumer, const Answer& answer) {
        std::size_t count = 0;
        std::istringstream items(answer.text("got"));
        for (std::string item; std::getline(items, item, ','); ++count) {
            const Delivered one = parse(item);
            check_delivery(consumer, one);
            acknowledged(one.number);
        }
        return count;
    }
    // The same for a message that it still holds.
    Number held(const std::string& consumer, const Answer& answer) {
        const Delivered one = parse(answer.text("got"));
        check_delivery(consumer, one);
        return one.number;
    }
    static bool names(const Answer& answer, Number number) {
        return ("," + answer.text("got")).find("," + std::to_string(number) + "/") !=
               std::string::npos;
    }

    // Every accepted message came once, no other came, and each producer's came in order.
    void check_complete() const {
        std::uint64_t sequence = 0;
        Number before = 0;
        for (const auto& [number, fate] : fates_) {
            const std::string name = "message " + std::to_string(number);
            require(fate.acknowledged == 1 || !fate.is_accepted || fate.is_maybe_acknowledged,
                    name + " was accepted and never came");
            require(fate.acknowledged == 0 || fate.is_accepted || fate.is_put,
                    name + " came, and was never put");
            if (!fate.sequence) continue;
            const bool is_same_producer = number / kMaxOfOne == before / kMaxOfOne;
            require(!is_same_producer || *fate.sequence > sequence,
                    name + " has a place in the queue before an older one of its producer");
            sequence = *fate.sequence;
            before = number;
        }
    }

private:
    struct Fate {
        bool is_accepted = false;
        bool is_put = false;
        bool is_maybe_taken = false;
        bool is_maybe_acknowledged = false;
        unsigned least_deliveries = 1;
        int acknowledged = 0;
        std::optional<std::uint64_t> sequence;
    };
    struct Delivered {
        Number number = 0;
        unsigned deliveries = 0;
        std::uint64_t sequence = 0;
    };

    static Delivered parse(const std::string& item) {
        Delivered one;
        char slash = 0;
        std::istringstream text(item);
        text >> one.number >> slash >> one.deliveries >> slash >> one.sequence;
        require(!text.fail(), "not a delivery: '" + item + "'");
        return one;
    }
    void check_delivery(const std::string& consumer, const Delivered& one) {
        Fate& fate = fates_[one.number];
        const std::string name = "message " + std::to_string(one.number);
        require(one.deliveries >= fate.least_deliveries, name + " came back and does not say so");
        require(one.deliveries == 1 || fate.least_deliveries > 1 || fate.is_maybe_taken,
                name + " came for the " + std::to_string(one.deliveries) +
                    ". time, and was not delivered before");
        require(!fate.sequence || *fate.sequence == one.sequence,
                name + " came back in another place");
        fate.sequence = one.sequence;
        if (one.deliveries == 1) {
            Number& last = last_[{consumer, one.number / kMaxOfOne}];
            require(one.number > last, name + " came after a younger one of its producer");
            last = one.number;
        }
        fate.least_deliveries = 2;
    }

    std::map<Number, Fate> fates_;
    std::map<std::pair<std::string, std::uint64_t>, Number> last_;  // first deliveries
};

}  // namespace penstock::trust

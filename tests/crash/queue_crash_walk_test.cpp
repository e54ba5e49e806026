// The crash walk of Queue: every point of every operation, a kill and a stop at each. Every
// operation that changes shared memory is a row; cast.hpp has the language of its scripts. Messages
// of 100 bytes lie in their slot, larger ones in a block.
#include "tests/crash/queue_walk.hpp"

namespace penstock::trust {
namespace {

const std::string kParkConsumer = "consumer: park recv 1 10000";

Words parked(Words script) {
    script.push_back(kParkConsumer);
    return script;
}

// Rows whose victim is a producer.
std::vector<QueueRow> producers() {
    return {
        {.name = "put inline", .before = {kParkConsumer}, .act = "put 1 100"},
        {.name = "put in a block", .before = {kParkConsumer}, .act = "put 1 10000"},
        {.name = "put many", .before = {kParkConsumer}, .act = "put-many 3 100"},
        // In the second lap, where the first message is still taken: its slot is passed.
        {.name = "put past a taken slot",
         .before = parked(
             {"producer: put 1 10000", "holder: hold", "producer: put 7 100", "consumer: recv 7"}),
         .act = "put 1 100",
         .must_pass = "queue.claim.passed",
         .tidy = {"holder: recheck", "holder: ack", "holder: close"}},
        // No room: the consumer starts when the producer sleeps.
        {.name = "put blocked",
         .before = {"producer: put 8 100"},
         .act = "put 1 100",
         .must_pass = "signal.announce.set",
         .meanwhile = {"victim: rest", "consumer: tell recv 1 10000"}},
        {.name = "put blocked for bytes",
         .before = {"producer: put 2 400000"},
         .act = "put 1 400000",
         .must_pass = "signal.announce.set",
         .meanwhile = {"victim: rest", "consumer: tell recv 1 10000"}},
        // Stopped before it published, and overtaken; the blow falls after it continues.
        {.name = "put overtaken",
         .before = {kParkConsumer},
         .act = "put-overtaken 100",
         .must_pass = "queue.put.abandoned",
         .meanwhile = {"victim: still", "producer: put 1 100", "consumer: answer", kParkConsumer,
                       "victim: go"}},
        {.name = "put overtaken with a block",
         .before = {kParkConsumer},
         .act = "put-overtaken 10000",
         .must_pass = "queue.put.taken_back",
         .meanwhile = {"victim: still", "producer: put 1 100", "consumer: answer", kParkConsumer,
                       "victim: go"}},
        {.name = "put many overtaken",
         .before = {kParkConsumer},
         .act = "put-many-overtaken 3 100",
         .must_pass = "queue.put.abandoned",
         .meanwhile = {"victim: still", "producer: put 1 100", "consumer: answer", kParkConsumer,
                       "victim: go"}},
        {.name = "loan and commit", .before = {kParkConsumer}, .act = "loan-commit 10000"},
        {.name = "loan and drop", .before = {kParkConsumer}, .act = "loan-drop 10000"},
        // Two seconds after the last block was freed its memory goes back to the system.
        {.name = "trim when idle",
         .before = parked({"victim: put 1 10000", "victim: recv 1", "victim: idle 2050"}),
         .act = "recv 1 0",
         .answer = "Timeout|ok",
         .must_pass = "arena.trim.punched",
         .about = "arena."},
        // One producer goes, then all of them: only the creator ends the stream.
        {.name = "producer closes the creator's stream",
         .before = {"victim: put 1 100"},
         .act = "close"},
        {.name = "producer departs from the creator's stream",
         .before = {"victim: put 1 100"},
         .act = "depart"},
    };
}

// Rows whose victim is a consumer.
std::vector<QueueRow> consumers() {
    return {
        // One of two waiting messages: taken and acknowledged, or copied out.
        {.name = "take and ack",
         .before = {"producer: put 1 100", "producer: put 1 100"},
         .act = "recv 1"},
        {.name = "take and ack a block",
         .before = {"producer: put 1 10000", "producer: put 1 100"},
         .act = "recv 1"},
        {.name = "get",
         .before = {"producer: put 1 100", "producer: put 1 100"},
         .act = "get",
         .gets_first = true},
        {.name = "get from a block",
         .before = {"producer: put 1 4000", "producer: put 1 100"},
         .act = "get",
         .gets_first = true},
        // Acknowledges a message held for a while. The other consumer sleeps.
        {.name = "ack", .before = parked({"producer: put 1 100", "victim: hold"}), .act = "ack"},
        {.name = "ack a block",
         .before = parked({"producer: put 1 10000", "victim: hold"}),
         .act = "ack"},
        // All slots are taken, and a producer sleeps until there is room: every point comes after
        // the slot was freed.
        {.name = "ack and wake a producer",
         .before = {"producer: put 8 100", "victim: hold", "victim: hold", "victim: hold",
                    "victim: hold", "victim: hold", "victim: hold", "victim: hold", "victim: hold",
                    "blocked: park put 1 100 10000"},
         .act = "ack",
         .must_pass = "signal.wake.cleared",
         .then = {"victim: ack", "victim: ack", "victim: ack", "victim: ack", "victim: ack",
                  "victim: ack", "victim: ack"},
         .tidy = {"blocked: close"}},
        // A nack: the message is delivered again.
        {.name = "nack",
         .before = parked({"producer: put 1 100", "victim: hold"}),
         .act = "nack",
         .must_pass = "queue.return.announced"},
        {.name = "nack a block",
         .before = parked({"producer: put 1 10000", "victim: hold"}),
         .act = "nack",
         .must_pass = "queue.return.announced"},
        {.name = "take and nack",
         .before = {"producer: put 1 10000"},
         .act = "take-nack",
         .gets_first = true},
        // A returned message comes before those that have waited longer.
        {.name = "take a returned message",
         .before = {"producer: put 1 10000", "victim: hold", "producer: put 1 100", "victim: nack"},
         .act = "recv 1",
         .gets_first = true},
        // A message that comes while it sleeps.
        {.name = "take parked",
         .act = "recv 1",
         .must_pass = "signal.announce.set",
         .meanwhile = {"victim: rest", "producer: put 1 100"},
         .another_at = {"signal.announce.set:"}},
        // A producer is stopped in the next slot: the slot is passed.
        {.name = "take overtaking",
         .before = {"slow: stop at queue.put.written:1 in put 1 10000", "producer: put 1 100"},
         .act = "recv 1",
         .must_pass = "queue.take.overtaken",
         .tidy = {"slow: resume", "slow: close"},
         .another_at = {"queue.take.overtaken:"}},
        // Three at once. The consumer goes first when the victim has shown no sign of life for a
        // while; then there are three more for it.
        {.name = "take whole",
         .before = {"producer: put 1 10000", "producer: put 2 100"},
         .act = "take-whole 3 10000",
         .must_pass = "queue.take.taken",
         .stopped = {"producer: put 1 100", "consumer: recv 1", "producer: put 3 100"},
         .is_uncertain = true},
        // Two of them come while it waits in line for all three.
        {.name = "take whole after a wait in line",
         .before = {"producer: put 1 10000"},
         .act = "take-whole 3 10000",
         .must_pass = "queue.line.announced",
         .meanwhile = {"victim: rest", "victim: freeze", "producer: put 2 100", "victim: thaw"},
         .stopped = {"producer: put 1 100", "consumer: recv 1", "producer: put 3 100"},
         .is_uncertain = true},
        // The first request in line is of a stopped process: the victim sees no sign of life, and
        // passes it.
        {.name = "pass a stopped request",
         .before = {"first: park take-whole 3 60000", "first: stop", "producer: put 1 100"},
         .act = "recv 1",
         .must_pass = "queue.line.passed",
         .stopped = {"first: die", "producer: put 1 100", "consumer: recv 1",
                     "producer: put 1 100"},
         .then = {"first: die"},
         .after_death = {"first: die"},
         .is_uncertain = true},
        // A consumer's leave does not end the stream. With a delivery in hand it leaves when that
        // is acknowledged.
        {.name = "consumer closes", .before = {kParkConsumer}, .act = "close"},
        {.name = "consumer closes and acks later",
         .before =
             parked({"producer: put 1 10000", "victim: hold", "victim: close", "victim: recheck"}),
         .act = "ack",
         .has_left = true},
        // With a delivery in hand and a loan open: the queue gets both back.
        {.name = "consumer departs",
         .before = parked({"producer: put 1 10000", "victim: hold", "victim: loan 20000"}),
         .act = "depart",
         .must_pass = "queue.janitor.reaped",
         .then = {"victim: recheck", "victim: ack"}},
    };
}

// Another process died inside an operation. The victim looks for a message and finds it dead.
std::vector<QueueRow> finders() {
    std::vector<QueueRow> rows{
        {.name = "reap a dead consumer",
         .before = {"producer: put 1 10000", "producer: put 1 100", "doomed: hold", "doomed: hold",
                    "doomed: die"}},
        {.name = "reap a consumer dead in ack",
         .before = {"producer: put 1 10000", "doomed: hold",
                    "doomed: die at queue.ack.done:1 in ack"},
         .answer = "ok|Timeout"},
        {.name = "reap a consumer dead in nack",
         .before = {"producer: put 1 10000", "doomed: hold",
                    "doomed: die at queue.return.returned:1 in nack"}},
        {.name = "reap a producer dead in put",
         .before = {"doomed: die at queue.put.named:1 in put 1 10000"},
         .answer = "ok|Timeout"},
        // While its janitor is stopped the dead process can't be reaped, and is passed for want of
        // a sign of life: that takes longer than noticing a death.
        {.name = "reap a consumer dead in line",
         .before = {"doomed: die at queue.line.announced:1 in take-whole 3 5000"},
         .answer = "ok|Timeout",
         .stopped = {"producer: put 1 100", "consumer: recv 1"}},
        {.name = "reap a dead lender",
         .before = {"doomed: loan 20000", "doomed: die"},
         .answer = "ok|Timeout"},
    };
    for (QueueRow& row : rows) {
        row.act = "hold 0";
        row.must_pass = "membership.reap.locked";
    }
    return rows;
}

// The victim joins, in the slot of a dead process whose messages come back, or in a new one.
std::vector<QueueRow> newcomers() {
    return {
        {.name = "attach after a death",
         .before = {"victim: start", "producer: put 1 10000", "doomed: hold", "producer: put 1 100",
                    "doomed: hold", "doomed: loan 20000", "doomed: die"},
         .act = "attach @ any 1000",
         .must_pass = "queue.janitor.cleared"},
        {.name = "attach",
         .before = parked({"victim: start"}),
         .act = "attach @ any 1000",
         .after_death = {"replacement: attach @ any 1000", "replacement: close"}},
    };
}

// ---- the end of a stream, by a participant that may end it; if it dies too early, the stream goes
// on

// Waiters for a message and for room are told of the end.
void check_stream(QueueLifeWalk& walk) {
    const bool is_over = walk.point != "queue.close.resigned";
    require(walk.is_closed() == is_over,
            is_over ? "the stream has not ended" : "the stream ended too soon");
    if (!is_over) {
        walk.count = 1;  // a producer put while there was no other
        walk.must("producer: put 1 10000");
        walk.must(walk.is_waiting("consumer") ? "consumer: answer" : "consumer: recv 3");
        return;
    }
    for (const std::string one : {"consumer", "blocked"}) {
        if (!walk.is_waiting(one)) continue;
        walk.noticed(walk.blow_at, walk.must(one + ": answer -> Closed"), "the end, to the " + one);
    }
    walk.play({"consumer: drain -> Closed", "producer: put 1 100 -> Closed"});
}
void leave_ended(QueueLifeWalk& walk) {
    walk.close("victim");
    walk.close("blocked");
    walk.everybody_leaves();
}
constexpr QueuePromise kEnds{
    .beside = check_stream,
    .completed =
        [](QueueLifeWalk& walk, const Answer&) {
            // A producer that put while the last one was stopped is now the last.
            const bool goes_on = walk.count == 1 && walk.row.is_last_producer;
            require(walk.is_closed() != goes_on, "the stream should have ended, or not");
            leave_ended(walk);
        },
    .died = leave_ended};

std::vector<QueueRow> ends() {
    const Words creator{"victim: create @ 0 creator", "producer: attach @ any 1000", kParkConsumer};
    const Words creator_with_messages{"victim: create @ 0 creator", "producer: attach @ any 1000",
                                      "consumer: attach @ any 1000", "producer: put 2 10000"};
    const Words last_producer{"producer: create @ 0 last_producer",
                              "consumer: attach @ any 1000",
                              "victim: attach @ producer 1000",
                              "victim: put 1 10000",
                              "consumer: recv 1",
                              kParkConsumer};
    std::vector<QueueRow> rows{
        {.name = "creator closes", .before = creator, .act = "close", .promise = &kEnds},
        {.name = "creator closes a queue with messages",
         .before = creator_with_messages,
         .act = "close",
         .promise = &kEnds},
        {.name = "last producer closes",
         .before = last_producer,
         .act = "close",
         .is_last_producer = true,
         .promise = &kEnds},
        {.name = "creator departs", .before = creator, .act = "depart", .promise = &kEnds},
        {.name = "creator departs from a queue with messages",
         .before = creator_with_messages,
         .act = "depart",
         .promise = &kEnds},
        {.name = "last producer departs",
         .before = last_producer,
         .act = "depart",
         .is_last_producer = true,
         .promise = &kEnds},
        {.name = "end",
         .before = {"producer: create @ 0 last_producer", "victim: attach @ producer 1000",
                    kParkConsumer},
         .act = "end",
         .promise = &kEnds},
        // A producer waits for room, slots or bytes: it is told that there will be none.
        {.name = "end a full queue",
         .before = {"producer: put 8 100", "consumer: attach @ any 1000",
                    "victim: attach @ any 1000", "blocked: park put 1 100 2000"},
         .act = "end",
         .promise = &kEnds},
        {.name = "end while a producer waits for bytes",
         .before = {"producer: put 2 400000", "consumer: attach @ any 1000",
                    "victim: attach @ any 1000", "blocked: park put 1 400000 2000"},
         .act = "end",
         .promise = &kEnds},
    };
    for (QueueRow& row : rows) row.must_pass = "queue.end.marked";
    return rows;
}

// ---- the last participant to leave removes the name, unless messages wait for a later one

constexpr QueuePromise kLeaves{
    .beside =
        [](QueueLifeWalk& walk) {
            if (!walk.must_soon("heir: attach @ any 0 -> ok|NotFound|Busy").is_ok()) {
                return require(!walk.has_put(), "there are messages, and none can attach");
            }
            const Answer drained = walk.ask("heir: drain 0");
            require(drained.outcome == (walk.is_closed() ? "Closed" : "Timeout"),
                    "the heir ended with " + drained.line());
            walk.check_all_came();
            walk.must("heir: close");
        },
    // The empty queue of a dead process may still be there, and blocks nothing.
    .completed =
        [](QueueLifeWalk& walk, const Answer&) {
            if (walk.has_put()) walk.check_name_is_free();
            walk.start_over();
        }};
// Two leave at the same time, one with the last message in hand: no name stays.
constexpr QueuePromise kLeavesBeside{
    .beside =
        [](QueueLifeWalk& walk) {
            walk.play({"consumer: recheck", "consumer: ack", "consumer: close"});
            walk.ledger.check_complete();
        },
    .completed =
        [](QueueLifeWalk& walk, const Answer&) {
            walk.check_name_is_free();
            walk.start_over();
        }};

std::vector<QueueRow> leaving() {
    const Words empty{"victim: create @ 0 creator"};
    const Words with_messages{"victim: create @ 0 creator", "victim: put 2 10000"};
    return {
        {.name = "last participant leaves an empty queue",
         .before = empty,
         .act = "close",
         .promise = &kLeaves},
        {.name = "last participant leaves messages",
         .before = with_messages,
         .act = "close",
         .promise = &kLeaves},
        {.name = "last participant departs", .before = empty, .act = "depart", .promise = &kLeaves},
        {.name = "last participant departs from messages",
         .before = with_messages,
         .act = "depart",
         .promise = &kLeaves},
        {.name = "leave beside another",
         .before = {"victim: create @ 0 creator", "victim: put 1 10000", "consumer: hold"},
         .act = "close",
         .promise = &kLeavesBeside},
    };
}

// ---- dropping: after a death in between, each message is gone or comes once

std::int64_t messages_in(const Answer& answer) {
    const std::string got = answer.text("got");
    return got.empty() ? 0 : 1 + std::count(got.begin(), got.end(), ',');
}
void leave_moved(QueueLifeWalk& walk) {
    const std::int64_t got = messages_in(walk.must("consumer: drain 0 -> Timeout"));
    require(got == (walk.row.act == "drop" ? 0 : 2), std::to_string(got) + " came of two");
    walk.check_all_came();
    walk.close("victim");
    walk.everybody_leaves();
}
// Or the message is still a dead letter, which another operator can move.
constexpr QueuePromise kMoves{
    .beside =
        [](QueueLifeWalk& walk) {
            walk.count = walk.must("producer: " + walk.row.act).number("moved");
            require(walk.look().stats.dead_letters == 0, "a dead letter that can't be moved");
        },
    .completed =
        [](QueueLifeWalk& walk, const Answer& answer) {
            const std::int64_t moved = walk.count + answer.number("moved");
            require(moved == 2, std::to_string(moved) + " moved of two");
            leave_moved(walk);
        },
    .died =
        [](QueueLifeWalk& walk) {
            require(walk.count <= 1, "a message that the dead operator had moved was moved again");
            leave_moved(walk);
        }};

void take_the_rest(QueueLifeWalk& walk) {
    walk.count += messages_in(walk.must("consumer: drain 0 -> Closed|Timeout"));
    require(walk.is_closed(), "discarded, and the stream goes on");
}
constexpr QueuePromise kDiscards{
    .beside = take_the_rest,
    .completed =
        [](QueueLifeWalk& walk, const Answer& answer) {
            take_the_rest(walk);
            const std::int64_t dropped = answer.number("dropped");
            require(dropped + walk.count == 3, std::to_string(dropped) + " dropped and " +
                                                   std::to_string(walk.count) + " taken of three");
            walk.close("victim");
            walk.everybody_leaves();
        },
    .died = [](QueueLifeWalk& walk) { walk.everybody_leaves(); }};

std::vector<QueueRow> dropping() {
    const Words dead_letters{"producer: create @ 1 creator",
                             "victim: attach @ any 1000",
                             "producer: put 1 100",
                             "consumer: take-nack",
                             "producer: put 1 10000",
                             "consumer: take-nack",
                             "producer: stats -> ok dead_letters=2"};
    return {
        {.name = "requeue dead letters",
         .before = dead_letters,
         .act = "requeue",
         .must_pass = "queue.dead.requeued",
         .may_vanish = true,
         .promise = &kMoves},
        {.name = "drop dead letters",
         .before = dead_letters,
         .act = "drop",
         .must_pass = "queue.dead.dropped",
         .may_vanish = true,
         .promise = &kMoves},
        {.name = "discard",
         .before = {"producer: put 1 100", "producer: put 1 10000", "producer: put 1 100",
                    "consumer: attach @ any 1000", "victim: attach @ any 1000"},
         .act = "discard",
         .may_vanish = true,
         .promise = &kDiscards},
    };
}

// ---- creating, removing and inspecting

// An attach meanwhile finds nothing, or a queue that works.
constexpr QueuePromise kCreates{
    .beside =
        [](QueueLifeWalk& walk) {
            if (walk.blow_at == 0) return;
            const Answer visit = walk.must_soon("visitor: attach @ any 0 -> ok|NotFound|Busy");
            // It may drain a queue of the dead.
            if (visit.is_ok()) walk.play({"visitor: drain 0 -> Timeout", "visitor: close"});
            if (!walk.is_stopped()) return;
            const Answer second =
                walk.must_soon("outsider: " + walk.row.act + " -> ok|AlreadyExists");
            walk.count = second.is_ok() ? 1 : 0;
            const bool is_ours = visit.is_ok() && walk.point == "segment.create.published";
            require(!is_ours || !second.is_ok(), "two queues of one name");
        },
    // Another process may have taken the name while the victim was stopped.
    .completed =
        [](QueueLifeWalk& walk, const Answer& answer) {
            require(answer.is_ok() == (walk.count == 0), "two of one name: " + answer.line());
            const std::string owner = answer.is_ok() ? "victim" : "outsider";
            walk.play({"consumer: attach @ any 1000", owner + ": put 3 10000", "consumer: recv 3"});
            walk.check_all_came();
            walk.play({owner + ": close", "consumer: drain -> Closed", "consumer: close"});
            walk.check_name_is_free();
            walk.start_over();
        },
    .died = [](QueueLifeWalk& walk) { walk.start_over(); }};
// The segment of the dead is removed from outside (`penstock gc`).
constexpr QueuePromise kRemoves{.beside =
                                    [](QueueLifeWalk& walk) {
                                        if (walk.is_stopped())
                                            walk.must_soon("another: remove @ -> ok|NotFound");
                                    },
                                .completed =
                                    [](QueueLifeWalk& walk, const Answer&) {
                                        walk.check_name_is_free();
                                        walk.start_over();
                                    },
                                .died = [](QueueLifeWalk& walk) { walk.start_over(); }};
constexpr QueuePromise kChangesNothing{.completed = [](QueueLifeWalk& walk, const Answer&) {
    walk.must("consumer: drain 0 -> Timeout");
    walk.check_all_came();
    walk.everybody_leaves();
}};

std::vector<QueueRow> from_outside() {
    return {
        {.name = "create",
         .before = {"victim: start"},
         .act = "create @ 0 creator",
         .answer = "ok|AlreadyExists",
         .promise = &kCreates},
        {.name = "create over the dead",
         .before = {"creator: create @ 0 creator", "member: attach @ any 1000",
                    "creator: put 3 10000", "member: hold", "creator: die", "member: die",
                    "victim: start"},
         .act = "create @ 0 creator",
         .answer = "ok|AlreadyExists",
         .may_vanish = true,
         .promise = &kCreates},
        {.name = "remove abandoned",
         .before = {"creator: create @ 0 creator", "creator: put 3 10000", "creator: die",
                    "victim: start"},
         .act = "remove @",
         .answer = "ok removed=1",
         .may_vanish = true,
         .promise = &kRemoves},
        // Passes no point; its result is checked.
        {.name = "inspect",
         .before = {"producer: put 2 10000", "consumer: attach @ any 1000", "victim: start"},
         .act = "inspect @",
         .answer = "ok queued=2",
         .promise = &kChangesNothing},
    };
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    return crash_walk_main(argc, argv, {kQueueRole, play_queue_actor}, [] {
        std::vector<Operation> operations;
        add_rows<QueueStruckWalk>(operations, producers());
        add_rows<QueueStruckWalk>(operations, consumers());
        add_rows<QueueStruckWalk>(operations, finders());
        add_rows<QueueStruckWalk>(operations, newcomers());
        add_rows<QueueLifeWalk>(operations, ends());
        add_rows<QueueLifeWalk>(operations, leaving());
        add_rows<QueueLifeWalk>(operations, dropping());
        add_rows<QueueLifeWalk>(operations, from_outside());
        return operations;
    });
}

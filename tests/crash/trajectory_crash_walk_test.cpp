// The crash walk of trajectories: every point of every operation, a kill and a stop at each. Every
// operation that changes shared memory is a row; cast.hpp has the language of its scripts.
// Operations of the queue alone (creating, ending, discarding) are walked with the queue.
#include "tests/crash/trajectory_walk.hpp"

namespace penstock::trust {
namespace {

// Rows whose victim is a writer.
std::vector<TrajectoryRow> writers() {
    const auto rollouts_of_a_writer_in = [](const std::string& environment) {
        return Words{"victim: write @ " + environment, "writer: begin 4", "victim: begin 4",
                     "asker: park begin 1 15000"};
    };
    const Words and_a_group{"victim: write @ struck", "writer: begin 4", "victim: begin 4",
                            "asker: park begin 1 15000", "victim: put 1 3000",
                            // A put may free credit; this one did not.
                            "asker: asleep"};
    return {
        // A new writer takes no credit from others before it asks.
        {.name = "attach a writer",
         .before = {"victim: start", "writer: begin 8", "asker: park begin 1 15000"},
         .act = "write @ struck 1000",
         .must_pass = "membership.join.active",
         .then = {"victim: begin 1"},
         .frees_by_death = false},
        // There is credit for one more group, and the victim asks for it.
        {.name = "begin",
         .before = {"victim: write @ struck", "writer: begin 4", "victim: begin 3",
                    "asker: park begin 1 15000"},
         .act = "begin 1",
         .must_pass = "trajectories.begin.running"},
        {.name = "begin with the last credit",
         .before = {"victim: write @ steady", "writer: begin 4", "victim: begin 3",
                    "asker: write @ steady"},
         .act = "begin 1",
         .must_pass = "trajectories.begin.running",
         .no_credit_at = "trajectories.begin."},
        // There is no credit until another writer gives up a rollout.
        {.name = "begin blocked",
         .before = {"victim: write @ steady", "asker: write @ steady", "writer: begin 8"},
         .act = "begin 1",
         .must_pass = "signal.announce.set",
         .meanwhile = {"victim: rest", "writer: release"},
         .no_credit_at = "trajectories.begin."},
        // A dead writer has the credit: the victim finds and reaps it.
        {.name = "begin after a death",
         .before = {"doomed: write @ struck", "victim: write @ steady", "asker: write @ steady",
                    "doomed: begin 4", "writer: begin 4", "doomed: die"},
         .act = "begin 1",
         .must_pass = "queue.janitor.cleared"},
        // An abandoned rollout: its credit goes to a waiter.
        {.name = "release",
         .before = rollouts_of_a_writer_in("steady"),
         .act = "release",
         .must_pass = "signal.wake.cleared",
         .frees_by_itself = true},
        // A group, to a trainer that sleeps. It is always counted, as running or as queued.
        {.name = "put",
         .before = {"victim: write @ struck", "writer: begin 4", "victim: begin 4",
                    "asker: park begin 1 15000", "trainer: park recv 1 15000"},
         .act = "put 1 3000",
         .must_pass = "trajectories.put.put",
         .stopped = {"writer: begin 100 0 -> Timeout begun=4"}},
        // Before the look, no writer could have too much credit.
        {.name = "put beside a writer of its environment",
         .before = {"victim: write @ steady", "asker: write @ steady", "writer: begin 4",
                    "victim: begin 4", "trainer: park recv 1 15000"},
         .act = "put 1 3000",
         .must_pass = "trajectories.put.put",
         .stopped = {"writer: begin 100 0 -> Timeout begun=4"}},
        // With running rollouts, which become void, and a queued group, which stays.
        {.name = "writer closes",
         .before = and_a_group,
         .act = "close",
         .must_pass = "queue.close.resigned",
         .frees_by_itself = true},
        {.name = "writer departs",
         .before = and_a_group,
         .act = "depart",
         .must_pass = "queue.close.resigned",
         .frees_by_itself = true},
    };
}

// Rows whose victim is a trainer.
std::vector<TrajectoryRow> trainers() {
    const Words batch_in_hand{"writer: put 4 3000", "victim: batch", "asker: park begin 1 15000"};
    return {
        {.name = "attach a trainer",
         .before = {"asker: park begin 1 15000"},
         .act = "train @ 1000",
         .must_pass = "membership.join.active"},
        // Four groups are queued, or come while it sleeps: all at once, or two at a time.
        {.name = "next batch",
         .before = {"writer: put 4 3000"},
         .act = "batch",
         .must_pass = "queue.take.taken",
         .then = {"victim: ack 1"}},
        {.name = "next batch parked",
         .act = "batch",
         .must_pass = "signal.announce.set",
         .meanwhile = {"victim: rest", "victim: freeze", "writer: put 4 3000", "victim: thaw"},
         .then = {"victim: ack 1"}},
        {.name = "next batch in parts",
         .act = "batch",
         .must_pass = "queue.return.announced",
         .meanwhile = {"victim: rest", "victim: freeze", "writer: put 2 3000", "victim: thaw",
                       "victim: rest", "victim: freeze", "writer: put 2 3000", "victim: thaw"},
         .then = {"victim: ack 1"}},
        // Three groups make no batch. They are inspected and never delivered, whatever happens to
        // the trainer, so they are not marked as redelivered.
        {.name = "next batch without enough groups",
         .before = {"writer: put 3 3000"},
         .act = "batch 0",
         .answer = "Timeout",
         .must_pass = "queue.defer.returned"},
        // It has a batch, the rest of the window is running, and a writer waits for credit.
        {.name = "ack",
         .before = batch_in_hand,
         .act = "ack 1",
         .must_pass = "trajectories.ack.group"},
        {.name = "nack",
         .before = batch_in_hand,
         .act = "nack",
         .must_pass = "queue.return.announced"},
        // With groups queued that made no batch.
        {.name = "trainer closes",
         .before = {"writer: put 3 3000", "victim: batch 0 -> Timeout"},
         .act = "close",
         .must_pass = "queue.close.resigned"},
        // With a batch in hand, which comes again.
        {.name = "trainer departs",
         .before = batch_in_hand,
         .act = "depart",
         .must_pass = "queue.janitor.cleared",
         .then = {"victim: ack 1000"}},
    };
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    return crash_walk_main(argc, argv, {kTrajectoryRole, play_trajectory_actor}, [] {
        std::vector<Operation> operations;
        add_rows<WriterWalk>(operations, writers());
        add_rows<TrainerWalk>(operations, trainers());
        return operations;
    });
}

// The crash walk of Broadcast: every point of every operation, a kill and a stop at each. Every
// operation that changes shared memory is a row; cast.hpp has the language of its scripts. Messages
// of 1000 bytes lie in the ring, which holds fifteen, and those of 100000 in a block.
#include "tests/crash/broadcast_walk.hpp"

namespace penstock::trust {
namespace {

// Both readers drain, and the last of them removes the name. Every point of close() comes after the
// mark: the stream is closed, and not broken, even if the writer never continues.
void drain_closed(BroadcastWalk& walk) {
    if (walk.is_waiting("reader 0")) walk.parked_ends_with("Closed");
    walk.check_ended(walk.must("reader 1: drain 5000 -> Closed"));
    walk.readers_leave();
    walk.start_over();
}
constexpr BroadcastPromise kClosed{
    .completed = drain_closed, .died = drain_closed, .stopped = [](BroadcastWalk& walk) {
        walk.parked_ends_promptly_with("Closed");
        walk.check_name_is_taken();  // by the readers at least
    }};

// The writer has to wait, finds reader 1 dead and reaps it. By then a replacement has the rank or
// is told promptly that it is taken.
constexpr BroadcastPromise kReaped{
    .completed =
        [](BroadcastWalk& walk) {
            walk.rename("reader 1", "dead reader");
            walk.party("reader 1");
            walk.flow_and_check_blocks(20, false);
            walk.must("writer: stats -> ok reader_deaths=1");
            walk.writer_leaves();
            walk.parked_ends_with("Closed");
            walk.must("reader 1: drain 150 -> Closed");
            walk.readers_leave();
            walk.start_over();
        },
    .died =
        [](BroadcastWalk& walk) {
            walk.parked_ends_promptly_with("PeerDied");
            walk.must("reader 0: close-reader");
            walk.check_name_is_free();
            walk.start_over();
        },
    .stopped =
        [](BroadcastWalk& walk) {
            if (walk.must_soon("replacement: attach @ 1 0 -> ok|Busy").is_ok()) {
                walk.must("replacement: close-reader");
            }
            walk.check_stopped_writer();
        }};

// Rows whose victim is the writer.
std::vector<BroadcastRow> writers() {
    // Reader 1 dies with a message in the ring and a block in use.
    const Words dead_reader{"flow 1 1000",    "writer: send 1 100000", "reader 0: recv 1",
                            "reader 1: hold", "reader 1: keep 0",      "writer: send 12 1000",
                            "reader 1: hold", "reader 1: die"};
    return {
        // One reader is parked, the other idle.
        {.name = "send inline", .before = {"flow 3 1000"}, .act = "send 1 1000"},
        // The record does not fit before the end of the ring: a padding record comes first.
        {.name = "send with padding",
         .before = {"flow 14 1000"},
         .act = "send 1 3000",
         .must_pass = "broadcast.send.padded"},
        // All readers have caught up: the record goes to the beginning of the ring again.
        {.name = "send after a rewind",
         .before = {"flow 1 20000"},
         .act = "send 1 20000",
         .must_pass = "broadcast.rewind.stored",
         .is_wide = true},
        // No room: reader 1 has taken nothing yet. It starts when the writer sleeps.
        {.name = "send blocked",
         .before = {"writer: send 1000 1000 0 -> Timeout"},
         .act = "send 4 1000",
         .must_pass = "broadcast.wait.noted",
         .meanwhile = {"writer: rest", "reader 1: tell recv $accepted"},
         .under_way = 4,
         .stopped = {"reader 1: answer"}},
        // In a block that has to be reserved.
        {.name = "send large", .before = {"flow 1 1000"}, .act = "send 1 100000"},
        // In a block that was used before: the first one is freed on the way.
        {.name = "send large again",
         .before = {"flow 1 100000"},
         .act = "send 1 200000",
         .must_pass = "broadcast.give_back.counted"},
        // The blocks are full of what reader 1 has not taken yet. It starts when the writer sleeps.
        {.name = "send large blocked",
         .before = {"writer: send 2 400000"},
         .act = "send 1 400000",
         .must_pass = "broadcast.wait.noted",
         .meanwhile = {"writer: rest", "reader 1: tell recv 2"},
         .stopped = {"reader 1: answer"}},
        {.name = "loan and commit", .act = "loan-commit 1000"},
        {.name = "loan and commit large", .act = "loan-commit 100000"},
        {.name = "loan and drop large", .act = "loan-drop 100000", .under_way = 0},
        // Two seconds after the last large message its memory goes back to the system.
        {.name = "trim when idle",
         .before = {"flow 1 100000", "writer: idle 2050"},
         .act = "send 20 1000",
         .must_pass = "broadcast.trim.punched",
         .about = "broadcast.trim.",
         .meanwhile = {"reader 1: tell recv 20"},
         .under_way = 20,
         .trims = true},
        {.name = "close writer",
         .before = {"writer: send 3 1000"},
         .act = "close-writer",
         .under_way = 0,
         .instead = kClosed},
        // With a loan open, which its handle drops afterwards.
        {.name = "writer departs",
         .before = {"writer: send 3 1000", "writer: loan 1000"},
         .act = "depart",
         .under_way = 0,
         .then = {"writer: drop", "writer: close-writer"},
         .instead = kClosed},
        {.name = "reap a dead reader",
         .before = dead_reader,
         .act = "send 6 1000",
         .must_pass = "membership.reap.locked",
         .under_way = 6,
         .deaths = 1,
         .instead = kReaped},
        // Found while the writer waits for all readers. The death is reported there, in place of
        // the wait, and not a second time.
        {.name = "wait_ready finds a death",
         .before = dead_reader,
         .act = "wait-ready",
         .answer = "PeerDied peer=1",
         .must_pass = "membership.reap.locked",
         .under_way = 0,
         .instead = kReaped},
    };
}

// Rows whose victim is reader 1.
std::vector<BroadcastRow> readers() {
    std::vector<BroadcastRow> rows{
        // The first reader of its rank: the ring keeps all messages for it.
        {.name = "attach first",
         .before = {"writer: send 3 1000"},
         .act = "attach @ 1 1000",
         .then = {"reader 1: drain 150 -> Timeout first=0"}},
        // In place of a reader that left in good order.
        {.name = "attach replacement",
         .before = {"reader 1: attach @ 1 1000", "flow 3 1000", "reader 1: close-reader",
                    "writer: send 2 1000"},
         .act = "attach @ 1 1000",
         .replaces = true},
        // In place of a reader that died with a message in the ring and a block in use. The writer
        // sends while the victim is stopped, and may reap the dead one first. Messages were lost at
        // the rank, so the writer is told once, though it never waited.
        {.name = "attach after a death",
         .before = {"doomed: attach @ 1 1000", "writer: send 1 1000", "reader 0: recv 1",
                    "doomed: recv 1", "writer: send 1 100000", "reader 0: recv 1", "doomed: hold",
                    "doomed: keep 0", "writer: send 3 1000", "doomed: hold", "doomed: die"},
         .act = "attach @ 1 1000",
         .must_pass = "broadcast.holders.dropped",
         .deaths = 1,
         .stopped = {"writer: send 20 1000 50 -> *"},
         .replaces = true},
        // A message that is there already.
        {.name = "recv", .before = {"writer: send 2 1000"}, .act = "recv 1"},
        // Into the caller's buffer: consumed without a view.
        {.name = "recv into",
         .before = {"writer: send 2 1000"},
         .act = "recv-into",
         .must_pass = "broadcast.release.published"},
        // A message that comes while the reader sleeps.
        {.name = "recv parked",
         .act = "recv 1",
         .must_pass = "signal.announce.set",
         .meanwhile = {"reader 1: rest", "writer: send 1 1000"}},
        // The release wakes the writer: reader 1 has taken nothing yet.
        {.name = "recv and wake the writer",
         .before = {"writer: send 1000 1000 0 -> Timeout", "reader 0: recv $accepted",
                    "writer: park send 1 1000 300"},
         .act = "recv $accepted",
         .must_pass = "signal.wake.cleared"},
        {.name = "recv large", .before = {"writer: send 1 100000"}, .act = "recv 1"},
        // Holds the block instead of ring space.
        {.name = "keep",
         .before = {"writer: send 1 100000", "reader 0: recv 1", "reader 1: hold"},
         .act = "keep 0",
         .then = {"reader 1: recheck", "reader 1: release 0"}},
        // Releases a kept block long after the ring has passed its record.
        {.name = "release kept",
         .before = {"writer: send 1 100000", "reader 0: recv 1", "reader 1: hold",
                    "reader 1: keep 0", "flow 20 1000", "reader 1: recheck"},
         .act = "release 0"},
        // The second of three is released first, which frees nothing yet; then the first.
        {.name = "release out of order",
         .before = {"writer: send 3 1000", "reader 1: hold", "reader 1: hold", "reader 1: hold",
                    "reader 1: release 1"},
         .act = "release 0",
         .then = {"reader 1: recheck", "reader 1: release 2"},
         .released_before = 0,
         .released = 2},
        {.name = "close reader",
         .before = {"writer: send 3 1000"},
         .act = "close-reader",
         .leaves = true},
        // The handle is closed with a message kept; the reader leaves with that message.
        {.name = "close reader that keeps",
         .before = {"writer: send 1 100000", "reader 0: recv 1", "reader 1: hold",
                    "reader 1: keep 0", "reader 1: close-reader", "reader 1: recheck"},
         .act = "release 0",
         .leaves = true},
        // With a held message in the ring and a kept one in a block: both are released.
        {.name = "reader departs",
         .before = {"writer: send 1 100000", "reader 1: hold", "reader 1: keep 0",
                    "writer: send 3 1000", "reader 1: hold"},
         .act = "depart",
         .must_pass = "broadcast.leave.vacant",
         .leaves = true},
    };
    for (BroadcastRow& row : rows) row.victim = "reader 1";
    return rows;
}

// ---- the life of a segment

constexpr BroadcastPromise kCreated{
    .completed =
        [](BroadcastWalk& walk) {
            // Another process may have taken the name while the victim was stopped.
            require(walk.has_name != walk.outsider_has_name, "two writers of one name, or none");
            if (walk.outsider_has_name) walk.rename("outsider", "writer");
            walk.accepted = 0;
            walk.start_everybody();
            walk.flow(20, "1000");
            walk.everybody_leaves();
            walk.start_over();
        },
    // An attach finds nothing, or a dead writer.
    .died =
        [](BroadcastWalk& walk) {
            if (walk.must("visitor: attach @ 0 0 -> ok|NotFound|PeerDied").is_ok()) {
                walk.play({"visitor: drain 150 -> PeerDied", "visitor: close-reader"});
            }
            walk.start_over();
        },
    .stopped =
        [](BroadcastWalk& walk) {
            const bool is_there = walk.ask("visitor: attach @ 0 0").is_ok();
            const Answer second = walk.must_soon("outsider: " + BroadcastWalk::kCreate +
                                                 " -> AlreadyExists" + (is_there ? "" : "|ok"));
            walk.outsider_has_name = second.is_ok();
            if (is_there) walk.play({"visitor: drain 150 -> Timeout", "visitor: close-reader"});
        }};
// No wait for the stopped victim lasts for ever; the name may still be taken.
constexpr BroadcastPromise kLeft{
    .completed =
        [](BroadcastWalk& walk) {
            walk.check_name_is_free();
            walk.start_over();
        },
    .died = [](BroadcastWalk& walk) { walk.start_over(); },
    .stopped =
        [](BroadcastWalk& walk) {
            const std::string any = " -> ok|AlreadyExists|NotFound|Busy|Closed";
            if (walk.must_soon("outsider: " + BroadcastWalk::kCreate + any).is_ok()) {
                walk.must("outsider: close-writer");
            }
            if (walk.must_soon("visitor: attach @ 1 0" + any).is_ok()) {
                walk.must("visitor: close-reader");
            }
        }};
// The segment of the dead is removed from outside (`penstock gc`).
constexpr BroadcastPromise kRemoved{
    .completed = kLeft.completed, .died = kLeft.died, .stopped = [](BroadcastWalk& walk) {
        walk.must_soon("another: remove @ -> ok|NotFound");
    }};

std::vector<BroadcastRow> from_outside() {
    const std::string create = BroadcastWalk::kCreate;
    const Words wreck{"old writer: " + create,
                      "old reader: attach @ 0 1000",
                      "older reader: attach @ 1 1000",
                      "old writer: send 3 1000",
                      "old writer: die",
                      "old reader: die",
                      "older reader: die"};
    Words and_a_writer = wreck;
    and_a_writer.emplace_back("writer: start");
    Words and_a_collector = wreck;
    and_a_collector.emplace_back("collector: start");
    return {
        {.name = "create",
         .before = {"writer: start"},
         .act = create,
         .answer = "ok|AlreadyExists",
         .instead = kCreated},
        {.name = "create over the dead",
         .before = and_a_writer,
         .act = create,
         .answer = "ok|AlreadyExists",
         .instead = kCreated},
        // The last participant to leave removes the name.
        {.name = "writer leaves as last",
         .before = {"writer: " + create},
         .act = "close-writer",
         .instead = kLeft},
        {.name = "reader leaves as last",
         .before = {"writer: " + create, "reader 0: attach @ 0 1000", "writer: send 2 1000",
                    "reader 0: recv 2", "writer: close-writer"},
         .act = "close-reader",
         .victim = "reader 0",
         .instead = kLeft},
        {.name = "remove abandoned",
         .before = and_a_collector,
         .act = "remove @",
         .answer = "ok removed=1",
         .victim = "collector",
         .instead = kRemoved},
    };
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    return crash_walk_main(argc, argv, {kBroadcastRole, play_broadcast_actor}, [] {
        std::vector<Operation> operations;
        add_rows<BroadcastWriterWalk>(operations, writers());
        add_rows<BroadcastReaderWalk>(operations, readers());
        add_rows<BroadcastLifeWalk>(operations, from_outside());
        return operations;
    });
}

// The crash walk of the Store: every point of every operation, a kill and a stop at each. Every
// operation that changes shared memory is a row; cast.hpp has the language of its scripts.
#include "tests/crash/store_walk.hpp"

namespace penstock::trust {
namespace {

const StoreShape kFifo{.eviction = "fifo"};
const StoreShape kLru{.eviction = "lru"};
const StoreShape kNone{.eviction = "none"};

constexpr std::uint64_t kObject = taken_by(200'000);
constexpr std::uint64_t kOther = taken_by(100'000);
constexpr std::uint64_t kMost = 840'128;  // bytes of an object that leaves 8 KiB free

const ExpectedBy<Object> kThere{{"", Object::There}};
const ExpectedBy<Object> kThereInTheEnd{{"end", Object::There}, {"", Object::Gone}};
const ExpectedBy<Object> kCommitted{{"end", Object::There},
                                    {"store.commit.resident", Object::There},
                                    {"signal.", Object::There},
                                    {"words.change.described", Object::Gone},
                                    {"", Object::Either}};
const ExpectedBy<Object> kPut{{"end", Object::There},
                              {"store.commit.resident", Object::There},
                              {"words.change.", Object::Either},
                              {"", Object::Gone}};
const ExpectedBy<Object> kRemoved{{"end", Object::Gone},
                                  {"store.pin.held", Object::There},
                                  {"words.change.", Object::Either},
                                  {"", Object::Gone}};

// A process that dies in a commit, with a reservation and a pin on an object that was removed.
Words dead_one(const std::string& remover, const std::string& blow) {
    return {"writer: put 8 100000",      "doomed: get 8",
            remover + ": remove 8",      "doomed: reserve 9 100000",
            "doomed: reserve 10 100000", "doomed: die at " + blow + " in commit 10"};
}

// The key is held by the dead process, or by the victim, which reserves it next.
void look_at_what_the_dead_staged(StoreWalk& walk) {
    const Answer answer = walk.promptly("writer: put 7 10");
    if (answer.is_ok()) {
        walk.must_promptly("reader: remove 7");
    } else {
        require(answer.outcome == "Busy" && answer.number("peer") >= StoreWalk::kVictim,
                "it is being written: " + answer.line());
    }
}

// Whether the object is retained must not depend on its caller's life.
bool check_retained(StoreWalk& walk, bool is_retaining) {
    const bool is_done = walk.is_complete || walk.point == "store.pin.dropped";
    if (is_done != is_retaining) return false;
    const std::uint64_t rest = walk.row.store.capacity - walk.fixed() - kObject;
    walk.must_promptly(StoreWalk::room_of(rest));
    walk.must(StoreWalk::room_of(rest + 64) + " -> NoSpace");
    walk.must_promptly("reader: read 7");
    walk.must("writer: unretain 7");
    return true;
}

// A persistent store stays when the last participant leaves, dead or alive its setter.
void check_persistence(StoreWalk& walk) {
    require(!segments_left(walk.segment).empty(), "the persistent store is gone");
    walk.must_promptly("latecomer: put 1 1000");
    walk.must("latecomer: close");
    const KeptData kept = inspect_segment(walk.segment).kept;
    require(kept.persistent && kept.objects == 1, "it keeps " + kept.describe());
    require(!remove_if_abandoned(walk.segment), "it was collected with its objects");
    require(remove_if_abandoned(walk.segment, OnData::Remove), "it can't be removed");
}

std::vector<StoreRow> joining_and_leaving() {
    return {
        {.name = "attach", .act = "attach @ 1000", .must_pass = "membership.join.active"},
        // In the only other slot a process died with a pin, a reservation and a half-done change,
        // whose description the victim's own changes will overwrite.
        {.name = "attach over the dead",
         .store = {.participants = 3},
         .before = dead_one("reader", "words.change.installed:1"),
         .act = "attach @ 1000",
         .must_pass = "store.janitor.freeing"},
        {.name = "persist",
         .act = "persist",
         .must_pass = "store.persist.stays",
         .farewell = check_persistence},
        // With a reservation and a pin, which it releases first.
        {.name = "close",
         .store = kNone,
         .before = {"writer: put 8 100000", "victim: get 8", "writer: remove 8",
                    "victim: reserve 7 200000"},
         .act = "close",
         .must_pass = "membership.leave.retired",
         .then = {"victim: attach @ 1000"}},
        // Its reservation and pin are released as after a death, and its handles change nothing
        // more.
        {.name = "depart",
         .store = kNone,
         .before = {"writer: put 8 100000", "victim: get 8", "writer: remove 8",
                    "victim: reserve 7 200000"},
         .act = "depart",
         .must_pass = "membership.leave.retired",
         .then = {"victim: attach @ 1000"}},
    };
}

// The object is invisible before the commit, which the victim makes after its blow if it can.
std::vector<StoreRow> reserving() {
    std::vector<StoreRow> rows{
        {.name = "reserve", .store = kNone, .must_pass = "store.reserve.allocated"},
        {.name = "reserve, key first",
         .must_pass = "store.reserve.allocated",
         .is_key_first = true},
        // The store is full of evictable objects. The victim about to evict one has no claim on it,
        // nor on its room.
        {.name = "reserve evicting",
         .before = {"writer: fill 10 8 100000", "reader: read 10", "reader: read 12"},
         .must_pass = "store.evict.freeing",
         .owned = kObject + 2 * kOther,
         .owns_nothing_at = "store.evict.evicting:1:"},
        {.name = "reserve evicting fifo",
         .store = kFifo,
         .before = {"writer: fill 10 8 100000", "reader: read 10", "reader: read 12"},
         .must_pass = "store.evict.freeing",
         .owned = kObject + 2 * kOther,
         .is_key_first = true,
         .owns_nothing_at = "store.evict.evicting:1:"},
        // There are as many objects as index entries: 32.
        {.name = "reserve in a full index",
         .store = {.objects = 1},
         .before = {"writer: fill 10 30 100"},
         .must_pass = "store.evict.freeing",
         .is_key_first = true},
        // The key is staged by a dead writer, which the victim finds and reaps.
        {.name = "reserve over the dead",
         .before = {"doomed: reserve 7 200000", "doomed: die"},
         .must_pass = "store.janitor.freeing",
         .owned = 2 * kObject,
         .is_key_first = true,
         .look = look_at_what_the_dead_staged},
        {.name = "reserve over the dead, room first",
         .store = kNone,
         .before = {"doomed: reserve 7 200000", "doomed: die"},
         .must_pass = "store.janitor.freeing",
         .owned = 2 * kObject,
         .look = look_at_what_the_dead_staged},
    };
    for (StoreRow& row : rows) {
        row.act = "reserve 7 200000";
        row.object = kThereInTheEnd;
        row.then = {"victim: commit 7"};
    }
    return rows;
}

std::vector<StoreRow> writing() {
    return {
        {.name = "commit",
         .before = {"victim: reserve 7 200000"},
         .act = "commit 7",
         .must_pass = "store.commit.resident",
         .object = kCommitted},
        // The order is empty.
        {.name = "commit the first",
         .stage = {},
         .before = {"victim: reserve 7 200000"},
         .act = "commit 7",
         .must_pass = "store.commit.resident",
         .object = kCommitted},
        {.name = "commit for a waiter",
         .before = {"victim: reserve 7 200000", "waiter: park wait 7 15000"},
         .act = "commit 7",
         .must_pass = "signal.wake.woken",
         .object = kCommitted,
         .is_key_first = true},
        {.name = "put",
         .store = kLru,
         .act = "put 7 200000",
         .must_pass = "store.commit.resident",
         .object = kPut},
        {.name = "abort",
         .store = kNone,
         .before = {"victim: reserve 7 200000"},
         .act = "abort 7",
         .must_pass = "store.free.freed"},
        {.name = "resize shorter",
         .store = kNone,
         .before = {"victim: reserve 7 200000"},
         .act = "resize 7 90000",
         .must_pass = "heap.resize.resized",
         .bytes = 90'000,
         .object = kThereInTheEnd,
         .owned = kObject + taken_by(90'000),
         .then = {"victim: commit 7"}},
        {.name = "resize longer",
         .before = {"victim: reserve 7 200000"},
         .act = "resize 7 300000",
         .must_pass = "heap.resize.resized",
         .bytes = 300'000,
         .object = kThereInTheEnd,
         .owned = kObject + taken_by(300'000),
         .then = {"victim: commit 7"}},
    };
}

std::vector<StoreRow> reading() {
    const Words let_go{"writer: room $beside", "victim: recheck 7", "victim: release 7"};
    return {
        // Dead, the victim holds nothing. Stopped, it keeps its pin, which the others respect.
        {.name = "get",
         .before = {"writer: put 7 200000"},
         .act = "get 7",
         .must_pass = "store.pin.held",
         .object = kThere,
         .stopped = {"reader: read 7"},
         .then = let_go},
        // Readers move the object that they read to the end of the order.
        {.name = "get lru",
         .store = kLru,
         .before = {"writer: put 7 200000", "writer: put 9 100000", "writer: put 10 100000"},
         .act = "get 7",
         .must_pass = "words.change.replaced",
         .object = kThere,
         .stopped = {"reader: read 7"},
         .then = let_go},
        {.name = "get lru before the newest",
         .store = kLru,
         .before = {"writer: put 7 200000", "writer: put 9 100000"},
         .act = "get 7",
         .must_pass = "words.change.replaced",
         .object = kThere,
         .stopped = {"reader: read 7"},
         .then = let_go},
        {.name = "touch lru",
         .store = kLru,
         .before = {"writer: put 7 200000", "writer: put 9 100000", "writer: put 10 100000"},
         .act = "touch 7",
         .must_pass = "words.change.replaced",
         .object = kThere,
         .stopped = {"reader: read 7"}},
        // An evictor is stopped, before it looks for holders or after.
        {.name = "get during an eviction",
         .before = {"writer: put 7 200000",
                    "evictor: stop at store.evict.evicting:1 in room 700000"},
         .act = "get 7",
         .must_pass = "store.pin.held",
         .object = {{"end", Object::Either}, {"", Object::There}},
         .may_be_missed = true,
         .then = let_go,
         .tidy = {"evictor: resume", "evictor: close"}},
        // The evictor's first change reserved the key, its second removes the object.
        {.name = "get after an eviction was decided",
         .before = {"writer: put 7 200000",
                    "evictor: stop at words.change.described:2 in room 700000"},
         .act = "get 7",
         .must_pass = "store.pin.held",
         .object = {{"end", Object::Either}, {"", Object::There}},
         .may_be_missed = true,
         .then = let_go,
         .tidy = {"evictor: resume", "evictor: close"}},
        {.name = "release",
         .before = {"writer: put 7 200000", "victim: get 7"},
         .act = "release 7",
         .must_pass = "store.pin.dropped",
         .object = kThere},
        // The object was removed meanwhile; its last holder frees it, whichever process that is.
        {.name = "release the last pin",
         .store = kNone,
         .before = {"writer: put 7 200000", "victim: get 7", "writer: remove 7"},
         .act = "release 7",
         .must_pass = "store.collect.freeing",
         .owns_nothing_at = "store.pin.dropped:"},
    };
}

std::vector<StoreRow> removing_and_retaining() {
    return {
        {.name = "remove",
         .store = kNone,
         .before = {"writer: put 7 200000"},
         .act = "remove 7",
         .must_pass = "store.remove.doomed",
         .object = kRemoved},
        // The reader may continue.
        {.name = "remove beside a reader",
         .store = kNone,
         .before = {"writer: put 7 200000", "reader: get 7"},
         .act = "remove 7",
         .must_pass = "store.remove.doomed",
         .object = kRemoved,
         .reader_has_it = true,
         .tidy = {"reader: recheck 7", "reader: release 7"}},
        // The object takes nearly all memory, and the map's hint says that no large block is free.
        {.name = "remove with a low hint in the map",
         .store = kNone,
         .before = {"writer: put 7 " + std::to_string(kMost), "reader: room 50000 -> NoSpace"},
         .act = "remove 7",
         .must_pass = "heap.map.raised",
         .about = "heap.",
         .bytes = kMost,
         .object = kRemoved},
        // All objects, retained or pinned; a writer is refused at its commit.
        {.name = "clear",
         .stage = {"reader: reserve 8 100000"},
         .before = {"writer: put 7 200000", "writer: fill 10 3 100000", "writer: retain 11"},
         .act = "clear",
         .must_pass = "store.remove.doomed",
         .object = {{"end", Object::Gone}, {"", Object::Either}},
         .owned = std::uint64_t{1} << 20U,
         .stays = kOther,
         .then = {"reader: commit 8 -> Expired"},
         .after_death = {"reader: commit 8 -> Expired|ok"},
         .room_first = {"writer: unretain 11 -> *"}},
        {.name = "pin",
         .before = {"writer: put 7 200000"},
         .act = "retain 7",
         .must_pass = "store.pin.dropped",
         .object = kThere,
         .room = [](StoreWalk& walk) { return check_retained(walk, true); }},
        {.name = "unpin",
         .before = {"writer: put 7 200000", "writer: retain 7"},
         .act = "unretain 7",
         .must_pass = "store.pin.dropped",
         .object = kThere,
         .room = [](StoreWalk& walk) { return check_retained(walk, false); }},
    };
}

std::vector<StoreRow> memory_and_the_dead() {
    return {
        {.name = "trim",
         .store = {.capacity = std::uint64_t{3} << 20U},
         .before = {"writer: put 7 2500000", "writer: remove 7"},
         .act = "trim",
         .answer = "ok bytes>0",
         .must_pass = "heap.trim.punched",
         .owned = std::uint64_t{1} << 20U},
        {.name = "clear the dead",
         .before = dead_one("writer", "words.change.installed:2"),
         .act = "clear-dead",
         .must_pass = "store.janitor.freeing",
         .owned = 3 * kOther},
    };
}

// Another process is stopped in a half-done change: the victim meets it, helps, and is struck.
std::vector<StoreRow> beside_a_half_change() {
    const Words resume{"staller: resume", "staller: close"};
    return {
        {.name = "reserve beside a half reserve",
         .before = {"staller: stop at words.change.installed:4 in put 9 100000"},
         .act = "reserve 7 200000",
         .must_pass = "store.reserve.allocated",
         .object = kThereInTheEnd,
         .stays = kOther,
         .then = {"victim: commit 7"},
         .tidy = resume},
        {.name = "commit beside a half commit",
         .before = {"staller: reserve 9 100000", "victim: reserve 7 200000",
                    "staller: stop at words.change.installed:2 in commit 9"},
         .act = "commit 7",
         .must_pass = "store.commit.resident",
         .object = kCommitted,
         .stays = kOther,
         .tidy = resume},
        {.name = "remove beside a half remove",
         .before = {"staller: put 9 100000", "writer: put 7 200000",
                    "staller: stop at words.change.installed:2 in remove 9"},
         .act = "remove 7",
         .must_pass = "store.remove.doomed",
         .object = kRemoved,
         .stays = kOther,
         .tidy = resume},
        {.name = "abort beside a half abort",
         .store = kNone,
         .before = {"staller: reserve 9 100000", "victim: reserve 7 200000",
                    "staller: stop at words.change.installed:2 in abort 9"},
         .act = "abort 7",
         .must_pass = "store.free.freed",
         .stays = kOther,
         .tidy = resume},
    };
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    return crash_walk_main(argc, argv, {kStoreRole, play_store_actor}, [] {
        std::vector<Operation> operations;
        add_rows<StoreWalk>(operations, joining_and_leaving());
        add_rows<StoreWalk>(operations, writing());
        add_rows<StoreWalk>(operations, reserving());
        add_rows<StoreWalk>(operations, reading());
        add_rows<StoreWalk>(operations, removing_and_retaining());
        add_rows<StoreWalk>(operations, memory_and_the_dead());
        add_rows<StoreWalk>(operations, beside_a_half_change());
        return operations;
    });
}

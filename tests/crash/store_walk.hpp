// The promises of the Store as checks: whatever happens to the victim, the others put and get, see
// its object whole or not at all, get the memory and the key of the dead at once, and lose no
// object in use. Memory in use is inspected from outside, to the byte.
#pragma once

#include <string>
#include <utility>

#include "penstock/store.hpp"
#include "tests/crash/cast.hpp"
#include "tests/support/store_actor.hpp"

namespace penstock::trust {

// The expected state of the row's object, number 7.
enum class Object { There, Gone, Either };

struct StoreShape {
    const char* eviction = "sieve";
    std::uint64_t capacity = std::uint64_t{1} << 20U;
    std::uint64_t objects = 1024;
    unsigned participants = 8;
};

class StoreWalk;

// Allocated first, so that the rest is one piece: an object that is retained, and one that the
// reader has pinned.
inline const Words kStoreStage{"writer: put 1 100000", "writer: retain 1", "writer: put 2 100000",
                               "reader: get 2"};

struct StoreRow {
    const char* name;
    StoreShape store = {};
    Words stage = kStoreStage;  // before the victim joins
    Words before = {};
    std::string act = {};
    const char* answer = "ok";
    const char* must_pass = "";
    const char* about = "";
    Words meanwhile = {};

    std::uint64_t bytes = 200'000;  // of the row's object
    ExpectedBy<Object> object = {{"", Object::Gone}};
    std::uint64_t owned = 0;     // memory that the stopped victim may own; 0: the object's size
    std::uint64_t stays = 0;     // bytes that others hold until `tidy`
    bool reader_has_it = false;  // the object is pinned, until `tidy`
    bool may_be_missed = false;  // a victim that was stopped may find the object gone
    bool is_key_first = false;   // after a death the key is wanted before the memory
    std::string owns_nothing_at = {};  // stopped there, it leaves all memory to others

    Words stopped = {};                  // what others can do promptly while the victim is stopped
    Words then = {};                     // what the victim still does after its act
    Words tidy = {};                     // what the others still do
    Words after_death = {};              // before `tidy`
    Words room_first = {};               // before all memory is wanted
    void (*look)(StoreWalk&) = nullptr;  // checks the object of a stopped victim
    bool (*room)(StoreWalk&) = nullptr;  // checks the memory; false: as usual
    void (*farewell)(StoreWalk&) = nullptr;  // when all have left
};

class StoreWalk : public Cast<StoreRow> {
public:
    using Cast::Cast;

    void prepare() override {
        must("writer: create @ " + text(row.store.capacity) + " " + text(row.store.objects) + " " +
             text(row.store.participants) + " " + row.store.eviction);
        party("reader");
        play(row.stage);
        is_staged_ = row.stage == kStoreStage;
        if (row.act.starts_with("attach")) {
            must("victim: start");
        } else {
            party("victim");
        }
        play(row.before);
    }
    // Points in code that all segments share are walked with the queue.
    [[nodiscard]] bool is_about(const std::string& passed) const override {
        return Cast::is_about(passed) && !passed.starts_with("segment.");
    }

    void after_completion(const Answer& answer) override {
        const bool is_missed = row.may_be_missed && blow_at != 0 && answer.outcome == "NotFound";
        if (!is_missed) take_answer(answer);
        is_complete = true;
        if (!is_missed) play_out(row.then);
        tidy();
        check_object();
        flow();
        check_room();
        check_fixed();
        check_accounts();
        must_promptly("victim: put 900 1000");
        must_promptly("victim: read 900");
        must_promptly("reader: read 900");
        everybody_leaves();
    }
    void after_death() override {
        await_death("victim");
        check_object();
        if (row.is_key_first) reserve_key();
        check_room();
        if (!row.is_key_first) reserve_key();
        play_out(row.after_death);
        tidy();
        flow();
        check_fixed();
        must("writer: clear-dead");
        check_accounts();
        everybody_leaves();
    }
    void while_stopped() override {
        if (is_struck_at({row.owns_nothing_at})) {
            must_promptly(room_of(row.store.capacity - fixed()));
        }
        row.look != nullptr ? row.look(*this) : look_at_object();
        flow();
        check_fixed();
        check_free_is_free();
        check_room_beside();
        for (const std::string& line : row.stopped) must_promptly(line);
    }

    // ---- for the hooks of rows

    static constexpr std::int64_t kVictim = 2;
    bool is_complete = false;

    [[nodiscard]] Object expected() const {
        const std::string at = is_complete ? "end" : point;
        for (const auto& one : row.object) {
            if (at.starts_with(one.at)) return one.value;
        }
        return Object::Either;
    }
    [[nodiscard]] StoreStats stats() const { return inspect_store(segment).stats; }
    [[nodiscard]] std::uint64_t fixed() const { return is_staged_ ? 2 * taken_by(100'000) : 0; }
    [[nodiscard]] static std::string text(std::uint64_t number) { return std::to_string(number); }
    [[nodiscard]] static std::string room_of(std::uint64_t bytes) {
        return "writer: room " + text(bytes - 64);
    }

protected:
    [[nodiscard]] std::string join_line(const std::string&) const override {
        return "attach @ 1000";
    }
    [[nodiscard]] Process start(std::uint64_t) const override { return Process::start(kStoreRole); }

private:
    [[nodiscard]] bool evicts() const { return std::string(row.store.eviction) != "none"; }
    // Bytes in use beside the stage's objects that are not evicted.
    [[nodiscard]] std::uint64_t also_stays() const {
        const bool is_read = row.reader_has_it && !is_tidy_;
        const bool is_kept = is_there_ && !evicts();
        return (is_tidy_ ? 0 : row.stays) + (is_read || is_kept ? taken_by(row.bytes) : 0);
    }
    // "$beside": all memory beside the object.
    void play_out(const Words& script) {
        for (std::string line : script) {
            const auto at = line.find("$beside");
            if (at == std::string::npos) {
                must(line);
            } else {
                must_promptly(line.replace(
                    at, 7, text(row.store.capacity - fixed() - taken_by(row.bytes) - 64)));
            }
        }
    }
    void tidy() {
        play(row.tidy);
        is_tidy_ = true;
    }

    void check_object() {
        const std::int64_t since = os::monotonic_ns();
        const Answer answer = promptly("reader: read 7");
        is_there_ = answer.is_ok();
        require(is_there_ || answer.outcome == "NotFound", "there or not: " + answer.line());
        require(!is_there_ || expected() != Object::Gone, "it is there, and should not be");
        require(is_there_ || expected() != Object::There, "it is not there, and should be");
        require(!is_there_ || std::cmp_equal(answer.number("bytes"), row.bytes),
                "it is not whole: " + answer.line());
        if (is_there_) waiter_gets(since);
    }
    // A waiter for the object has it now.
    void waiter_gets(std::int64_t since) {
        if (!has("waiter") || is_waiter_served_) return;
        noticed(since, must("waiter: answer"), "the object that was waited for");
        must("waiter: close");
        is_waiter_served_ = true;
    }
    // After a death the key can be reserved.
    void reserve_key() {
        const std::int64_t since = os::monotonic_ns();
        const Answer answer = promptly("writer: put 7 " + text(row.bytes));
        const bool is_certain = expected() != Object::Either;
        if (answer.outcome == "AlreadyExists") {
            // The dead process's change was finished by a helper.
            require(is_there_ || !is_certain, "it was not there: " + answer.line());
        } else {
            require(answer.is_ok(), "the key of the dead: " + answer.line());
            require(!is_there_ || !is_certain, "it was there, and is put again");
        }
        must_promptly("reader: read 7");
        is_there_ = true;
        waiter_gets(since);
    }
    // The object of a stopped victim: whole, or staged with its writer named, or missing.
    void look_at_object() {
        const Answer answer = promptly("reader: look 7");
        if (answer.text("state") == "staged") {
            require(answer.number("peer") == kVictim, "staged by another: " + answer.line());
            must_promptly("writer: put 7 10 -> Busy peer=" + text(kVictim));
        }
        check_object();
    }

    // The others put and get, whatever state the victim is in.
    void flow() {
        const std::string number = text(1000 + ++flows_);
        must_promptly("writer: put " + number + " 1000");
        must_promptly("reader: read " + number);
        must_promptly("reader: remove " + number);
        must_promptly("writer: read " + number + " -> NotFound");
    }
    // All memory that the living do not use is available, in one piece.
    void check_room() {
        play(row.room_first);
        if (row.room != nullptr && row.room(*this)) return;
        must_promptly(room_of(row.store.capacity - fixed() - also_stays()));
        if (evicts()) is_there_ = false;
    }
    // The stopped victim's memory may lie anywhere, so half of the rest is one piece.
    void check_room_beside() {
        const std::uint64_t owned = row.owned != 0 ? row.owned : taken_by(row.bytes);
        const std::uint64_t used = fixed() + owned + also_stays();
        if (!evicts() || row.store.capacity <= used) return;
        must_promptly(room_of((row.store.capacity - used) / 2 / 64 * 64 - 64));
    }
    // The memory that statistics call free can be allocated.
    void check_free_is_free() {
        const std::uint64_t free = stats().largest_free;
        if (free > 128) must_promptly(room_of(free));
    }
    void check_fixed() {
        if (!is_staged_) return;
        must_promptly("reader: read 1");
        must_promptly("reader: recheck 2");
    }

    // The memory in use is what the objects take, to the byte.
    void check_accounts() {
        const Answer sum = must("reader: sum");
        const StoreStats now = stats();
        const std::uint64_t in_use = is_staged_ ? 1 : 0;
        const auto is = [&sum](const char* key, std::uint64_t value) {
            return std::cmp_equal(sum.number(key), value);
        };
        require(now.used_bytes + now.free_bytes == now.capacity && now.staged == 0 &&
                    now.staged_bytes == 0 && now.doomed == 0 && now.doomed_bytes == 0 &&
                    now.other_bytes == 0 && is("objects", now.objects) &&
                    is("bytes", now.object_bytes) && is("taken", now.used_bytes) &&
                    now.padding_bytes == now.used_bytes - now.object_bytes &&
                    now.in_use == in_use && now.retained == in_use,
                "the objects are " + sum.line() + ", the accounts: " + describe(now));
    }
    static std::string describe(const StoreStats& stats) {
        return text(stats.used_bytes) + " used, " + text(stats.free_bytes) + " free, " +
               text(stats.objects) + " objects of " + text(stats.object_bytes) + ", " +
               text(stats.staged) + " staged of " + text(stats.staged_bytes) + ", " +
               text(stats.doomed) + " doomed of " + text(stats.doomed_bytes) + ", padding " +
               text(stats.padding_bytes) + ", other " + text(stats.other_bytes) + ", in use " +
               text(stats.in_use) + ", retained " + text(stats.retained);
    }
    void check_empty() const {
        const StoreStats now = stats();
        require(now.used_bytes == 0 && now.objects + now.staged + now.doomed == 0 &&
                    now.largest_free == now.capacity,
                "everything is removed, and in one piece only " + text(now.largest_free) +
                    " bytes are free: " + describe(now));
    }

    void everybody_leaves() {
        if (is_alive("victim")) must("victim: close");
        if (is_staged_) play({"reader: release 2", "writer: unretain 1"});
        is_staged_ = false;
        must("writer: clear");
        check_empty();
        // No entry of index and order was lost: as many objects as fit go in, and out again.
        must("writer: fill 2000 8 " + text(row.store.capacity / 8 - 64));
        check_accounts();
        if (evicts()) must(room_of(row.store.capacity));
        for (unsigned i = 0; !evicts() && i < 8; ++i) must("reader: remove " + text(2000 + i));
        check_empty();
        play({"reader: close", "writer: close"});
        if (row.farewell != nullptr) row.farewell(*this);
        check_name_is_free();
    }

    bool is_staged_ = false;  // the stage's two objects exist
    bool is_there_ = false;   // the object existed, at the last look
    bool is_tidy_ = false;
    bool is_waiter_served_ = false;
    unsigned flows_ = 0;
};

}  // namespace penstock::trust

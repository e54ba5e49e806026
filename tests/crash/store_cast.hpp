// The cast of a scenario of the Store, what they keep from being evicted, and what the accounts
// must say: looked up from outside, where no process's opinion counts.
#pragma once

#include <algorithm>
#include <string>

#include "penstock/store.hpp"
#include "tests/support/crash_walk.hpp"
#include "tests/support/store_actor.hpp"

namespace penstock::trust {

// What a scenario's store is like.
struct StoreStageShape {
    const char* eviction = "sieve";
    std::uint64_t capacity = std::uint64_t{1} << 20U;
    std::uint64_t objects = 1024;
    unsigned participants = 8;
};

class StoreCast : public Scenario {
public:
    StoreCast(std::string segment, const StoreStageShape& shape)
        : segment_(std::move(segment)), shape_(shape) {}

protected:
    // The lowest in memory, so that what is left is one piece.
    static constexpr const char* kKept = "1";  // by pin()
    static constexpr const char* kHeld = "2";  // by the reader
    static constexpr std::uint64_t kFixed = 100'000;
    static constexpr std::uint64_t kStruck = 200'000;  // bytes of the object that it is about
    static constexpr const char* kKey = "7";           // and its number

    struct Party {
        std::string name;
        Actor actor;
    };

    // Bytes of the heap that an object takes: its key in 64, then its own.
    [[nodiscard]] static std::uint64_t taken(std::uint64_t bytes) {
        return 64 + (bytes + 63) / 64 * 64;
    }
    [[nodiscard]] static std::string text(std::uint64_t number) { return std::to_string(number); }

    static void start(Party& party, const std::string& name) {
        party.name = name;
        party.actor = Actor(name, Process::start(kStoreRole));
    }
    [[nodiscard]] std::string create_line() const {
        return "create " + segment_ + " " + text(shape_.capacity) + " " + text(shape_.objects) +
               " " + text(shape_.participants) + " " + shape_.eviction;
    }
    [[nodiscard]] std::string attach_line() const { return "attach " + segment_ + " 1000"; }
    void start_member(Party& party, const std::string& name) {
        start(party, name);
        party.actor.must(attach_line());
    }
    static void kill(Party& party) {
        party.actor.process().kill();
        await_death(party);
    }
    static void await_death(Party& party) {
        require(party.actor.process().wait(kPatience).has_value(), party.name + " lives on");
    }
    static void put(Party& party, const std::string& number, std::uint64_t bytes) {
        party.actor.must("put " + number + " " + text(bytes));
    }
    // It is struck down at the first passing of that point.
    static void strike(Party& party, const std::string& blow, const std::string& act) {
        party.actor.must("arm " + blow);
        party.actor.tell(act);
        Process& process = party.actor.process();
        require(await(kPatience, [&] { return process.is_stopped() || process.is_over(); }),
                party.name + " never passed " + blow);
    }

    // What is asked must be answered in the time that noticing may take.
    Answer promptly(Party& party, const std::string& line) {
        const std::int64_t since = os::monotonic_ns();
        Answer answer = party.actor.ask(line);
        if (blow_at != 0) noticed_after(answer.number("t") - since, "'" + line + "'");
        return answer;
    }
    void must_promptly(Party& party, const std::string& line) {
        const Answer answer = promptly(party, line);
        require(answer.is_ok(),
                party.name + " was asked to " + line + " and says: " + answer.line());
    }

    [[nodiscard]] StoreStats look() const { return inspect_store(segment_).stats; }

    // None is at work: all that is used is what the objects take, to the byte.
    void check_accounts() {
        const Answer sum = reader_.actor.must("sum");
        const StoreStats stats = look();
        const auto objects = static_cast<std::uint64_t>(sum.number("objects"));
        const auto bytes = static_cast<std::uint64_t>(sum.number("bytes"));
        const auto used = static_cast<std::uint64_t>(sum.number("taken"));
        require(stats.used_bytes + stats.free_bytes == stats.capacity,
                "used and free are not the capacity: " + describe(stats));
        require(stats.staged == 0 && stats.staged_bytes == 0, "staged: " + describe(stats));
        require(stats.doomed == 0 && stats.doomed_bytes == 0, "doomed: " + describe(stats));
        require(stats.other_bytes == 0, "on the way: " + describe(stats));
        require(stats.objects == objects && stats.object_bytes == bytes,
                "objects " + text(objects) + " of " + text(bytes) + " bytes: " + describe(stats));
        require(stats.used_bytes == used && stats.padding_bytes == used - bytes,
                "the objects take " + text(used) + ": " + describe(stats));
        require(stats.in_use == pinned_, "pinned by the living: " + describe(stats));
        require(stats.retained == kept_, "kept: " + describe(stats));
    }
    static std::string describe(const StoreStats& stats) {
        return text(stats.used_bytes) + " used, " + text(stats.free_bytes) + " free, " +
               text(stats.objects) + " objects of " + text(stats.object_bytes) + ", " +
               text(stats.staged) + " staged of " + text(stats.staged_bytes) + ", " +
               text(stats.doomed) + " doomed of " + text(stats.doomed_bytes) + ", padding " +
               text(stats.padding_bytes) + ", other " + text(stats.other_bytes) + ", pinned " +
               text(stats.in_use) + ", kept " + text(stats.retained);
    }
    void check_empty() const {
        const StoreStats stats = look();
        require(stats.used_bytes == 0 && stats.objects + stats.staged + stats.doomed == 0,
                "everything is removed, and: " + describe(stats));
        require(stats.largest_free == stats.capacity,
                "everything is free, in pieces: " + text(stats.largest_free));
    }
    // The last one has left.
    virtual void check_name() {
        require(segments_left(segment_).empty(), "the last one left, and its name is still there");
    }

    std::string segment_;
    StoreStageShape shape_;
    std::uint64_t pinned_ = 0;  // objects, by the living
    std::uint64_t kept_ = 0;
    Party writer_;  // created it
    Party reader_;
    Party victim_;
};

}  // namespace penstock::trust

// The promises of a Broadcast as checks: no message is lost, doubled, torn or leaked, and a process
// is blocked only by a participant that the contract names.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>
#include <string>

#include "penstock/broadcast.hpp"
#include "tests/crash/cast.hpp"
#include "tests/support/broadcast_actor.hpp"

namespace penstock::trust {

class BroadcastWalk;

// Expectations that replace the usual ones. Without `died`, a death is checked like a completion.
struct BroadcastPromise {
    void (*completed)(BroadcastWalk&) = nullptr;
    void (*died)(BroadcastWalk&) = nullptr;
    void (*stopped)(BroadcastWalk&) = nullptr;
};

// "flow 3 1000" in `before`: the writer sends three messages of 1000 bytes to both readers.
// "$accepted" is the number of messages sent so far.
struct BroadcastRow {
    const char* name;
    Words before = {};
    std::string act = {};
    const char* answer = "ok";
    const char* must_pass = "";
    const char* about = "";
    Words meanwhile = {};

    const char* victim = "writer";
    std::int64_t under_way = 1;  // messages that the act may have published before it died
    std::int64_t deaths = 0;     // that the writer must report in the end
    Words stopped = {};          // while the victim is stopped, first
    Words then = {};             // what the victim, or reader 1, still does after the act
    bool is_wide = false;        // the ring has 128 KiB
    bool trims = false;          // memory goes back to the system
    bool leaves = false;         // reader 1 is gone after its act and is replaced
    bool replaces = false;       // reader 1 replaces another, and misses its messages
    int released_before = -1;    // messages that reader 1 released before its act; -1: any,
    int released = -1;           // and after it
    BroadcastPromise instead = {};
};

// A writer, with a ring of 16 KiB and 16 blocks, and two readers.
class BroadcastWalk : public Cast<BroadcastRow> {
public:
    using Cast::Cast;

    // ---- for the promises

    static inline const std::string kCreate = "create @ 2 16384 1048576 raise";
    static inline const std::string kCreateWide = "create @ 2 131072 1048576 raise";
    static constexpr std::int64_t kLargeBlock = std::int64_t{2} * 65536;
    static constexpr int kShortWait = 150;  // ms

    void start_everybody() {
        for (const char* one : {"writer", "reader 0", "reader 1"}) party(one);
    }
    // Sends, while these readers receive. The parked reader, too, receives before the next send.
    void flow(int count, const std::string& size, bool has_reader_0 = true) {
        const std::string recv = "recv " + std::to_string(count);
        must("writer: tell send " + std::to_string(count) + " " + size);
        if (has_reader_0) must("reader 0: tell " + recv);
        must("reader 1: tell " + recv);
        must("writer: answer");
        if (has_reader_0) check_up_to_date(must("reader 0: answer"));
        check_up_to_date(must("reader 1: answer"));
        require(await(kPatience, [this] { return look().readers.at(0).lag_messages == 0; }),
                "reader 0 stands still");
    }
    // Twenty small messages, two large: only the second large one's block is not free at the end.
    void flow_and_check_blocks(int small, bool has_reader_0 = true) {
        flow(small, "1000", has_reader_0);
        flow(1, "100000", has_reader_0);
        flow(1, "100000", has_reader_0);
        const std::int64_t held = must("writer: stats").number("held_bytes");
        require(held == kLargeBlock, std::to_string(held) + " bytes of blocks are held, and " +
                                         std::to_string(kLargeBlock) + " should be");
    }
    // The reader has received every accepted message, in order, and nothing else.
    void check_up_to_date(const Answer& answer) const {
        require(answer.number("next") == accepted, "a reader is at " + answer.text("next") +
                                                       ", the writer at " +
                                                       std::to_string(accepted));
    }
    void writer_leaves() {
        const std::int64_t told = must("writer: close-writer").number("deaths");
        require(told >= least_deaths && told <= most_deaths,
                "the writer was told of " + std::to_string(told) + " deaths, not of " +
                    std::to_string(least_deaths) + " to " + std::to_string(most_deaths));
        least_deaths = most_deaths = 0;
    }
    void readers_leave() {
        play({"reader 0: close-reader", "reader 1: close-reader"});
        check_name_is_free();
    }
    // All leave in good order; the last removes the name.
    void everybody_leaves() {
        writer_leaves();
        for (const char* one : {"reader 0", "reader 1"}) {
            check_up_to_date(must(std::string(one) + ": drain 150 -> Closed"));
        }
        readers_leave();
    }
    // The name can be used again, and the new segment works.
    void start_over() {
        dismiss_all();
        least_deaths = most_deaths = 0;
        start_everybody();
        flow(20, "1000");
        flow(1, "100000");
        everybody_leaves();
    }
    // A reader that ended received every accepted message; of the messages under way all or
    // nothing.
    void check_ended(const Answer& answer) const {
        const std::int64_t next = answer.number("next");
        require(next >= accepted && next <= accepted + row.under_way,
                "a reader ended at " + std::to_string(next) + " of " + std::to_string(accepted) +
                    " accepted and " + std::to_string(row.under_way) + " under way");
    }
    // The outcome of the parked reader.
    Answer parked_ends_with(const std::string& outcome) {
        Answer answer = must("reader 0: answer -> " + outcome);
        check_ended(answer);
        return answer;
    }
    // The same, within the bound after the blow.
    Answer parked_ends_promptly_with(const std::string& outcome) {
        Answer answer = parked_ends_with(outcome);
        noticed(blow_at, answer, "a parked reader's end");
        return answer;
    }
    void check_name_is_taken() { must_soon("outsider: " + kCreate + " -> AlreadyExists"); }
    // A stopped writer is not taken for dead.
    void check_stopped_writer() {
        const auto early = party("reader 0").actor.hear(Milliseconds(kShortWait));
        require(!early, "a reader took a stopped writer for dead: " + (early ? early->line() : ""));
        check_name_is_taken();
        const BroadcastInfo info = look();
        const Participant* writer = find_slot(info, 0);
        require(writer != nullptr && writer->alive && writer->stopped,
                "the writer should be shown as alive and stopped");
        require(!row.trims || std::cmp_less_equal(info.stats.held_bytes, kLargeBlock),
                "trimming has taken more than there is");
    }
    [[nodiscard]] BroadcastInfo look() const { return inspect_broadcast(segment); }
    using Cast::is_waiting;
    using Cast::party;
    using Cast::rename;

    bool has_name = true;  // the victim, in the end
    bool outsider_has_name = false;
    std::int64_t accepted = 0;  // messages that the writer reported as sent
    std::int64_t received_by_0 = 0;
    std::int64_t least_deaths = 0;  // that the writer must have reported in the end
    std::int64_t most_deaths = 0;

protected:
    [[nodiscard]] std::string victim_name() const override { return row.victim; }
    [[nodiscard]] std::string join_line(const std::string& name) const override {
        if (name == "writer") return row.is_wide ? kCreateWide : kCreate;
        return "attach @ " + std::string(name == "reader 0" ? "0" : "1") + " 1000";
    }
    [[nodiscard]] Process start(std::uint64_t) const override {
        return Process::start(kBroadcastRole);
    }
    void note(Party& one, const Words& told, const Answer& answer) override {
        if (one.name == "writer") accepted = answer.number("sent", accepted);
        if (one.name == "reader 0") received_by_0 = answer.number("next", received_by_0);
        if (told[0] == "create" && answer.is_ok()) accepted = received_by_0 = 0;
    }
    void set_up(const Words& script) {
        for (const std::string& line : script) {
            std::istringstream words(line);
            std::string verb;
            std::string size;
            int count = 0;
            if (words >> verb >> count >> size; verb == "flow") {
                flow(count, size);
            } else {
                must(filled(line));
            }
        }
        row.act = filled(row.act);
        least_deaths = most_deaths = row.deaths;
    }
    [[nodiscard]] std::string filled(std::string line) const {
        const auto at = line.find("$accepted");
        return at == std::string::npos ? line : line.replace(at, 9, std::to_string(accepted));
    }
    void meanwhile() override {
        for (const std::string& line : row.meanwhile) must(filled(line));
    }
    static const Participant* find_slot(const BroadcastInfo& info, unsigned slot) {
        for (const Participant& one : info.segment.participants) {
            if (one.slot == slot) return &one;
        }
        return nullptr;
    }
};

// The victim is the writer. Reader 0 is parked in recv, reader 1 is idle or does what the act
// needs.
class BroadcastWriterWalk : public BroadcastWalk {
public:
    using BroadcastWalk::BroadcastWalk;

    void prepare() override {
        start_everybody();
        set_up(row.before);
        must("reader 0: park drain -1");
    }
    void after_completion(const Answer& answer) override {
        take_answer(answer);
        play(row.then);
        if (row.instead.completed != nullptr) return row.instead.completed(*this);
        if (is_waiting("reader 1")) ask("reader 1: answer");
        must("reader 1: drain 150 -> Timeout");
        check_up_to_date(must("reader 1: drain 1 -> Timeout"));
        flow_and_check_blocks(5, false);
        writer_leaves();
        parked_ends_with("Closed");
        must("reader 1: drain 150 -> Closed");
        readers_leave();
        start_over();
    }
    void after_death() override {
        if (row.instead.died != nullptr) return row.instead.died(*this);
        const Answer parked = parked_ends_promptly_with("PeerDied");
        if (is_waiting("reader 1")) ask("reader 1: answer");
        must("reader 1: drain 5000 -> PeerDied next=" + parked.text("next"));
        readers_leave();
        start_over();
    }
    void while_stopped() override {
        play(row.stopped);
        if (row.instead.stopped != nullptr) return row.instead.stopped(*this);
        check_stopped_writer();
    }
};

// The victim is reader 1. The writer and reader 0 continue.
class BroadcastReaderWalk : public BroadcastWalk {
public:
    using BroadcastWalk::BroadcastWalk;

    void prepare() override {
        party("writer");
        party("reader 0");
        if (row.act.starts_with("attach")) must("reader 1: start");
        party("reader 1");
        set_up(row.before);
        check_released(row.released_before);
    }
    void after_completion(const Answer& answer) override {
        take_answer(answer);
        take_writers_answer();
        must("reader 0: recv " + std::to_string(accepted - received_by_0));
        check_released(row.released);
        play(row.then);
        if (row.leaves) {
            start_replacement();
        } else {
            const Answer drained = must("reader 1: drain 150 -> Timeout");
            if (!row.replaces) check_up_to_date(drained);
        }
        check_everything_works();
    }
    void after_death() override {
        take_writers_answer();
        const BroadcastInfo info = look();
        const auto life = info.readers.at(1).life;
        const bool is_expected = life == BroadcastReaderState::Life::Expected;
        const bool must_be_told =
            life == BroadcastReaderState::Life::Active && find_slot(info, 2) != nullptr;
        rename("reader 1", "dead reader");
        if (is_expected) party("reader 1");  // the writer waits for it, as the contract says
        const std::int64_t behind = accepted - received_by_0;
        const std::int64_t before = accepted;
        must("writer: tell send 40 1000");
        must("reader 0: tell recv " + std::to_string(40 + behind));
        if (is_expected) must("reader 1: tell recv " + std::to_string(40 + before));
        const Answer sent = must("writer: answer");
        check_up_to_date(must("reader 0: answer"));
        if (is_expected) check_up_to_date(must("reader 1: answer"));
        least_deaths = std::max<std::int64_t>(least_deaths, must_be_told ? 1 : 0);
        most_deaths += 1;
        if (must_be_told) check_told(sent);
        if (!is_expected) start_replacement();
        check_everything_works();
    }
    void while_stopped() override {
        take_writers_answer();
        play(row.stopped);
        const BroadcastInfo info = look();
        const bool is_gating = info.readers.at(1).life != BroadcastReaderState::Life::Vacant;
        play({"writer: tell send 40 1000 150", "reader 0: tell drain 1000"});
        must(is_gating ? "writer: answer -> Timeout" : "writer: answer");
        if (is_gating) check_timeout_names(name_of_victim(info));
        check_up_to_date(must("reader 0: answer -> Timeout"));
    }

private:
    void check_everything_works() {
        flow(20, "1000");
        const std::int64_t first = must("reader 1: recv 0 0").number("first");
        require(!replacement_begins_at_ || first == *replacement_begins_at_,
                "the replacement began with message " + std::to_string(first));
        flow_and_check_blocks(1);
        everybody_leaves();
        start_over();
    }

    // The replacement begins with the next message that is sent.
    void start_replacement() {
        rename("reader 1", "departed");
        party("reader 1");
        replacement_begins_at_ = accepted;
        // While its replacement has the rank, the departed handle releases what it held.
        if (is_alive("departed") && row.act == "depart") {
            play({"departed: release 0", "departed: release 1", "departed: close-reader"});
        }
    }
    // A writer that waited for room continues, unless reader 1 was struck before it made some: then
    // it reports that, or times out.
    void take_writers_answer() {
        if (is_waiting("writer")) must("writer: answer -> ok|Timeout|PeerDied");
    }
    void check_released(int messages) {
        if (messages < 0) return;
        const auto lag = look().readers.at(1).lag_messages;
        require(std::cmp_equal(lag, accepted - messages), "reader 1 is " + std::to_string(lag) +
                                                              " messages behind, and has given " +
                                                              std::to_string(messages) + " back");
    }
    // The victim as the actor's blocked_by() names it.
    std::string name_of_victim(const BroadcastInfo& info) {
        const bool is_expected = info.readers.at(1).life == BroadcastReaderState::Life::Expected;
        if (find_slot(info, 2) == nullptr && is_expected) return "1/0/expected";
        return "1/" + std::to_string(victim().process().pid()) +
               (is_expected ? "/expected" : "/active") + "/stopped/alive";
    }
    void check_timeout_names(const std::string& wanted) {
        const Answer watched = must("writer: watched-send 1000 150 -> Timeout");
        const std::int64_t took = watched.number("took_us") / 1000;
        require(took >= kShortWait - 1, "a timeout came early: " + watched.line());
        noticed_after((took - kShortWait) * 1'000'000, "the end of a timeout");
        const std::string named = watched.text("blocked_by");
        // Between the rank's lock and the signature, the name is unknown.
        if (point == "membership.join.locked" && named.starts_with("1/")) return;
        require(named == wanted, "blocked_by() says " + named + ", and it is " + wanted);
    }
    // A dead reader at an active gate was found where the writer had to wait for it.
    void check_told(const Answer& sent) {
        require(sent.number("deaths") >= 1 && sent.number("last_dead") == 1,
                "the writer should be told of the death of rank 1: " + sent.line());
        noticed_after(sent.number("error_us") * 1000, "the writer's PeerDied");
    }

    std::optional<std::int64_t> replacement_begins_at_;
};

// The victim creates a segment, or leaves it last.
class BroadcastLifeWalk : public BroadcastWalk {
public:
    using BroadcastWalk::BroadcastWalk;

    void prepare() override { set_up(row.before); }
    void after_completion(const Answer& answer) override {
        take_answer(answer);
        has_name = answer.is_ok();
        row.instead.completed(*this);
    }
    void after_death() override {
        (row.instead.died != nullptr ? row.instead.died : row.instead.completed)(*this);
    }
    void while_stopped() override { row.instead.stopped(*this); }
};

}  // namespace penstock::trust

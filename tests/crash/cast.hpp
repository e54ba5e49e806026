// The processes of a scenario, and the language in which a row of a crash walk says what each does:
// its name, and a line for its program or one of these.
//
//   writer: put 8 1000                     is asked, and answers "ok"
//   reader: room 50000 -> NoSpace|Busy     answers one of these; "*" is any
//   gc: remove @ -> ok removed=1           with this field; "@" is the name of the segment
//   waiter: park wait 7                    is told, and sleeps in that call
//   consumer: tell recv 1                  is told, and not waited for
//   consumer: answer -> Closed             answers what it was told
//   heir: start                            its process starts, and does nothing yet
//   first: stop                            is stopped,
//   first: resume                          continues, and answers what it was told
//   doomed: die                            is killed, and gone
//   doomed: die at POINT:1 in commit 10    is killed at the first passing of that crash point,
//   slow: stop at POINT:1 in put 1 100     or is stopped there
//   asker: asleep                          sleeps in what it was told
//   victim: still                          is stopped at its point,
//   victim: go                             continues, and is not waited for
//   victim: idle 2050                      waits so many milliseconds
//   victim: rest                           sleeps in its act, or has been struck
//   victim: freeze                         if it sleeps, it is stopped and notices nothing,
//   victim: thaw                           and resumed: it notices all at once
//
// A process named for the first time is started, and joins by the concept's own line for it.
#pragma once

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/crash_walk.hpp"

namespace penstock::trust {

// A value that depends on the point where the victim was struck: the first entry whose `at` begins
// the point's name counts; "end" is the completion of the act.
template <typename Value>
struct Expected {
    const char* at;
    Value value;
};
template <typename Value>
using ExpectedBy = std::vector<Expected<Value>>;

// A scenario described by a row. A row has at least: `name`; `before`, a script; `act`, the
// victim's line; `answer`, its expected answer; `meanwhile`, a script that lets the act end;
// `must_pass`, a point; `about`, prefixes of the points that are walked.
template <typename Row>
class Cast : public Scenario {
public:
    Cast(std::string name, Row described) : row(std::move(described)), segment(std::move(name)) {}

    Actor& victim() override { return party(victim_name()).actor; }
    std::string act() override { return note_told(party(victim_name()), row.act); }
    void meanwhile() override { play(row.meanwhile); }
    [[nodiscard]] std::string must_pass() const override { return row.must_pass; }
    [[nodiscard]] bool is_about(const std::string& passed) const override {
        return passed.starts_with(row.about);
    }

    // ---- for the hooks of rows

    // Executes a line. Returns the answer, or "ok" if the line has none.
    Answer ask(const std::string& line) {
        const std::string said = line.substr(0, line.find(" -> "));
        const auto colon = said.find(": ");
        const std::string doing = said.substr(colon + 2);
        Party& one = party(said.substr(0, colon), doing);
        const Words words = words_of(doing);
        Process& process = one.actor.process();
        const std::string& verb = words[0];
        if (verb == "start") return ok();
        if (verb == "answer") return heard(one);
        if (verb == "rest") return one.actor.await_rest(), ok();
        if (verb == "asleep") return one.actor.await_sleep(), ok();
        if (verb == "go") return process.resume(), ok();
        if (verb == "still") return await_stop(one);
        if (verb == "idle") return idle(Milliseconds(std::stoi(words.at(1))));
        if (verb == "freeze") {
            one.is_frozen = process.is_in_futex();
            return one.is_frozen ? hold_still(one) : ok();
        }
        if (verb == "thaw") {
            if (std::exchange(one.is_frozen, false)) process.resume();
            return ok();
        }
        if (verb == "resume") {
            process.resume();
            return one.told.empty() ? ok() : heard(one);
        }
        if (words.size() > 4 && words[1] == "at") return strike(one, words);
        if (verb == "stop") return hold_still(one);
        if (verb == "die") {
            process.kill();
            return await_end(one, {});
        }
        const bool is_parked = verb == "park";
        const bool is_told = is_parked || verb == "tell";
        one.actor.tell(note_told(one, is_told ? doing.substr(verb.size() + 1) : doing));
        if (is_parked) one.actor.await_sleep();
        return is_told ? ok() : heard(one);
    }
    // The same; the answer must be as the line says.
    Answer must(const std::string& line) {
        const Answer answer = ask(line);
        expect(line, answer);
        return answer;
    }
    // The same, within the bound for noticing.
    Answer promptly(const std::string& line) {
        const std::int64_t since = os::monotonic_ns();
        const Answer answer = ask(line);
        noticed(since, answer, "'" + line + "'");
        return answer;
    }
    Answer must_promptly(const std::string& line) {
        const Answer answer = promptly(line);
        expect(line, answer);
        return answer;
    }
    // Creating, attaching and removing wait for no other process: two seconds are the bound.
    Answer must_soon(const std::string& line) {
        const std::int64_t since = os::monotonic_ns();
        const Answer answer = must(line);
        require(os::monotonic_ns() - since < 2'000'000'000, "'" + line + "' hung for 2 s");
        return answer;
    }
    void play(const Words& script) {
        for (const std::string& line : script) must(line);
    }
    void noticed(std::int64_t since, const Answer& answer, const std::string& what) {
        if (blow_at != 0) noticed_after(answer.number("t") - since, what);
    }
    // Whether the point where the victim was struck begins with one of these, which may name the
    // passing: "a.point" or "a.point:1:".
    [[nodiscard]] bool is_struck_at(const Words& points) const {
        const std::string blow = point + ":" + std::to_string(occurrence) + ":";
        return std::any_of(points.begin(), points.end(), [&blow](const std::string& one) {
            return !one.empty() && blow.starts_with(one);
        });
    }
    void check_name_is_free() const {
        require(segments_left(segment).empty(), "the last one left, and its name is still there");
    }

    Row row;
    std::string segment;

protected:
    struct Party {
        std::string name;
        std::uint64_t number = 0;
        Actor actor = {};
        Words told = {};  // lines that it has not answered yet
        bool is_frozen = false;
        std::uint64_t accepted = 0;           // messages that it reported as accepted
        std::uint64_t begun = 0;              // its rollouts
        std::deque<std::uint64_t> held = {};  // messages that it holds
    };

    [[nodiscard]] virtual std::string victim_name() const { return "victim"; }
    // The line by which a process joins, in the program that it runs.
    [[nodiscard]] virtual std::string join_line(const std::string& name) const = 0;
    [[nodiscard]] virtual Process start(std::uint64_t number) const = 0;
    // Notes the messages of an answer, and of a death in a line.
    virtual void note(Party&, const Words& /*told*/, const Answer&) {}
    virtual void note_death(Party&, const Words& /*told*/) {}

    // Whether such a process was ever started.
    [[nodiscard]] bool has(const std::string& name) const { return parties_.contains(name); }
    // The process has a line to answer: it sleeps in it, or began just now.
    [[nodiscard]] bool is_waiting(const std::string& name) {
        return has(name) && !party(name).told.empty();
    }
    // Frees a name, so that another process can have it.
    void rename(const std::string& name, const std::string& other) {
        auto node = parties_.extract(name);
        parties_.erase(other);
        if (node.empty()) return;
        node.key() = node.mapped()->name = other;
        parties_.insert(std::move(node));
    }
    void dismiss_all() { parties_.clear(); }
    Party& party(const std::string& name, const std::string& first_line = {}) {
        const auto found = parties_.find(name);
        if (found != parties_.end()) return *found->second;
        const std::uint64_t number = ++started_;
        parties_[name] = std::make_unique<Party>(Party{.name = name, .number = number});
        Party& one = *parties_[name];
        one.actor = Actor("the " + name, start(number));
        const Words words = words_of(first_line);
        if (words.empty() || !is_a_beginning(words[0])) must(name + ": " + join_line(name));
        return one;
    }
    [[nodiscard]] static bool is_a_beginning(const std::string& verb) {
        constexpr std::array kBeginnings{"start", "create", "attach", "write",
                                         "train", "remove", "inspect"};
        return std::find(kBeginnings.begin(), kBeginnings.end(), verb) != kBeginnings.end();
    }
    // Checks the victim's answer to its act.
    void take_answer(const Answer& answer) {
        Party& one = party(victim_name());
        note(one, std::exchange(one.told, {}), answer);
        expect(one.name + ": " + row.act + " -> " + row.answer, answer);
    }
    void await_death(const std::string& name) { await_end(party(name), party(name).told); }
    [[nodiscard]] bool is_alive(const std::string& name) {
        return has(name) && !party(name).actor.process().is_over();
    }

private:
    // Replaces "@" by the segment's name, and notes the line.
    std::string note_told(Party& one, std::string line) {
        const auto at = line.find('@');
        if (at != std::string::npos) line.replace(at, 1, segment);
        one.told = words_of(line);
        return line;
    }
    Answer heard(Party& one) {
        Answer answer = one.actor.answer();
        note(one, std::exchange(one.told, {}), answer);
        return answer;
    }
    // `words`: die|stop at POINT:N in LINE.
    Answer strike(Party& one, const Words& words) {
        must(one.name + ": arm " + words[2] + (words[0] == "die" ? ":kill" : ":stop"));
        std::string line;
        for (std::size_t i = 4; i < words.size(); ++i) line += (i > 4 ? " " : "") + words[i];
        one.actor.tell(note_told(one, line));
        if (words[0] == "die") return await_end(one, one.told);
        return await_stop(one);
    }
    static Answer hold_still(Party& one) {
        one.actor.process().stop();
        return await_stop(one);
    }
    static Answer await_stop(Party& one) {
        require(await(kPatience, [&one] { return one.actor.process().is_stopped(); }),
                one.name + " never stopped");
        return ok();
    }
    static Answer idle(Milliseconds span) {
        const auto end = SteadyClock::now() + span;
        await(2 * span, [end] { return SteadyClock::now() >= end; });
        return ok();
    }
    Answer await_end(Party& one, const Words& told) {
        require(one.actor.process().wait(kPatience).has_value(), one.name + " lives on");
        note_death(one, told);
        return ok();
    }
    // Checks an answer against "ok|Busy removed=1 bytes>0".
    static void expect(const std::string& line, const Answer& answer) {
        const auto arrow = line.find(" -> ");
        const Words due = words_of(arrow == std::string::npos ? "ok" : line.substr(arrow + 4));
        bool is_so = due[0] == "*" ||
                     ("|" + due[0] + "|").find("|" + answer.outcome + "|") != std::string::npos;
        for (std::size_t i = 1; i < due.size(); ++i) {
            const auto sign = due[i].find_first_of("=>");
            const std::string key = due[i].substr(0, sign);
            const std::string value = due[i].substr(sign + 1);
            is_so = is_so && (due[i][sign] == '=' ? answer.text(key) == value
                                                  : answer.number(key) > std::stoll(value));
        }
        require(is_so, "'" + line + "' was answered: " + answer.line());
    }

    std::map<std::string, std::unique_ptr<Party>> parties_;
    std::uint64_t started_ = 0;
};

// Adds an operation for each row.
template <typename Walk, typename Row = decltype(Walk::row)>
void add_rows(std::vector<Operation>& operations, const std::vector<Row>& rows) {
    for (const Row& row : rows) {
        operations.push_back({row.name, [row](const std::string& segment) {
                                  return std::make_unique<Walk>(segment, row);
                              }});
    }
}

}  // namespace penstock::trust

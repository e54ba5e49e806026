// Checks whether the observations of one key of a Store are linearizable: whether each call can
// have happened at one moment between its begin and its end. After J. Wing and C. Gong, "Testing
// and verifying concurrent objects" (JPDC 1993), with remembered configurations as in G. Lowe,
// "Testing for linearizability" (CCPE 2017). Works on numbers only, without processes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <unordered_set>
#include <vector>

namespace penstock::trust {

// One call and its result.
struct StoreCall {
    enum class Kind : std::uint8_t { Put, Get, Release, Remove, Probe };  // Probe: reserve, abort
    enum class Said : std::uint8_t { Nothing, Ok, Exists, Staged, Missing, NoSpace };
    static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

    Kind kind = Kind::Get;
    Said said = Said::Nothing;  // Nothing: it died in the call
    std::uint64_t value = 0;    // put, read or released; no two puts have the same
    std::int64_t begin = 0;
    std::int64_t end = kNever;

    static constexpr const char* kKinds[] = {"put", "get", "release", "remove", "probe"};
    static constexpr const char* kSaid[] = {"-", "ok", "exists", "staged", "missing", "no-space"};

    // "put 7 10-20 ok": kind, value, begin, end, result.
    [[nodiscard]] std::string line() const {
        return std::string(kKinds[static_cast<std::size_t>(kind)]) + " " + std::to_string(value) +
               " " + std::to_string(begin) + "-" +
               (end == kNever ? std::string("never") : std::to_string(end)) + " " +
               kSaid[static_cast<std::size_t>(said)];
    }
    // Parses such a line; the result is ok by default.
    static StoreCall read(const std::string& line) {
        const auto position = [](const auto& names, const std::string& name) {
            return std::find(std::begin(names), std::end(names), name) - std::begin(names);
        };
        std::istringstream words(line);
        std::string kind;
        std::string end;
        std::string said = "ok";
        char dash = 0;
        StoreCall call;
        words >> kind >> call.value >> call.begin >> dash >> end >> said;
        call.kind = static_cast<Kind>(position(kKinds, kind));
        call.said = static_cast<Said>(position(kSaid, said));
        if (end != "never") call.end = std::stoll(end);
        return call;
    }
};

// The history of one key, absent at the start. `evicts`: an object that is not held may vanish at
// any moment.
class StoreHistory {
public:
    explicit StoreHistory(bool evicts) : evicts_(evicts) {}

    void add(const StoreCall& call) { calls_.push_back(call); }
    // Calls in the format of StoreCall::line(), separated by commas.
    void read(const std::string& calls) {
        std::istringstream lines(calls);
        for (std::string line; std::getline(lines, line, ',');) add(StoreCall::read(line));
    }
    // The number of configurations visited, for the report.
    [[nodiscard]] std::uint64_t looked_at() const { return seen_.size(); }

    // Empty, or why there is no order.
    std::string explain() {
        std::sort(calls_.begin(), calls_.end(),
                  [](const StoreCall& a, const StoreCall& b) { return a.begin < b.begin; });
        if (std::string alone = find_staged_by_none(); !alone.empty()) return alone;
        done_.assign(calls_.size(), false);
        due_ = 0;
        for (const StoreCall& call : calls_) due_ += is_due(call) ? 1 : 0;
        if (search({})) return {};
        std::string text = "no order explains";
        for (const StoreCall& call : calls_) text += "\n    " + call.line();
        return text;
    }

private:
    using Kind = StoreCall::Kind;
    using Said = StoreCall::Said;

    // The value, 0 if absent; and the number of holders.
    struct State {
        std::uint64_t value = 0;
        std::uint64_t pins = 0;
    };

    // Whether the call must have happened; a call without an end may have.
    static bool is_due(const StoreCall& call) { return call.said != Said::Nothing; }

    // "Being written" is a valid result only beside a call that was writing.
    [[nodiscard]] std::string find_staged_by_none() const {
        for (const StoreCall& call : calls_) {
            if (call.said != Said::Staged) continue;
            const bool is_true = std::any_of(calls_.begin(), calls_.end(), [&](const auto& other) {
                return &other != &call && (other.kind == Kind::Put || other.kind == Kind::Probe) &&
                       (other.said == Said::Ok || other.said == Said::Nothing ||
                        other.said == Said::NoSpace) &&
                       other.begin <= call.end && other.end >= call.begin;
            });
            if (!is_true) return "it was not being written: " + call.line();
        }
        return {};
    }

    // Applies a call to the state. False: its result is impossible in that state.
    static bool apply(const StoreCall& call, State& state) {
        const bool is_there = state.value != 0;
        switch (call.said) {
            case Said::Exists:
                return is_there;
            case Said::Missing:
                return !is_there;
            case Said::Staged:
            case Said::NoSpace:
                return true;
            case Said::Ok:
            case Said::Nothing:
                break;
        }
        switch (call.kind) {
            case Kind::Put:
                if (is_there) return false;
                state = {call.value, 0};
                return true;
            case Kind::Probe:
                return !is_there;
            case Kind::Get:
                if (state.value != call.value) return false;
                ++state.pins;
                return true;
            case Kind::Release:
                if (state.value != call.value) return true;
                if (state.pins == 0) return false;
                --state.pins;
                return true;
            case Kind::Remove:
                if (!is_there) return false;
                state = {};
                return true;
        }
        return false;
    }

    // A configuration: the calls that have happened, and the state after them; as text, so exact.
    [[nodiscard]] std::string configuration(const State& state) const {
        std::string text((done_.size() + 7) / 8, '\0');
        for (std::size_t at = 0; at < done_.size(); ++at) {
            if (done_[at]) text[at / 8] = static_cast<char>(text[at / 8] | 1 << (at % 8));
        }
        return text + std::to_string(state.value) + "/" + std::to_string(state.pins);
    }

    bool search(const State& state) {
        if (due_ == 0) return true;
        if (!seen_.insert(configuration(state)).second) return false;
        // A call that begins before every end that is still due can be next.
        std::int64_t latest = StoreCall::kNever;
        for (std::size_t at = 0; at < calls_.size(); ++at) {
            if (calls_[at].begin > latest) break;
            if (!done_[at]) latest = std::min(latest, calls_[at].end);
        }
        for (std::size_t at = 0; at < calls_.size() && calls_[at].begin <= latest; ++at) {
            if (done_[at]) continue;
            if (search_after(at, state)) return true;
            if (evicts_ && state.value != 0 && state.pins == 0 && search_after(at, {})) return true;
        }
        return false;
    }
    bool search_after(std::size_t at, State state) {
        if (!apply(calls_[at], state)) return false;
        const std::size_t counts = is_due(calls_[at]) ? 1 : 0;
        done_[at] = true;
        due_ -= counts;
        const bool is_found = search(state);
        done_[at] = false;
        due_ += counts;
        return is_found;
    }

    bool evicts_;
    std::vector<StoreCall> calls_;
    std::vector<bool> done_;
    std::size_t due_ = 0;
    std::unordered_set<std::string> seen_;
};

}  // namespace penstock::trust

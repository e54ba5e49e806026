// Several processes put, get, hold, remove and probe few keys of one Store, stop and die at it, and
// write down what they saw and when; afterwards an order is looked for that explains it, key by
// key. With a store that evicts nothing, where nothing may ever go by itself, and with one that
// always has to, in either way that changes an order; by several processes, and by many threads of
// one. usage: store_linearizability_test [--full] [--seed N] [--calls N]
#include <array>
#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "os/crash_point.hpp"
#include "penstock/store.hpp"
#include "tests/support/linearizability.hpp"
#include "tests/support/numbered.hpp"
#include "tests/support/premises.hpp"
#include "tests/support/shared_table.hpp"
#include "tests/support/talk.hpp"
#include "tests/support/tier.hpp"

namespace penstock::trust {
namespace {

using Kind = StoreCall::Kind;
using Said = StoreCall::Said;

constexpr const char* kCallerRole = "store-caller";
constexpr std::uint64_t kKeysAtOnce = 3;
constexpr std::uint64_t kCallsOfAGroup = 120;  // then all go on to other keys
constexpr std::uint64_t kMaxCalls = std::uint64_t{1} << 23U;
constexpr int kBrokenPromise = 3;

// The shared table: some counters, then every call with what it said.
enum Counter : std::size_t { kNextCall = 0, kTickets = 1, kLastTicket = 2, kCounters = 8 };
enum Field : std::size_t { kWhat = 0, kKeyOf, kValueOf, kBegin, kEnd, kSaidOf, kBy, kFields };
constexpr std::size_t kTableWords = kCounters + kMaxCalls * kFields;

// Where a caller may be stopped in the middle of a call, while others go on.
constexpr const char* kPoints[] = {
    "store.commit.resident",  "store.evict.evicting", "store.evict.freeing",
    "store.remove.doomed",    "store.pin.held",       "store.pin.dropped",
    "store.collect.freeing",  "store.free.forgotten", "words.change.described",
    "words.change.installed", "words.change.decided", "words.change.replaced",
    "heap.carve.carved",      "heap.free.freed",      "store.abort.freeing",
};

// One thread of a caller: calls until the tickets are out, with objects of so many words at most.
class Caller {
public:
    Caller(Store& store, SharedTable& table, std::uint64_t process, std::uint64_t number,
           std::uint64_t seed, std::uint64_t most_words)
        : table_(table), process_(process), number_(number), dice_(seed), most_words_(most_words),
          store_(store) {}

    void run() {
        for (;;) {
            const std::uint64_t ticket = table_[kTickets].fetch_add(1);
            if (ticket >= table_[kLastTicket].load()) break;
            key_ = ticket / kCallsOfAGroup * kKeysAtOnce + dice_.between(0, kKeysAtOnce - 1);
            maybe_arm();
            call();
            os::arm_crash_point(nullptr);
        }
        while (!held_.empty()) release();
    }

private:
    struct Held {
        std::uint64_t key;
        std::uint64_t value;
        StoreObject object;
    };

    void maybe_arm() {
        if (dice_.between(0, 39) != 0) return;
        const std::string point = kPoints[dice_.between(0, std::size(kPoints) - 1)];
        os::arm_crash_point((point + ":" + std::to_string(dice_.between(1, 3)) + ":stop").c_str());
    }
    void call() {
        const std::uint64_t kind = dice_.between(0, 99);
        if (held_.size() > 1 || (kind < 15 && !held_.empty())) return release();
        if (kind < 50) return put();
        if (kind < 75) return get();
        if (kind < 92) return remove();
        probe();
    }

    void begin(Kind kind, std::uint64_t key, std::uint64_t value) {
        call_ = kCounters + table_[kNextCall].fetch_add(1) * kFields;
        if (call_ >= kTableWords) give_up("the table of calls is too small");
        table_[call_ + kWhat] = static_cast<std::uint64_t>(kind);
        table_[call_ + kKeyOf] = key;
        table_[call_ + kValueOf] = value;
        table_[call_ + kBy] = process_;
        table_[call_ + kBegin] = static_cast<std::uint64_t>(os::monotonic_ns());
    }
    void end(Said said, std::uint64_t value, std::int64_t at) {
        table_[call_ + kValueOf] = value;
        table_[call_ + kEnd] = static_cast<std::uint64_t>(at);
        table_[call_ + kSaidOf] = static_cast<std::uint64_t>(said);
    }
    static Said said_by(const Status& status) {
        switch (status.code()) {
            case ErrorCode::Ok:
                return Said::Ok;
            case ErrorCode::AlreadyExists:
                return Said::Exists;
            case ErrorCode::Busy:
                return Said::Staged;
            case ErrorCode::NotFound:
                return Said::Missing;
            case ErrorCode::NoSpace:
                return Said::NoSpace;
            default:
                give_up(std::string(status.message()));
        }
    }

    void put() {
        const std::uint64_t value = number_ << 32U | ++puts_;
        std::vector<std::byte> bytes(8 * dice_.between(1, most_words_));
        fill_numbered(bytes, value);
        begin(Kind::Put, key_, value);
        const Status status = store_.put(name_of(key_), bytes);
        end(said_by(status), value, os::monotonic_ns());
    }
    void get() {
        begin(Kind::Get, key_, 0);
        Result<StoreObject> object = store_.get(name_of(key_));
        const std::int64_t at = os::monotonic_ns();
        if (!object) return end(said_by(object.status()), 0, at);
        std::uint64_t value = 0;
        std::memcpy(&value, object->bytes().data(), sizeof value);
        end(Said::Ok, value, at);
        held_.push_back({key_, value, *std::move(object)});
        check(held_.back());
    }
    void release() {
        Held held = std::move(held_.front());
        held_.erase(held_.begin());
        check(held);
        begin(Kind::Release, held.key, held.value);
        held.object.release();
        end(Said::Ok, held.value, os::monotonic_ns());
    }
    void remove() {
        begin(Kind::Remove, key_, 0);
        const Status status = store_.remove(name_of(key_));
        end(said_by(status), 0, os::monotonic_ns());
    }
    // It ends with the abort: until then others are told that it is being written.
    void probe() {
        begin(Kind::Probe, key_, 0);
        Result<StoreReservation> reservation = store_.reserve(name_of(key_), 64);
        const Said said = said_by(reservation.status());
        if (reservation) reservation->abort();
        end(said, 0, os::monotonic_ns());
    }

    static void check(const Held& held) {
        const std::string wrong = check_numbered(held.object.bytes(), held.value);
        if (!wrong.empty()) give_up(wrong);
    }
    static std::string name_of(std::uint64_t key) { return "key-" + std::to_string(key); }
    [[noreturn]] static void give_up(const std::string& what) {
        std::fprintf(stderr, "pid %d: %s\n", static_cast<int>(::getpid()), what.c_str());
        ::_exit(kBrokenPromise);
    }

    SharedTable& table_;
    std::uint64_t process_;  // its number; no two have the same, nor two threads
    std::uint64_t number_;
    Dice dice_;
    std::uint64_t most_words_;
    Store& store_;
    std::uint64_t key_ = 0;
    std::uint64_t puts_ = 0;
    std::size_t call_ = 0;
    std::vector<Held> held_;
};

// store-caller NAME TABLE NUMBER SEED WORDS THREADS
int play_caller(const Words& words) {
    const std::uint64_t process = std::stoull(words.at(2));
    Dice dice(std::stoull(words.at(3)));
    SharedTable table(words.at(1), kTableWords);
    Store store = Store::attach(words.at(0), Milliseconds(10'000));
    const std::uint64_t most_words = std::stoull(words.at(4));
    const std::uint64_t count = std::stoull(words.at(5));
    std::vector<std::thread> threads;
    for (std::uint64_t number = 0; number < count; ++number) {
        threads.emplace_back([&, number, seed = dice.next()] {
            Caller(store, table, process, process * count + number, seed, most_words).run();
        });
    }
    for (std::thread& thread : threads) thread.join();
    return 0;
}

// ---- the test
// ------------------------------------------------------------------------

struct Mode {
    const char* name;
    std::uint64_t most_words;  // of an object
    StoreOptions options;
    std::size_t callers = 4;
    // Of each. ThreadSanitizer sees what orders the threads of one process, and not what orders
    // them by way of another, so that it must not compare them where there are others.
    std::uint64_t threads = kIsThreadSanitized ? 1 : 2;
};

class Linearizability {
public:
    Linearizability(Premises& premises, const Mode& mode, std::uint64_t seed)
        : mode_(mode), dice_(seed), name_(premises.name()),
          store_(Store::create(name_, mode.options)), callers_(mode.callers), due_(mode.callers) {}

    void run(std::uint64_t calls) {
        table_[kLastTicket] = calls;
        for (Process& caller : callers_) start(caller);
        constexpr std::uint64_t kBetweenKills = 5000;
        std::uint64_t next_kill = kBetweenKills;
        bool is_over = false;
        while (!is_over) {
            const std::uint64_t before = table_[kTickets];
            const bool goes_on = await(kPatience, [&] {
                resume_the_stopped();
                if (table_[kTickets] >= next_kill && table_[kTickets] < calls) {
                    next_kill += kBetweenKills;
                    kill_somebody();
                }
                is_over = have_all_ended();
                return is_over || table_[kTickets] > before + 1000;
            });
            require(goes_on, "none gets on any more");
        }
        judge();
    }

private:
    void start(Process& caller) {
        caller = Process::start(
            kCallerRole,
            {name_, table_.argument(), std::to_string(++started_), std::to_string(dice_.next()),
             std::to_string(mode_.most_words), std::to_string(mode_.threads)});
    }
    // Each after others have called some times meanwhile, or when none is left that could.
    void resume_the_stopped() {
        for (std::size_t at = 0; at < callers_.size(); ++at) {
            if (!callers_[at].is_stopped()) continue;
            const std::uint64_t now = table_[kTickets];
            if (due_[at] == 0) due_[at] = now + dice_.between(1, 60);
            const bool is_last = std::none_of(callers_.begin(), callers_.end(), [](Process& one) {
                return !one.is_over() && !one.is_stopped();
            });
            if (now < due_[at] && !is_last && now < table_[kLastTicket]) continue;
            due_[at] = 0;
            ++stops_;
            callers_[at].resume();
        }
    }
    void kill_somebody() {
        const std::size_t at = dice_.between(0, callers_.size() - 1);
        if (callers_[at].is_over()) return;
        callers_[at].kill();
        const auto ending = callers_[at].wait(kPatience);
        require(ending && (ending->was_killed || ending->is_success()),
                "a caller had ended on its own");
        due_[at] = 0;
        ++kills_;
        start(callers_[at]);
    }
    bool have_all_ended() {
        for (Process& caller : callers_) {
            if (!caller.is_over()) return false;
            const auto ending = caller.wait(kPatience);
            require(ending && ending->is_success(), "a caller gave up");
        }
        return true;
    }

    using Holds = std::map<std::pair<std::uint64_t, std::uint64_t>, std::vector<StoreCall>>;

    void judge() {
        std::map<std::uint64_t, StoreHistory> histories;
        std::map<std::uint64_t, Holds> holds;  // by the process and the value: not let go
        const std::uint64_t count = table_[kNextCall];
        for (std::uint64_t at = 0; at < count; ++at) {
            const std::size_t from = kCounters + at * kFields;
            StoreCall call;
            call.kind = static_cast<Kind>(table_[from + kWhat].load());
            call.said = static_cast<Said>(table_[from + kSaidOf].load());
            call.value = table_[from + kValueOf];
            call.begin = static_cast<std::int64_t>(table_[from + kBegin].load());
            if (call.begin == 0) continue;  // it died before it called
            if (call.said != Said::Nothing) {
                call.end = static_cast<std::int64_t>(table_[from + kEnd].load());
            }
            ++said_[static_cast<std::size_t>(call.said)];
            const std::uint64_t key = table_[from + kKeyOf];
            std::vector<StoreCall>& own = holds[key][{table_[from + kBy], call.value}];
            if (call.kind == Kind::Get && call.said == Said::Ok) own.push_back(call);
            if (call.kind == Kind::Release) own.pop_back();
            if (call.kind == Kind::Get && call.said == Said::Nothing) continue;
            histories.try_emplace(key, mode_.options.eviction != Eviction::None)
                .first->second.add(call);
        }
        for (auto& [key, history] : histories) {
            for (auto& [by, gets] : holds[key]) {
                // Held when it died, and let go at some time after.
                for (const StoreCall& get : gets) {
                    history.add({Kind::Release, Said::Nothing, get.value, get.begin});
                }
            }
            const std::string wrong = history.explain();
            require(wrong.empty(), "key-" + std::to_string(key) + ": " + wrong);
            configurations_ += history.looked_at();
        }
        finish(count, histories.size());
    }
    void finish(std::uint64_t calls, std::size_t keys) {
        const auto said = [this](Said one) { return said_[static_cast<std::size_t>(one)]; };
        store_.reap_dead();
        store_.clear();
        const StoreStats stats = store_.stats();
        require(stats.used_bytes == 0 && stats.in_use == 0 && stats.staged == 0,
                "something is left: " + std::to_string(stats.used_bytes) + " bytes");
        std::printf(
            "  %s: %llu calls on %zu keys have an order (%llu configurations): %llu ok, %llu "
            "exists, %llu staged, %llu missing, %llu no space; %llu evicted; %d killed, %d stopped "
            "in a call\n",
            mode_.name, static_cast<unsigned long long>(calls), keys,
            static_cast<unsigned long long>(configurations_),
            static_cast<unsigned long long>(said(Said::Ok)),
            static_cast<unsigned long long>(said(Said::Exists)),
            static_cast<unsigned long long>(said(Said::Staged)),
            static_cast<unsigned long long>(said(Said::Missing)),
            static_cast<unsigned long long>(said(Said::NoSpace)),
            static_cast<unsigned long long>(stats.evicted), kills_, stops_);
        for (const Said one : {Said::Ok, Said::Exists, Said::Staged, Said::Missing}) {
            require(said(one) > 0, "an outcome never came: this run proves little");
        }
        const bool evicts = mode_.options.eviction != Eviction::None;
        require(evicts == (stats.evicted > 0), "evictions: " + std::to_string(stats.evicted));
        require(evicts || said(Said::NoSpace) == 0, "no space, where there is plenty");
    }

    Mode mode_;
    Dice dice_;
    std::string name_;
    Store store_;
    SharedTable table_{kTableWords};
    std::vector<Process> callers_;
    std::vector<std::uint64_t> due_;
    std::array<std::uint64_t, 6> said_{};
    std::uint64_t started_ = 0;
    std::uint64_t configurations_ = 0;
    int kills_ = 0;
    int stops_ = 0;
};

// ---- the judge judged
// ------------------------------------------------------------------------

struct JudgedHistory {
    const char* what;
    bool evicts;
    bool has_order;
    std::vector<StoreCall> calls;
};

const std::vector<JudgedHistory>& judged_histories() {
    constexpr std::int64_t kNever = StoreCall::kNever;
    static const std::vector<JudgedHistory> all{
        {"one after another",
         false,
         true,
         {{Kind::Put, Said::Ok, 1, 10, 20},
          {Kind::Get, Said::Ok, 1, 30, 40},
          {Kind::Release, Said::Ok, 1, 50, 60},
          {Kind::Remove, Said::Ok, 0, 70, 80},
          {Kind::Get, Said::Missing, 0, 90, 99}}},
        {"read after it was removed",
         false,
         false,
         {{Kind::Put, Said::Ok, 1, 10, 20},
          {Kind::Remove, Said::Ok, 0, 30, 40},
          {Kind::Get, Said::Ok, 1, 50, 60}}},
        {"read while it is removed",
         false,
         true,
         {{Kind::Put, Said::Ok, 1, 10, 20},
          {Kind::Remove, Said::Ok, 0, 30, 60},
          {Kind::Get, Said::Ok, 1, 50, 70}}},
        {"put twice",
         false,
         false,
         {{Kind::Put, Said::Ok, 1, 10, 20}, {Kind::Put, Said::Ok, 2, 15, 40}}},
        {"put twice, evicted between",
         true,
         true,
         {{Kind::Put, Said::Ok, 1, 10, 20}, {Kind::Put, Said::Ok, 2, 15, 40}}},
        {"put twice, and the first was held",
         true,
         false,
         {{Kind::Put, Said::Ok, 1, 10, 20},
          {Kind::Get, Said::Ok, 1, 21, 22},
          {Kind::Put, Said::Ok, 2, 25, 40},
          {Kind::Release, Said::Ok, 1, 50, 60}}},
        {"removed while it was held, and put again",
         true,
         true,
         {{Kind::Put, Said::Ok, 1, 10, 20},
          {Kind::Get, Said::Ok, 1, 21, 22},
          {Kind::Remove, Said::Ok, 0, 23, 26},
          {Kind::Put, Said::Ok, 2, 25, 40},
          {Kind::Release, Said::Ok, 1, 50, 60}}},
        {"missing, and was there all the time",
         false,
         false,
         {{Kind::Put, Said::Ok, 1, 10, 20}, {Kind::Get, Said::Missing, 0, 30, 40}}},
        {"the older one comes back",
         true,
         false,
         {{Kind::Put, Said::Ok, 1, 10, 20},
          {Kind::Put, Said::Ok, 2, 25, 40},
          {Kind::Get, Said::Ok, 2, 41, 42},
          {Kind::Get, Said::Ok, 1, 43, 44}}},
        {"exists, and never did",
         false,
         false,
         {{Kind::Put, Said::Exists, 1, 10, 20}, {Kind::Remove, Said::Missing, 0, 30, 40}}},
        {"staged by nobody",
         false,
         false,
         {{Kind::Put, Said::Ok, 1, 10, 20}, {Kind::Probe, Said::Staged, 0, 30, 40}}},
        {"a put that died came true later",
         false,
         true,
         {{Kind::Put, Said::Nothing, 1, 10, kNever},
          {Kind::Get, Said::Missing, 0, 20, 30},
          {Kind::Get, Said::Ok, 1, 40, 50}}},
        {"a put that died came true twice",
         false,
         false,
         {{Kind::Put, Said::Nothing, 1, 10, kNever},
          {Kind::Get, Said::Ok, 1, 20, 30},
          {Kind::Remove, Said::Ok, 0, 40, 50},
          {Kind::Get, Said::Ok, 1, 60, 70}}},
    };
    return all;
}

void judge_the_judge() {
    for (const JudgedHistory& one : judged_histories()) {
        StoreHistory history(one.evicts);
        for (const StoreCall& call : one.calls) history.add(call);
        require(history.explain().empty() == one.has_order,
                std::string("the judge is wrong about: ") + one.what);
    }
    std::printf("  %zu histories made by hand are judged as they should be\n",
                judged_histories().size());
}

void run_both_ways(Premises& premises, Mode mode, std::uint64_t seed, std::uint64_t calls) {
    Linearizability(premises, mode, seed).run(calls);
    const std::string name = std::string(mode.name) + ", one process";
    mode.name = name.c_str();
    mode.callers = 1;
    mode.threads = 8;
    Linearizability(premises, mode, seed + 1).run(calls);
}

int run(int argc, char** argv) {
    ::signal(SIGPIPE, SIG_IGN);
    std::uint64_t seed = std::random_device{}();
    std::uint64_t calls = is_full_tier(argc, argv) ? 4'000'000 : 400'000;
    if (kIsSanitized) calls /= 10;
    for (int i = 1; i + 1 < argc; ++i) {
        if (std::string(argv[i]) == "--seed") seed = std::stoull(argv[i + 1]);
        if (std::string(argv[i]) == "--calls") calls = std::stoull(argv[i + 1]);
    }
    std::printf("store linearizability: --seed %llu --calls %llu\n",
                static_cast<unsigned long long>(seed), static_cast<unsigned long long>(calls));
    std::fflush(stdout);
    Premises premises("store-linear");
    try {
        judge_the_judge();
        Mode keeps{"evicts nothing", 100, {}};
        keeps.options.capacity = std::uint64_t{1} << 30U;
        keeps.options.objects = calls / kCallsOfAGroup * kKeysAtOnce * 2 + 1024;
        keeps.options.participants = 16;
        keeps.options.eviction = Eviction::None;
        run_both_ways(premises, keeps, seed, calls);
        for (const auto& [name, policy] :
             {std::pair{"evicts", Eviction::Sieve}, std::pair{"evicts, lru", Eviction::Lru}}) {
            Mode evicts{name, 3000, {}};  // three or four fit
            evicts.options.capacity = std::uint64_t{64} << 10U;
            evicts.options.objects = 16;
            evicts.options.participants = 16;
            evicts.options.eviction = policy;
            run_both_ways(premises, evicts, seed += 2, calls);
        }
    } catch (const std::exception& error) {
        std::printf("BROKEN: %s\n", error.what());
        return 1;
    }
    return 0;
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    constexpr Role kRoles[] = {{kCallerRole, play_caller}};
    if (const auto code = play_role(argc, argv, kRoles)) return *code;
    return run(argc, argv);
}

// Several processes put, get, hold, remove and probe a few keys of one Store, are stopped and
// killed, and record each call with its result and its time; afterwards, key by key, a sequential
// order is searched that explains the results. With a store that evicts nothing, and with one that
// always has to evict, for both kinds of changes of the order; by several processes, and by many
// threads of one. usage: store_linearizability_test [--full] [--seed N] [--calls N]
#include <array>
#include <map>

#include "os/crash_point.hpp"
#include "penstock/store.hpp"
#include "tests/stress/stress.hpp"
#include "tests/support/linearizability.hpp"

namespace penstock::trust {
namespace {

using Kind = StoreCall::Kind;
using Said = StoreCall::Said;

constexpr const char* kCallerRole = "store-caller";
constexpr std::uint64_t kKeysAtOnce = 3;
constexpr std::uint64_t kCallsOfAGroup = 120;  // then all go to other keys
constexpr std::uint64_t kMaxCalls = std::uint64_t{1} << 23U;

// The shared table: counters, then every call with its result.
enum Counter : std::size_t { kNextCall = 0, kTickets = 1, kLastTicket = 2, kCounters = 8 };
enum Field : std::size_t { kWhat = 0, kKeyOf, kValueOf, kBegin, kEnd, kSaidOf, kBy, kFields };
constexpr std::size_t kTableWords = kCounters + kMaxCalls * kFields;

// Crash points at which a caller may be stopped in the middle of a call.
constexpr const char* kPoints[] = {
    "store.commit.resident",  "store.evict.evicting", "store.evict.freeing",
    "store.remove.doomed",    "store.pin.held",       "store.pin.dropped",
    "store.collect.freeing",  "store.free.forgotten", "words.change.described",
    "words.change.installed", "words.change.decided", "words.change.replaced",
    "heap.carve.carved",      "heap.free.freed",      "store.abort.freeing",
};

// A thread of a caller: calls until the tickets are used up, with objects of at most `words` words.
class Caller {
public:
    Caller(Store& store, SharedWords& table, std::uint64_t process, std::uint64_t number,
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
        if (dice_.between(0, 9) != 0) return;
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
        if (call_ >= kTableWords) break_promise("the table of calls is too small");
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
                break_promise(std::string(status.message()));
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
        const std::uint64_t value = number_of(object->bytes());
        end(Said::Ok, value, at);
        promise_whole(object->bytes(), value);
        held_.push_back({key_, value, *std::move(object)});
    }
    void release() {
        Held held = std::move(held_.front());
        held_.erase(held_.begin());
        promise_whole(held.object.bytes(), held.value);
        begin(Kind::Release, held.key, held.value);
        held.object.release();
        end(Said::Ok, held.value, os::monotonic_ns());
    }
    void remove() {
        begin(Kind::Remove, key_, 0);
        const Status status = store_.remove(name_of(key_));
        end(said_by(status), 0, os::monotonic_ns());
    }
    // The probe ends with the abort: until then others see the key as being written.
    void probe() {
        begin(Kind::Probe, key_, 0);
        Result<StoreReservation> reservation = store_.reserve(name_of(key_), 64);
        const Said said = said_by(reservation.status());
        if (reservation) reservation->abort();
        end(said, 0, os::monotonic_ns());
    }

    static std::string name_of(std::uint64_t key) { return "key-" + std::to_string(key); }

    SharedWords& table_;
    std::uint64_t process_;  // unique, for each thread
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
    SharedWords table(words.at(1));
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
    std::string name;
    std::uint64_t most_words;  // of an object
    StoreOptions options;
    std::size_t callers = 4;
    // Threads of each caller. ThreadSanitizer sees synchronization between threads of one process
    // and not through another process, so it must not compare threads where there are several
    // processes.
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
        constexpr std::uint64_t kBetweenKills = 1250;
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
            require(goes_on, "no caller makes progress");
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
    // Resumes each after a number of calls of others, or when no other is left to call.
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
        require(ending && (ending->was_killed || ending->is_success()), "a caller gave up");
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
        std::map<std::uint64_t, Holds> holds;  // by process and value: held in the end
        const std::uint64_t count = table_[kNextCall];
        for (std::uint64_t at = 0; at < count; ++at) {
            const std::size_t from = kCounters + at * kFields;
            StoreCall call;
            call.kind = static_cast<Kind>(table_[from + kWhat].load());
            call.said = static_cast<Said>(table_[from + kSaidOf].load());
            call.value = table_[from + kValueOf];
            call.begin = static_cast<std::int64_t>(table_[from + kBegin].load());
            if (call.begin == 0) continue;  // died before the call
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
                // Held at a death: released at some time after it.
                for (const StoreCall& get : gets) {
                    history.add({Kind::Release, Said::Nothing, get.value, get.begin});
                }
            }
            const std::string wrong = history.explain();
            require(wrong.empty(), text_of("key-", key, ": ", wrong));
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
                text_of("something is left: ", stats.used_bytes, " bytes"));
        report("  ", mode_.name, ": ", calls, " calls on ", keys, " keys have an order (",
               configurations_, " configurations): ", said(Said::Ok), " ok, ", said(Said::Exists),
               " exists, ", said(Said::Staged), " staged, ", said(Said::Missing), " missing, ",
               said(Said::NoSpace), " no space; ", stats.evicted, " evicted; ", kills_, " killed, ",
               stops_, " stopped in a call");
        for (const Said one : {Said::Ok, Said::Exists, Said::Staged, Said::Missing}) {
            require(said(one) > 0, "an outcome never came: this run proves little");
        }
        const bool evicts = mode_.options.eviction != Eviction::None;
        require(evicts == (stats.evicted > 0), text_of("evictions: ", stats.evicted));
        require(evicts || said(Said::NoSpace) == 0, "no space, where there is plenty");
    }

    Mode mode_;
    Dice dice_;
    std::string name_;
    Store store_;
    SharedWords table_{kTableWords};
    std::vector<Process> callers_;
    std::vector<std::uint64_t> due_;
    std::array<std::uint64_t, 6> said_{};
    std::uint64_t started_ = 0;
    std::uint64_t configurations_ = 0;
    int kills_ = 0;
    int stops_ = 0;
};

// ---- tests of the checker

struct JudgedHistory {
    const char* what;
    bool evicts;
    bool has_order;
    const char* calls;  // as for StoreHistory::read()
};

constexpr JudgedHistory kJudged[] = {
    {"one after another", false, true,
     "put 1 10-20, get 1 30-40, release 1 50-60, remove 0 70-80, get 0 90-99 missing"},
    {"read after it was removed", false, false, "put 1 10-20, remove 0 30-40, get 1 50-60"},
    {"read while it is removed", false, true, "put 1 10-20, remove 0 30-60, get 1 50-70"},
    {"put twice", false, false, "put 1 10-20, put 2 15-40"},
    {"put twice, evicted between", true, true, "put 1 10-20, put 2 15-40"},
    {"put twice, and the first was held", true, false,
     "put 1 10-20, get 1 21-22, put 2 25-40, release 1 50-60"},
    {"removed while it was held, and put again", true, true,
     "put 1 10-20, get 1 21-22, remove 0 23-26, put 2 25-40, release 1 50-60"},
    {"missing, and was there all the time", false, false, "put 1 10-20, get 0 30-40 missing"},
    {"the older one comes back", true, false, "put 1 10-20, put 2 25-40, get 2 41-42, get 1 43-44"},
    {"exists, and never did", false, false, "put 1 10-20 exists, remove 0 30-40 missing"},
    {"staged by none", false, false, "put 1 10-20, probe 0 30-40 staged"},
    {"a put that died came true later", false, true,
     "put 1 10-never -, get 0 20-30 missing, get 1 40-50"},
    {"a put that died came true twice", false, false,
     "put 1 10-never -, get 1 20-30, remove 0 40-50, get 1 60-70"},
};

void judge_the_judge() {
    for (const JudgedHistory& one : kJudged) {
        StoreHistory history(one.evicts);
        history.read(one.calls);
        require(history.explain().empty() == one.has_order,
                text_of("the judge is wrong about: ", one.what));
    }
    report("  ", std::size(kJudged), " histories made by hand are judged as they should be");
}

void run_both_ways(StressRun& run, Mode mode, std::uint64_t calls) {
    Linearizability(run.premises, mode, run.seed++).run(calls);
    mode.name += ", one process";
    mode.callers = 1;
    mode.threads = 8;
    Linearizability(run.premises, mode, run.seed++).run(calls);
}

void test_linearizability(StressRun& run) {
    const std::uint64_t calls =
        run.option("--calls", (run.is_full ? 1'000'000U : 100'000U) / (kIsSanitized ? 4U : 1U));
    judge_the_judge();
    run_both_ways(run,
                  {"evicts nothing",
                   100,
                   {.capacity = std::uint64_t{1} << 30U,
                    .objects = calls / kCallsOfAGroup * kKeysAtOnce * 2 + 1024,
                    .participants = 16,
                    .eviction = Eviction::None}},
                  calls);
    for (const auto& [name, policy] :
         {std::pair{"evicts", Eviction::Sieve}, std::pair{"evicts, lru", Eviction::Lru}}) {
        run_both_ways(run,
                      {name,
                       3000,  // three or four fit
                       {.capacity = std::uint64_t{64} << 10U,
                        .objects = 16,
                        .participants = 16,
                        .eviction = policy}},
                      calls);
    }
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    constexpr Role kRoles[] = {{kCallerRole, play_caller}};
    return run_stress(argc, argv, "store-linearizability", kRoles, test_linearizability);
}

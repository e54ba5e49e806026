#include "tests/support/crash_walk.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>
#include <thread>
#include <utility>

#include "os/clock.hpp"

namespace penstock::trust {
namespace {

// The turn of one of several processes that walk on this machine: beside the others, or alone,
// after all others have ended. Late cases are judged alone.
class Turn {
public:
    static Turn beside_others() { return Turn(LOCK_SH); }
    static Turn alone() { return Turn(LOCK_EX); }

private:
    explicit Turn(int kind) {
        const auto path = std::filesystem::temp_directory_path() /
                          ("penstock-crash-walk-" + std::to_string(::getuid()));
        file_ = Descriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        if (file_.get() < 0) throw_errno("open the walk's lock file");
        while (::flock(file_.get(), kind) != 0) {
            if (errno != EINTR) throw_errno("flock");
        }
    }

    Descriptor file_;
};

class CrashWalk {
public:
    CrashWalk(Premises& premises, WalkOptions options)
        : premises_(premises), options_(std::move(options)) {}

    int run(const std::vector<Operation>& operations) {
        ::signal(SIGPIPE, SIG_IGN);
        const auto start = SteadyClock::now();
        in_lanes(operations.size(), [&](std::size_t i) { discover(operations[i]); });
        std::sort(cases_.begin(), cases_.end(),
                  [](const Case& a, const Case& b) { return a.name() < b.name(); });
        keep_own_shard();
        {
            const Turn turn = Turn::beside_others();
            in_lanes(cases_.size(), [&](std::size_t i) { walk(cases_[i]); });
        }
        judge_late();
        report(operations, SteadyClock::now() - start);
        return failures_.empty() ? 0 : 1;
    }

private:
    struct Case {
        const Operation* operation;
        std::string point;
        int occurrence;
        bool is_kill;
        std::int64_t slowest = 0;
        std::string lateness = {};

        [[nodiscard]] std::string blow() const {
            return point + ":" + std::to_string(occurrence) + (is_kill ? ":kill" : ":stop");
        }
        [[nodiscard]] std::string name() const { return operation->name + "/" + blow(); }
    };

    template <typename Work>
    void in_lanes(std::size_t count, Work&& work) {
        std::atomic<std::size_t> next{0};
        std::vector<std::thread> lanes;
        for (unsigned lane = 0; lane < options_.lanes; ++lane) {
            lanes.emplace_back([&] {
                for (std::size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) work(i);
            });
        }
        for (std::thread& lane : lanes) lane.join();
    }

    // Runs the operation unharmed and notes the points that it passes.
    void discover(const Operation& operation) {
        try {
            const std::string segment = premises_.name();
            auto scenario = operation.stage(segment);
            scenario->prepare();
            scenario->victim().must("trace");
            scenario->victim().tell(scenario->act());
            scenario->meanwhile();
            const Answer answer = scenario->victim().answer();
            const Answer traced = scenario->victim().must("traced");
            scenario->after_completion(answer);
            require_gone(segment);
            add_cases(operation, *scenario, traced.text("points"));
        } catch (const std::exception& error) {
            fail(operation.name + " (unharmed)", error.what());
        }
    }

    // The watcher's thread passes it whenever a process of another step has ended: a unit test of
    // its own stops there.
    static bool is_of_watcher(const std::string& point) noexcept {
        return point == "signal.rouse.changed";
    }

    void add_cases(const Operation& operation, const Scenario& scenario,
                   const std::string& points) {
        std::map<std::string, int> passes;
        std::istringstream stream(points);
        for (std::string point; std::getline(stream, point, ',');) ++passes[point];
        const std::string due = scenario.must_pass();
        require(due.empty() || passes.contains(due), "passed " + points + ", and not " + due);
        const std::lock_guard lock(mutex_);
        for (const auto& [point, count] : passes) {
            if (is_of_watcher(point) || !scenario.is_about(point)) continue;
            points_.insert(point);
            ++points_of_[operation.name];
            for (const int occurrence : occurrences(count)) {
                for (const bool is_kill : {true, false}) {
                    Case one{&operation, point, occurrence, is_kill};
                    if (one.name().find(options_.only) != std::string::npos) cases_.push_back(one);
                }
            }
        }
    }

    // The passings to walk: the first and the last; in the full tier all of a few, or eight of
    // many.
    [[nodiscard]] std::set<int> occurrences(int count) const {
        std::set<int> chosen{1, count};
        const int most = options_.is_full ? 8 : 0;
        for (int i = 1; i <= most; ++i) chosen.insert(1 + (count - 1) * i / most);
        return chosen;
    }

    // Every process discovers all cases. The number of passings may differ between them, so all
    // passings of a point of an operation are in the same share.
    void keep_own_shard() {
        std::erase_if(cases_, [&](const Case& one) {
            const std::size_t hash =
                std::hash<std::string>{}(one.operation->name + "/" + one.point);
            return hash % options_.shards != options_.shard;
        });
    }

    void walk(Case& one) {
        constexpr int kAttempts = 4;
        for (int attempt = 1; attempt <= kAttempts; ++attempt) {
            switch (attempt_one(one)) {
                case CaseResult::Held:
                case CaseResult::Broken:
                    return;
                case CaseResult::Late: {
                    const std::lock_guard lock(mutex_);
                    late_.push_back(&one);
                    return;
                }
                case CaseResult::NotReached:
                    break;
            }
        }
        // The number of later passings depends on sleeps; the first one must occur.
        if (one.occurrence == 1) fail(one.name(), "the point was never passed");
        not_reached_.fetch_add(1);
    }

    void judge_late() {
        if (late_.empty()) return;
        const Turn turn = Turn::alone();
        for (Case* one : late_) judge(*one);
    }

    void judge(Case& one) {
        int late = 0;
        for (int i = 0; i < 3; ++i) {
            const CaseResult result = attempt_one(one);
            if (result == CaseResult::Broken) return;
            if (result == CaseResult::Late) ++late;
        }
        if (late > 1) fail(one.name(), "noticed late again and again: " + one.lateness);
    }

    enum class CaseResult { Held, Late, NotReached, Broken };
    CaseResult attempt_one(Case& one) {
        const std::string segment = premises_.name();
        CaseResult result = CaseResult::Held;
        try {
            suffer(one, segment);
            require_gone(segment);
            if (options_.is_verbose) std::printf("held: %s\n", one.name().c_str());
            return result;
        } catch (const Late& late) {
            one.lateness = late.what();
            result = CaseResult::Late;
        } catch (const NotReached&) {
            result = CaseResult::NotReached;
        } catch (const std::exception& error) {
            fail(one.name(), error.what());
            result = CaseResult::Broken;
        }
        sweep(segment);
        return result;
    }

    void suffer(Case& one, const std::string& segment) {
        auto scenario = one.operation->stage(segment);
        scenario->point = one.point;
        scenario->occurrence = one.occurrence;
        scenario->prepare();
        Actor& victim = scenario->victim();
        victim.must("arm " + one.blow());
        victim.tell(scenario->act());
        scenario->meanwhile();
        if (one.is_kill) {
            await_blow(victim, one, [&] { return victim.process().is_over(); });
            scenario->blow_at = os::monotonic_ns();
            scenario->after_death();
        } else {
            await_blow(victim, one, [&] { return victim.process().is_stopped(); });
            scenario->blow_at = os::monotonic_ns();
            scenario->while_stopped();
            victim.process().resume();
            scenario->after_completion(victim.answer());
        }
        one.slowest = scenario->slowest;
    }

    // Waits until the victim has been struck; throws NotReached if it answers instead.
    template <typename IsDown>
    static void await_blow(Actor& victim, const Case& one, IsDown&& is_down) {
        std::optional<Answer> answered;
        const bool settled = await(kPatience, [&] {
            if (is_down()) return true;
            answered = victim.hear(Milliseconds(0));
            return answered.has_value();
        });
        if (answered) throw NotReached("never passed " + one.blow() + ": " + answered->line());
        require(settled, "the victim neither passed " + one.blow() + " nor answered");
    }

    static void require_gone(const std::string& segment) {
        require(segments_left(segment).empty(), "penstock." + segment + " is left in /dev/shm");
    }

    void fail(const std::string& name, const std::string& why) {
        const std::lock_guard lock(mutex_);
        failures_.push_back(name);
        std::printf("BROKEN %s\n       %s\n", name.c_str(), why.c_str());
        std::fflush(stdout);
    }

    void report(const std::vector<Operation>& operations, SteadyClock::duration span) const {
        std::int64_t slowest = 0;
        std::map<std::string, int> cases_of;
        for (const Case& one : cases_) {
            slowest = std::max(slowest, one.slowest);
            ++cases_of[one.operation->name];
        }
        std::printf("%-34s %7s %6s\n", "operation", "points", "cases");
        for (const Operation& operation : operations) {
            const auto points = points_of_.find(operation.name);
            std::printf("%-34s %7d %6d\n", operation.name.c_str(),
                        points == points_of_.end() ? 0 : points->second, cases_of[operation.name]);
        }
        std::printf(
            "%zu operations, %zu distinct points, %zu cases (half kill, half stop), "
            "%zu failures; %zu judged late and alone, %d passings not met; death or stop "
            "noticed after %.1f ms at most; %.0f s\n",
            operations.size(), points_.size(), cases_.size(), failures_.size(), late_.size(),
            not_reached_.load(), static_cast<double>(slowest) * 1e-6,
            std::chrono::duration<double>(span).count());
    }

    Premises& premises_;
    WalkOptions options_;
    std::mutex mutex_;  // guards the following until the lanes have ended
    std::vector<Case> cases_;
    std::set<std::string> points_;
    std::map<std::string, int> points_of_;
    std::vector<std::string> failures_;
    std::vector<Case*> late_;
    std::atomic<int> not_reached_{0};
};

WalkOptions parse_walk_options(int argc, char** argv) {
    WalkOptions options;
    options.is_full = is_full_tier(argc, argv);
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "--verbose") options.is_verbose = true;
        if (i + 1 == argc) break;
        if (word == "--only") options.only = argv[++i];
        if (word == "--lanes") options.lanes = static_cast<unsigned>(std::stoul(argv[++i]));
        if (word == "--shard") {
            const std::string share = argv[++i];
            options.shard = std::stoul(share) - 1;
            options.shards = std::stoul(share.substr(share.find('/') + 1));
        }
    }
    return options;
}

}  // namespace

int crash_walk_main(int argc, char** argv, const Role& role,
                    const std::function<std::vector<Operation>()>& operations) {
    if (const auto code = play_role(argc, argv, std::span(&role, 1))) return *code;
    Premises premises(role.name);
    return CrashWalk(premises, parse_walk_options(argc, argv)).run(operations());
}

}  // namespace penstock::trust

// The common parts of stress tests: workers in their own processes, killed and stopped at random
// under load and replaced, and a main() with a seed that repeats a run.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/answers.hpp"
#include "tests/support/numbered.hpp"
#include "tests/support/premises.hpp"
#include "tests/support/shared_words.hpp"
#include "tests/support/talk.hpp"
#include "tests/support/tier.hpp"

namespace penstock::trust {

template <typename... Parts>
std::string text_of(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    return text.str();
}

// ---- in a worker's process

inline constexpr int kBrokenPromise = 3;

// Ends the process, and with it the test, with a message on standard error.
[[noreturn]] inline void break_promise(const std::string& what) {
    std::fprintf(stderr, "pid %d: %s\n", static_cast<int>(::getpid()), what.c_str());
    ::_exit(kBrokenPromise);
}
// Every byte follows from the number.
inline void promise_whole(std::span<const std::byte> bytes, std::uint64_t number) {
    const std::string wrong = check_numbered(bytes, number);
    if (!wrong.empty()) break_promise(wrong);
}
inline std::uint64_t number_of(std::span<const std::byte> bytes) {
    std::uint64_t number = 0;
    if (bytes.size() < sizeof number) break_promise("what came is too short for its number");
    std::memcpy(&number, bytes.data(), sizeof number);
    return number;
}

// Takes turns on its own thread, from "go" to "stop". `Self` has turn() and close(), and may have
// report(), which answers questions.
template <typename Self>
class StressWorker {
public:
    Answer obey(const Words& words) {
        Self& self = static_cast<Self&>(*this);
        if (words[0] == "go") thread_ = std::thread([this, &self] { work(self); });
        if (words[0] == "stop") {
            is_stopping_ = true;
            thread_.join();
        }
        Answer answer = ok();
        if constexpr (requires { self.report(words); }) answer = self.report(words);
        if (words[0] == "close") self.close();
        return answer;
    }

private:
    friend Self;  // the only maker
    StressWorker() = default;

    void work(Self& self) {
        try {
            while (!is_stopping_.load()) self.turn();
        } catch (const std::exception& error) {
            break_promise(error.what());
        }
    }

    std::atomic<bool> is_stopping_{false};
    std::thread thread_;
};

template <typename Worker>
int play_worker(const Words& words) {
    Worker worker(words);
    return listen([&worker](const Words& asked) { return worker.obey(asked); });
}

// ---- in the test

inline void kill_worker(Actor& worker) {
    worker.process().kill();
    const auto ending = worker.process().wait(kPatience);
    require(ending.has_value(), "a killed process lives on");
    require(ending->was_killed, "a process had ended on its own: " + ending->describe());
}

// The processes of a stress test, each with a rank that its replacement inherits.
class Workers {
public:
    // `start` makes a running worker of a rank; `progress` counts the work of all.
    Workers(unsigned count, Dice& dice, std::atomic<std::uint64_t>& progress,
            std::function<Actor(unsigned rank)> start)
        : dice_(dice), progress_(progress), start_(std::move(start)) {
        for (unsigned rank = 0; rank < count; ++rank) actors_.push_back(start_(rank));
    }

    void all_must(const std::string& line) { must(0, actors_.size(), line); }
    void must(std::size_t first, std::size_t count, const std::string& line) {
        for (std::size_t at = first; at < first + count; ++at) actors_[at].must(line);
    }

    // Waits for that much more progress under load; no worker may end on its own.
    void wait_for_progress(std::uint64_t amount) {
        const std::uint64_t start = progress_.load();
        const bool goes_on = await(kPatience, [&] { return progress_.load() >= start + amount; });
        check_alive();
        require(goes_on, "none gets on any more");
    }
    void check_alive() {
        for (Actor& actor : actors_) {
            if (!actor.process().is_over()) continue;
            const auto ending = actor.process().wait(kPatience);
            throw Broken("a process ended on its own: " + (ending ? ending->describe() : "?"));
        }
    }

    // One time in three stops a worker, until the others have made up to `most` progress.
    void maybe_stop_one(std::uint64_t most) {
        if (most == 0 || dice_.between(0, 2) != 0) return;
        Process& process = actors_[dice_.between(0, actors_.size() - 1)].process();
        process.stop();
        wait_for_progress(dice_.between(1, most));
        process.resume();
        ++stops_;
    }
    // Kills and replaces one of `count` workers from `first` on. One time in four it is stopped
    // before, until the others have made up to `most` progress.
    void kill_one(std::size_t first, std::size_t count, std::uint64_t most) {
        const std::size_t rank = dice_.between(first, first + count - 1);
        if (most > 0 && dice_.between(0, 3) == 0) {
            actors_[rank].process().stop();
            wait_for_progress(dice_.between(1, most));
        }
        kill_worker(actors_[rank]);
        actors_[rank] = start_(static_cast<unsigned>(rank));
        ++kills_;
    }

    [[nodiscard]] std::uint64_t kills() const { return kills_; }
    [[nodiscard]] std::uint64_t stops() const { return stops_; }

private:
    Dice& dice_;
    std::atomic<std::uint64_t>& progress_;
    std::function<Actor(unsigned rank)> start_;
    std::vector<Actor> actors_;
    std::uint64_t kills_ = 0;
    std::uint64_t stops_ = 0;
};

// Prints one line, and flushes.
template <typename... Parts>
void report(const Parts&... parts) {
    std::puts(text_of(parts...).c_str());
    std::fflush(stdout);
}

// The arguments of a stress test: [--full] [--seed N], and its own.
struct StressRun {
    StressRun(int argc, char** argv, const std::string& name)
        : words(argv, argv + argc), is_full(is_full_tier(argc, argv)), premises(name),
          seed(option("--seed", std::random_device{}())) {}

    [[nodiscard]] std::uint64_t option(const std::string& name, std::uint64_t otherwise) const {
        const auto found = std::find(words.begin(), words.end(), name);
        return words.end() - found > 1 ? std::stoull(found[1]) : otherwise;
    }
    [[nodiscard]] std::uint64_t kills() const {
        return option("--kills", (is_full ? 200U : 40U) / (kIsSanitized ? 4U : 1U));
    }

    Words words;
    bool is_full;
    Premises premises;
    std::uint64_t seed;
};

// main() of a stress test: plays a role, or runs `test` and reports whether the promises held.
inline int run_stress(int argc, char** argv, const std::string& name, std::span<const Role> roles,
                      void (*test)(StressRun& run)) {
    if (const auto code = play_role(argc, argv, roles)) return *code;
    ::signal(SIGPIPE, SIG_IGN);
    StressRun run(argc, argv, name);
    report(name, ": --seed ", run.seed);
    try {
        test(run);
    } catch (const std::exception& error) {
        report("BROKEN: ", error.what());
        return 1;
    }
    return 0;
}

}  // namespace penstock::trust

// The protocol between a test and its processes: one line asks, one line answers. A process does
// one thing after another; the test decides what each does, and in which order.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

#include "os/clock.hpp"
#include "tests/support/process.hpp"

namespace penstock::trust {

// "ok t=123 sent=4" or "PeerDied t=123 sent=2 peer=1 | the message": the first word is "ok" or the
// name of an error code, t the monotonic time in nanoseconds at which the result was known.
struct Answer {
    std::string outcome;
    std::map<std::string, std::string> fields;
    std::string sentence;

    [[nodiscard]] bool is_ok() const { return outcome == "ok"; }
    [[nodiscard]] std::int64_t number(const std::string& key, std::int64_t otherwise = -1) const {
        const auto found = fields.find(key);
        return found == fields.end() ? otherwise : std::stoll(found->second);
    }
    [[nodiscard]] std::string text(const std::string& key) const {
        const auto found = fields.find(key);
        return found == fields.end() ? std::string() : found->second;
    }
    Answer& with(const std::string& key, const std::string& value) {
        fields[key] = value;
        return *this;
    }
    template <typename Number>
    Answer& with(const std::string& key, Number value) {
        return with(key, std::to_string(value));
    }

    [[nodiscard]] std::string line() const {
        std::string text = outcome;
        for (const auto& [key, value] : fields) text += " " + key + "=" + value;
        return sentence.empty() ? text : text + " | " + sentence;
    }
    static Answer parse(const std::string& line) {
        Answer answer;
        const auto bar = line.find(" | ");
        std::istringstream words(line.substr(0, bar));
        words >> answer.outcome;
        for (std::string word; words >> word;) {
            const auto equals = word.find('=');
            if (equals != std::string::npos) {
                answer.fields[word.substr(0, equals)] = word.substr(equals + 1);
            }
        }
        if (bar != std::string::npos) answer.sentence = line.substr(bar + 3);
        return answer;
    }
};

// The next line of a descriptor, if it comes in time. Not thread-safe.
class LineReader {
public:
    // Empty: `patience` is over, or the other side is gone (is_at_end()).
    std::optional<std::string> next(int descriptor, Milliseconds patience) {
        const auto end = SteadyClock::now() + patience;
        for (;;) {
            const auto newline = pending_.find('\n');
            if (newline != std::string::npos) {
                std::string line = pending_.substr(0, newline);
                pending_.erase(0, newline + 1);
                return line;
            }
            pollfd event{descriptor, POLLIN, 0};
            const int ready = ::poll(&event, 1, poll_span(end));
            if (ready < 0 && errno == EINTR) continue;
            if (ready <= 0) return std::nullopt;
            char bytes[4096];
            const ssize_t got = ::read(descriptor, bytes, sizeof bytes);
            if (got <= 0) {
                is_at_end_ = true;
                return std::nullopt;
            }
            pending_.append(bytes, static_cast<std::size_t>(got));
        }
    }
    [[nodiscard]] bool is_at_end() const { return is_at_end_; }
    // There is something to read, or the other side is gone.
    [[nodiscard]] bool has_some(int descriptor) const {
        pollfd event{descriptor, POLLIN, 0};
        return !pending_.empty() || ::poll(&event, 1, 0) > 0;
    }

private:
    std::string pending_;
    bool is_at_end_ = false;
};

// The reason why a test fails, for its report.
class Broken : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

inline void require(bool holds, const std::string& otherwise) {
    if (!holds) throw Broken(otherwise);
}

// The longest that an answer may take: a bound of the test, not of the library.
inline constexpr Milliseconds kPatience{20'000};

// A process that obeys commands, seen from the test.
class Actor {
public:
    Actor() = default;
    explicit Actor(const std::string& role, const Words& arguments = {})
        : name_(role), process_(Process::start(role, arguments)) {}
    explicit Actor(std::string name, Process process)
        : name_(std::move(name)), process_(std::move(process)) {}

    Process& process() { return process_; }
    [[nodiscard]] bool is_started() const { return process_.is_started(); }

    void tell(const std::string& line) {
        const std::string text = line + "\n";
        asked_ = line;
        // Writing to a dead process fails, which shows when its answer is awaited.
        [[maybe_unused]] const auto written = ::write(process_.input(), text.data(), text.size());
    }
    std::optional<Answer> hear(Milliseconds patience) {
        const auto line = lines_.next(process_.output(), patience);
        if (!line) return std::nullopt;
        return Answer::parse(*line);
    }
    // The answer to the last command.
    Answer answer(Milliseconds patience = kPatience) {
        auto heard = hear(patience);
        if (!heard) {
            const auto ending = process_.wait(Milliseconds(0));
            throw Broken(name_ + " (pid " + std::to_string(process_.pid()) +
                         ") gave no answer to '" + asked_ + "': it " +
                         (ending ? ending->describe() : "hangs"));
        }
        return *heard;
    }
    // Waits until it sleeps in its command, has been struck, or has answered.
    void await_rest() {
        require(await(kPatience,
                      [this] {
                          return process_.is_in_futex() || process_.is_stopped() ||
                                 process_.is_over() || lines_.has_some(process_.output());
                      }),
                name_ + " was told to " + asked_ + ", and neither sleeps nor answers");
    }
    // Waits until it sleeps in a command that cannot end yet; otherwise it would depend on timing
    // whether there is a sleeper to wake. Repeat it after each vain wake-up.
    void await_sleep() {
        require(await(kPatience, [this] { return process_.is_in_futex(); }),
                name_ + " was told to " + asked_ + ", and never went to sleep");
    }
    void park(const std::string& line) {
        tell(line);
        await_sleep();
    }
    Answer ask(const std::string& line, Milliseconds patience = kPatience) {
        tell(line);
        return answer(patience);
    }
    // The same; any answer but "ok" fails the test.
    Answer must(const std::string& line) {
        Answer given = ask(line);
        require(given.is_ok(), name_ + " was asked to " + line + " and says: " + given.line());
        return given;
    }

private:
    std::string name_;
    Process process_;
    LineReader lines_;
    std::string asked_;
};

inline Answer ok() {
    return Answer{"ok", {}, {}};
}

// The words of a line, separated by spaces.
inline Words words_of(const std::string& line) {
    std::istringstream stream(line);
    Words words;
    for (std::string word; stream >> word;) words.push_back(word);
    return words;
}

// The process's side: answers every line of standard input until it ends. `answer_to` gets the
// words.
template <typename AnswerTo>
int listen(AnswerTo&& answer_to) {
    LineReader lines;
    while (!lines.is_at_end()) {
        const auto line = lines.next(STDIN_FILENO, Milliseconds(1000));
        if (!line) continue;
        const Words words = words_of(*line);
        if (words.empty()) continue;
        if (words[0] == "exit") return 0;
        Answer answer = answer_to(words);
        answer.with("t", os::monotonic_ns());
        const std::string text = answer.line() + "\n";
        if (::write(STDOUT_FILENO, text.data(), text.size()) < 0) return 1;
    }
    return 0;
}

}  // namespace penstock::trust

// The program of a process that obeys commands: one a line, with arguments typed by the parameters
// of its function; every failure is answered with its message.
#pragma once

#include <charconv>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "os/crash_point.hpp"
#include "segment/life/attachment.hpp"
#include "tests/support/answers.hpp"
#include "tests/support/talk.hpp"

namespace penstock::trust {

// The base of every concept's actor, which adds its commands. Each can be struck at a crash point,
// report the points it passed, and depart.
class ActorProgram {
public:
    Answer obey(const Words& words) const {
        const auto command = commands_.find(words[0]);
        if (command == commands_.end()) return {"Unknown", {}, "no command " + words[0]};
        try {
            return command->second(words);
        } catch (const Error& error) {
            return failure_of(Status(error.code(), error.what(), error.peer()));
        } catch (const std::exception& error) {
            return {"Unable", {}, words[0] + ": " + error.what()};
        }
    }
    int run() const {
        return listen([this](const Words& words) { return obey(words); });
    }

protected:
    ActorProgram() {
        // NAME:N:kill|stop
        on("arm", [](const std::string& blow) { os::arm_crash_point(blow.c_str()); });
        on("trace", [] { os::start_crash_trace(); });
        on("traced", [] {
            std::string names;
            for (const std::string& name : os::take_crash_trace()) {
                names += (names.empty() ? "" : ",") + name;
            }
            return ok().with("points", names);
        });
        // Departs from every segment at once, as at the end of a process. Handles stay, with what
        // they hold.
        on("depart", [] { detail::depart_all(); });
    }

    // `act` takes numbers, words and waits (milliseconds; 5000 by default; -1 waits for ever, 0
    // tries once), and returns an Answer, a Status, or nothing.
    template <typename Act>
    void on(const std::string& name, Act act) {
        commands_[name] = command_of(std::function(std::move(act)));
    }

    // The answer of a byte-by-byte check: `wrong` is empty, or says where the bytes are torn.
    static Answer intact(const std::string& wrong) {
        return wrong.empty() ? ok() : Answer{"Torn", {}, wrong};
    }

private:
    using Command = std::function<Answer(const Words&)>;

    template <typename Given, typename... Parameters>
    static Command command_of(std::function<Given(Parameters...)> act) {
        return [act = std::move(act)](const Words& words) {
            return call(act, words, std::index_sequence_for<Parameters...>());
        };
    }
    template <typename Given, typename... Parameters, std::size_t... at>
    static Answer call(const std::function<Given(Parameters...)>& act,
                       [[maybe_unused]] const Words& words, std::index_sequence<at...>) {
        if constexpr (std::is_void_v<Given>) {
            act(argument<std::decay_t<Parameters>>(words, at + 1)...);
            return ok();
        } else {
            return answer_of(act(argument<std::decay_t<Parameters>>(words, at + 1)...));
        }
    }
    template <typename Value>
    static Value argument(const Words& words, std::size_t at) {
        if constexpr (std::is_same_v<Value, Wait>) {
            return at < words.size() ? wait_of(words[at]) : Wait(Milliseconds(5000));
        } else {
            if (at >= words.size()) throw std::invalid_argument("too few words");
            const std::string& word = words[at];
            if constexpr (std::is_same_v<Value, std::string>) {
                return word;
            } else {
                Value value{};
                const char* end = word.data() + word.size();
                if (std::from_chars(word.data(), end, value).ptr == end) return value;
                throw std::invalid_argument("'" + word + "' is no number");
            }
        }
    }
    static Answer answer_of(Answer answer) { return answer; }
    static Answer answer_of(const Status& status) { return status ? ok() : failure_of(status); }

    std::map<std::string, Command> commands_;
};

}  // namespace penstock::trust

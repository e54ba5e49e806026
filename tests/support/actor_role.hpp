// What every actor of the crash walks and of the stress does: it obeys commands by name, is struck
// at a crash point, and tells which points it passed.
#pragma once

#include <string>

#include "os/crash_point.hpp"
#include "segment/life/attachment.hpp"
#include "tests/support/answers.hpp"
#include "tests/support/talk.hpp"

namespace penstock::trust {

// `Self` derives from this, befriends it, and has `kCommands`, a row of Command.
template <typename Self>
class ActorRole {
    friend Self;  // the only maker
    ActorRole() = default;

public:
    Answer obey(const Words& words) {
        try {
            for (const Command& command : Self::kCommands) {
                if (words[0] != command.name) continue;
                return (static_cast<Self&>(*this).*command.act)(words);
            }
            return {"Unknown", {}, "no command " + words[0]};
        } catch (const Error& error) {
            return failure_of(Status(error.code(), error.what(), error.peer()));
        }
    }

protected:
    struct Command {
        const char* name;
        Answer (Self::*act)(const Words& words);
    };

    // arm NAME:N:kill|stop
    Answer arm(const Words& words) {
        os::arm_crash_point(words.at(1).c_str());
        return ok();
    }
    Answer trace(const Words&) {
        os::start_crash_trace();
        return ok();
    }
    Answer traced(const Words&) {
        std::string names;
        for (const std::string& name : os::take_crash_trace()) {
            names += (names.empty() ? "" : ",") + name;
        }
        return ok().with("points", names);
    }
    // depart: out of every segment at once, as at the end of a process. Handles stay, and what they
    // hold.
    Answer depart(const Words&) {
        detail::depart_all();
        return ok();
    }
};

}  // namespace penstock::trust

// Common answers and arguments of all actors: failures, and how long to wait.
#pragma once

#include <string>

#include "penstock/error.hpp"
#include "penstock/wait.hpp"
#include "tests/support/talk.hpp"

namespace penstock::trust {

inline Answer failure_of(const Status& status) {
    Answer answer{std::string(to_string(status.code())), {}, std::string(status.message())};
    return answer.with("peer", status.peer());
}

// A timeout of a command, in milliseconds: -1 waits for ever, 0 tries once.
inline Wait wait_of(const std::string& text) {
    const int span = std::stoi(text);
    return span < 0 ? Wait(Deadline::never()) : Wait(Milliseconds(span));
}

}  // namespace penstock::trust

// What the operating system refused, at which step of a segment's life, as the Error that says what
// stands in the way and what to do. The one table of such sentences.
#pragma once

#include <cstdint>
#include <string>
#include <system_error>

#include "segment/life/name.hpp"

namespace penstock::detail {

enum class Step : std::uint8_t {
    Create,    // a file in the location's directory, or an anonymous one
    Identify,  // drawing its random instance id
    Size,      // giving it its size
    Seal,      // forbidding others to change that
    Reserve,   // memory for it
    Map,       // into this process's addresses
    Publish,   // under its name
    Reopen,    // a second description of the open file
    Attach,    // opening what lies under the name
    Examine,   // the same, without attaching
    Copy,      // of its control block, to look at
};

// `bytes`: how many were asked for, where the step is about memory or addresses.
[[noreturn]] void throw_refused(Step step, const Location& location, const std::error_code& error,
                                std::uint64_t bytes = 0);

// "'steps'", or "the anonymous segment".
std::string title_of(const Location& location);

// "; /dev/shm has so much free of so much: ...", for sentences about NoSpace. Empty if unknown.
std::string space_sentence(const Location& location);

}  // namespace penstock::detail

// Explains what the operating system refused, at which step of a segment's life: an Error that
// names the cause and the remedy. The one table of such sentences.
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
    Seal,      // sealing it against a change of size
    Reserve,   // reserving its memory
    Map,       // mapping it
    Publish,   // linking it to its name
    Reopen,    // a second description of the open file
    Attach,    // opening the file under the name
    Examine,   // the same for inspection, without attaching
    Copy,      // copying its control block for inspection
};

// `bytes`: the amount asked for, at steps about memory or addresses.
[[noreturn]] void throw_refused(Step step, const Location& location, const std::error_code& error,
                                std::uint64_t bytes = 0);

// "'steps'", or "the anonymous segment".
std::string title_of(const Location& location);

// "; /dev/shm has 12 MiB free of 64 MiB: ...", for sentences about NoSpace. Empty if unknown.
std::string space_sentence(const Location& location);

}  // namespace penstock::detail

// Crash points: names for the steps that change shared memory. In a test build a process can kill
// or stop itself at the n-th passing of any of them; otherwise they compile to nothing.
#pragma once

#ifdef PENSTOCK_CRASH_POINTS

#include <string>
#include <vector>

namespace penstock::os {

// Passes the point: may raise SIGKILL or SIGSTOP, as PENSTOCK_CRASH_AT=<name>:<n>:<kill|stop> says.
// With PENSTOCK_CRASH_LIST=<file> the name of every point passed is appended to the file instead.
void pass_crash_point(const char* name) noexcept;

// Lets a test arm the point within the process (null: disarm). Counts start again.
void arm_crash_point(const char* specification) noexcept;

// Records every point that this process passes from now on, in order, with repetitions.
void start_crash_trace();
// Returns the record and ends it.
std::vector<std::string> take_crash_trace();

}  // namespace penstock::os

#define PENSTOCK_CRASH_POINT(name) ::penstock::os::pass_crash_point(name)

#else

#define PENSTOCK_CRASH_POINT(name) static_cast<void>(0)

#endif

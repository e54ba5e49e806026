// Remaining stack of this thread, for recursion as deep as a message says: programs with thousands
// of threads often give them 64 KiB each.
#pragma once

#include <cstddef>

namespace penstock::os {

// Bytes below the caller's frame; the largest number if unknown, as on a stack that the system did
// not make (coroutines). The first call in a thread makes a system call.
std::size_t stack_left() noexcept;

}  // namespace penstock::os

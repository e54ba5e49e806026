// How much of this thread's stack is left, for whoever recurses as deep as a message says: threads
// with a stack of 64 KiB are usual where there are thousands of them.
#pragma once

#include <cstddef>

namespace penstock::os {

// Bytes below the caller's frame; the largest number where that can't be known, as on a stack that
// the system did not make (coroutines). The first call in a thread asks the system.
std::size_t stack_left() noexcept;

}  // namespace penstock::os

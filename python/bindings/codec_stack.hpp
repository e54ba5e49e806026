// The stack that is left to a recursive walk over a value or a message.
#pragma once

#include "os/stack.hpp"

namespace penstock::py {

// Raises TooLarge where another level could overflow the stack of this thread. `what` begins the
// sentence: "cannot encode the value". Costs nothing for what is nested as messages usually are.
void raise_short_stack(const char* what, unsigned depth);

inline void check_stack(const char* what, unsigned depth) {
    constexpr unsigned kAlwaysFits = 4;
    // A level takes less than 1 KiB; and what lies in the innermost one is made by NumPy, PyTorch
    // and Python.
    constexpr std::size_t kReserve = std::size_t{20} << 10U;
    if (depth >= kAlwaysFits && os::stack_left() < kReserve) {
        raise_short_stack(what, depth);
    }
}

}  // namespace penstock::py

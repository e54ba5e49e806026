// The stack left for a recursive walk over a value or a message.
#pragma once

#include "os/stack.hpp"

namespace penstock::py {

// Raises TooLarge if another level could overflow this thread's stack. `what` begins the sentence:
// "cannot encode the value". Costs nothing at usual nesting depths.
void raise_short_stack(const char* what, unsigned depth);

inline void check_stack(const char* what, unsigned depth) {
    constexpr unsigned kAlwaysFits = 4;
    // A level takes less than 1 KiB; the rest is for NumPy, PyTorch and Python at the innermost
    // level.
    constexpr std::size_t kReserve = std::size_t{20} << 10U;
    if (depth >= kAlwaysFits && os::stack_left() < kReserve) {
        raise_short_stack(what, depth);
    }
}

}  // namespace penstock::py

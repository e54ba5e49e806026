// The sentence for a stack that is too short.
#include "codec_stack.hpp"

#include <string>

#include "errors.hpp"

namespace penstock::py {

void raise_short_stack(const char* what, unsigned depth) {
    raise_error(ErrorCode::TooLarge,
                std::string(what) + ": it is nested more than " + std::to_string(depth) +
                    " deep, and the stack of this thread is too short for that; use a thread with "
                    "a longer one (threading.stack_size)");
}

}  // namespace penstock::py

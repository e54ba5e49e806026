// What the bytes of a message are, told along with them from one end to the other.
#pragma once

#include <cstdint>

namespace penstock {

// What the bytes of a message are; carried with the message, not interpreted by Broadcast.
enum class Format : std::uint8_t { Bytes = 0, Typed = 1, Pickle = 2 };

}  // namespace penstock

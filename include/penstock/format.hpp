// Format of a message's bytes: transmitted with the message, and interpreted by neither Broadcast
// nor Queue.
#pragma once

#include <cstdint>

namespace penstock {

// Tensor: the items of one array, its shape and dtype in the metadata; used by Store only.
enum class Format : std::uint8_t { Bytes = 0, Typed = 1, Pickle = 2, Tensor = 3 };
inline constexpr Format kLastFormat = Format::Tensor;

}  // namespace penstock

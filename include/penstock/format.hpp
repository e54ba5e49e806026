// What the bytes of a message are: told along with them from one end to the other, and interpreted
// by neither Broadcast nor Queue.
#pragma once

#include <cstdint>

namespace penstock {

// Tensor: the items of one array, whose shape and dtype stand in the metadata. For a Store.
enum class Format : std::uint8_t { Bytes = 0, Typed = 1, Pickle = 2, Tensor = 3 };
inline constexpr Format kLastFormat = Format::Tensor;

}  // namespace penstock

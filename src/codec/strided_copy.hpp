// Copying an array of any strides into contiguous memory, C order, in one pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace penstock::codec {

// Strides are in bytes and may be zero or negative; `from` is the item at index 0, 0, … `to`
// receives product(shape) * item_size bytes. At most kMaxDims dimensions.
void strided_copy(std::byte* to, const std::byte* from, std::span<const std::int64_t> shape,
                  std::span<const std::int64_t> strides, std::size_t item_size) noexcept;

}  // namespace penstock::codec

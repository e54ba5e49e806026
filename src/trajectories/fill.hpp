// Copies a column's values from a message into the trainer's array, and converts them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "penstock/codec.hpp"

namespace penstock::detail {

// Copies `count` values. False: one of them does not fit into `to`.
using CopyValues = bool (*)(std::byte* to, const std::byte* from, std::size_t count) noexcept;
// The kernel from `from` to `to`; null if that conversion is not offered.
CopyValues copy_values(codec::DType to, codec::DType from) noexcept;

// Fills `count` values with `value`, rounded to what `dtype` can hold.
using FillValues = void (*)(std::byte* to, std::size_t count, double value) noexcept;
FillValues fill_values(codec::DType dtype) noexcept;

}  // namespace penstock::detail

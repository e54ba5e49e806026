// What stands before the metadata of an object that is one array: its dtype and shape.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "penstock/codec.hpp"

namespace penstock::py {

// The bytes of a head for an array of C order.
std::vector<std::byte> write_tensor_head(codec::DType dtype, codec::Source source,
                                         std::span<const std::int64_t> shape);
// The array, and how much of `meta` its head is; 0: there is no such head, or it does not fit.
std::size_t read_tensor_head(std::span<const std::byte> meta, std::span<const std::byte> bytes,
                             codec::TensorView& view);
// Bytes of such an array; TooLarge, as all bits set, where that is no number.
std::uint64_t tensor_bytes(codec::DType dtype, std::span<const std::int64_t> shape);

}  // namespace penstock::py

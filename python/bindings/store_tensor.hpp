// What stands before the metadata of an object that is one array: its dtype and shape.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "penstock/codec.hpp"

namespace penstock::py {

// The bytes of a head for an array of C order; `descr` describes a dtype without a code
// (docs/codec.md), and is empty for others.
std::vector<std::byte> write_tensor_head(codec::DType dtype, codec::Source source,
                                         std::span<const std::int64_t> shape,
                                         std::span<const std::byte> descr);
// What a head says of the array, and how much of `meta` it takes; 0: there is no such head, or it
// does not fit. Whether a described array fits is left to the reader of `descr`.
struct TensorHead {
    codec::TensorView view;
    std::span<const std::byte> descr;
    std::size_t bytes = 0;
};
TensorHead read_tensor_head(std::span<const std::byte> meta, std::span<const std::byte> bytes);
// Bytes of such an array of items of so many; TooLarge, as all bits set, where that is no number.
std::uint64_t tensor_bytes(std::uint64_t item, std::span<const std::int64_t> shape);

}  // namespace penstock::py

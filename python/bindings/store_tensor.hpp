// Head before the metadata of an object that is one array: its dtype and shape.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "penstock/codec.hpp"

namespace penstock::py {

// Encodes the head of an array in C order; `descr` describes a dtype without a code
// (docs/codec.md), and is empty for others.
std::vector<std::byte> write_tensor_head(codec::DType dtype, codec::Source source,
                                         std::span<const std::int64_t> shape,
                                         std::span<const std::byte> descr);
// Decoded head, and its length in `meta`; 0: there is no head, or it does not fit the object. For a
// described dtype the reader of `descr` checks the fit.
struct TensorHead {
    codec::TensorView view;
    std::span<const std::byte> descr;
    std::size_t bytes = 0;
};
TensorHead read_tensor_head(std::span<const std::byte> meta, std::span<const std::byte> bytes);
// Size of an array of this shape with items of `item` bytes; all bits set if that overflows.
std::uint64_t tensor_bytes(std::uint64_t item, std::span<const std::int64_t> shape);

}  // namespace penstock::py

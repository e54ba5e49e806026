#include "store_tensor.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace penstock::py {
namespace {

// dtype, source, dimensions, 5 bytes of zero; then the dimensions. A multiple of 8.
constexpr std::size_t kFixed = 8;

}  // namespace

std::vector<std::byte> write_tensor_head(codec::DType dtype, codec::Source source,
                                         std::span<const std::int64_t> shape) {
    std::vector<std::byte> head(kFixed + shape.size_bytes());
    head[0] = static_cast<std::byte>(dtype);
    head[1] = static_cast<std::byte>(source);
    head[2] = static_cast<std::byte>(shape.size());
    // Not memcpy: of no dimensions there is nothing to point at.
    std::ranges::copy(std::as_bytes(shape), head.begin() + kFixed);
    return head;
}

std::uint64_t tensor_bytes(codec::DType dtype, std::span<const std::int64_t> shape) {
    constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t bytes = codec::item_size(dtype);
    for (const std::int64_t dim : shape) {
        if (dim < 0 || __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(dim), &bytes)) {
            return kNone;
        }
    }
    return bytes;
}

std::size_t read_tensor_head(std::span<const std::byte> meta, std::span<const std::byte> bytes,
                             codec::TensorView& view) {
    if (meta.size() < kFixed) {
        return 0;
    }
    const auto dims = static_cast<std::size_t>(meta[2]);
    const std::size_t size = kFixed + dims * sizeof(std::int64_t);
    if (dims > codec::kMaxDims || meta.size() < size ||
        static_cast<codec::Source>(meta[1]) > codec::Source::DLPack) {
        return 0;
    }
    view.dtype = static_cast<codec::DType>(meta[0]);
    view.source = static_cast<codec::Source>(meta[1]);
    view.ndim = static_cast<std::uint8_t>(dims);
    std::memcpy(view.dims.data(), meta.data() + kFixed, dims * sizeof(std::int64_t));
    view.data = bytes;
    const bool fits =
        codec::item_size(view.dtype) > 0 && tensor_bytes(view.dtype, view.shape()) == bytes.size();
    return fits ? size : 0;
}

}  // namespace penstock::py

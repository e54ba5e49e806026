#include "store_tensor.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace penstock::py {
namespace {

// Head: dtype, source, number of dimensions, a zero byte, length of the description (32 bits); then
// the dimensions and the description. Its length is a multiple of 8.
constexpr std::size_t kFixed = 8;
constexpr std::size_t kDescrBytesAt = 4;

std::size_t padded(std::size_t bytes) noexcept {
    return (bytes + 7) / 8 * 8;
}

}  // namespace

std::vector<std::byte> write_tensor_head(codec::DType dtype, codec::Source source,
                                         std::span<const std::int64_t> shape,
                                         std::span<const std::byte> descr) {
    std::vector<std::byte> head(kFixed + shape.size_bytes() + padded(descr.size()));
    head[0] = static_cast<std::byte>(dtype);
    head[1] = static_cast<std::byte>(source);
    head[2] = static_cast<std::byte>(shape.size());
    const auto described = static_cast<std::uint32_t>(descr.size());
    std::memcpy(head.data() + kDescrBytesAt, &described, sizeof described);
    // No memcpy: without dimensions the pointer may be null.
    const auto behind = std::ranges::copy(std::as_bytes(shape), head.begin() + kFixed).out;
    std::ranges::copy(descr, behind);
    return head;
}

std::uint64_t tensor_bytes(std::uint64_t item, std::span<const std::int64_t> shape) {
    constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t bytes = item;
    for (const std::int64_t dim : shape) {
        if (dim < 0 || __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(dim), &bytes)) {
            return kNone;
        }
    }
    return bytes;
}

TensorHead read_tensor_head(std::span<const std::byte> meta, std::span<const std::byte> bytes) {
    TensorHead head;
    if (meta.size() < kFixed) {
        return head;
    }
    const auto dims = static_cast<std::size_t>(meta[2]);
    std::uint32_t described = 0;
    std::memcpy(&described, meta.data() + kDescrBytesAt, sizeof described);
    const std::size_t behind = kFixed + dims * sizeof(std::int64_t);
    const std::size_t size = behind + padded(described);
    const auto source = static_cast<codec::Source>(meta[1]);
    if (dims > codec::kMaxDims || meta.size() < size || source > codec::Source::DLPack) {
        return head;
    }
    codec::TensorView& view = head.view;
    view.dtype = static_cast<codec::DType>(meta[0]);
    view.source = source;
    view.ndim = static_cast<std::uint8_t>(dims);
    std::memcpy(view.dims.data(), meta.data() + kFixed, dims * sizeof(std::int64_t));
    view.data = bytes;
    head.descr = meta.subspan(behind, described);
    const bool is_described = view.dtype == codec::DType::Described && described > 0 &&
                              tensor_bytes(1, view.shape()) <= bytes.size();
    const bool fits =
        is_described || (described == 0 && codec::item_size(view.dtype) > 0 &&
                         tensor_bytes(codec::item_size(view.dtype), view.shape()) == bytes.size());
    head.bytes = fits ? size : 0;
    return head;
}

}  // namespace penstock::py

// Copies an array of any strides into contiguous memory: joinable dimensions are joined first, then
// the innermost one is copied by a loop for its item size.
#include "codec/strided_copy.hpp"

#include <array>
#include <cstring>

#include "penstock/codec.hpp"

namespace penstock::codec {
namespace {

struct Loops {
    std::size_t count = 0;
    std::array<std::int64_t, kMaxDims> shape{};
    std::array<std::int64_t, kMaxDims> strides{};
};

// Drops dimensions of size one and joins dimensions with a common stride. False if there is no
// item.
bool join(std::span<const std::int64_t> shape, std::span<const std::int64_t> strides,
          Loops& loops) noexcept {
    for (std::size_t dim = 0; dim < shape.size(); ++dim) {
        if (shape[dim] == 0) {
            return false;
        }
        if (shape[dim] == 1) {
            continue;
        }
        const std::size_t last = loops.count - 1;
        if (loops.count > 0 && loops.strides[last] == strides[dim] * shape[dim]) {
            loops.shape[last] *= shape[dim];
            loops.strides[last] = strides[dim];
            continue;
        }
        loops.shape[loops.count] = shape[dim];
        loops.strides[loops.count] = strides[dim];
        ++loops.count;
    }
    return true;
}

template <std::size_t Size>
std::byte* copy_items(std::byte* to, const std::byte* from, std::int64_t count,
                      std::int64_t stride) noexcept {
    for (std::int64_t i = 0; i < count; ++i) {
        std::memcpy(to, from + i * stride, Size);
        to += Size;
    }
    return to;
}

std::byte* copy_row(std::byte* to, const std::byte* from, std::int64_t count, std::int64_t stride,
                    std::size_t item_size) noexcept {
    if (stride == static_cast<std::int64_t>(item_size)) {
        const std::size_t bytes = static_cast<std::size_t>(count) * item_size;
        std::memcpy(to, from, bytes);
        return to + bytes;
    }
    switch (item_size) {
        case 1:
            return copy_items<1>(to, from, count, stride);
        case 2:
            return copy_items<2>(to, from, count, stride);
        case 4:
            return copy_items<4>(to, from, count, stride);
        case 8:
            return copy_items<8>(to, from, count, stride);
        case 16:
            return copy_items<16>(to, from, count, stride);
        default:
            break;
    }
    for (std::int64_t i = 0; i < count; ++i) {
        std::memcpy(to, from + i * stride, item_size);
        to += item_size;
    }
    return to;
}

// Counts up all dimensions but the innermost, the last one fastest. False after the last row.
bool next_row(const Loops& loops, std::array<std::int64_t, kMaxDims>& index,
              std::int64_t& offset) noexcept {
    for (std::size_t dim = loops.count - 1; dim-- > 0;) {
        offset += loops.strides[dim];
        if (++index[dim] < loops.shape[dim]) {
            return true;
        }
        offset -= loops.strides[dim] * loops.shape[dim];
        index[dim] = 0;
    }
    return false;
}

}  // namespace

void strided_copy(std::byte* to, const std::byte* from, std::span<const std::int64_t> shape,
                  std::span<const std::int64_t> strides, std::size_t item_size) noexcept {
    Loops loops;
    if (!join(shape, strides, loops)) {
        return;
    }
    if (loops.count == 0) {
        std::memcpy(to, from, item_size);
        return;
    }
    const std::size_t inner = loops.count - 1;
    std::array<std::int64_t, kMaxDims> index{};
    std::int64_t offset = 0;
    do {
        to = copy_row(to, from + offset, loops.shape[inner], loops.strides[inner], item_size);
    } while (next_row(loops, index, offset));
}

}  // namespace penstock::codec

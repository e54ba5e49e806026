// Gathering the blocks of a paged KV cache into one contiguous chunk, and scattering a chunk back,
// in one pass and whatever order the cache keeps a block's dimensions in.
//
// A chunk is [plane][block][token][a token's dimensions], contiguous: a plane is K or V (or both,
// where they are one) of one layer. Values are moved as bytes; nothing is converted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace penstock::codec {

// One plane of one layer: where item 0 of block 0 lies, and the strides in bytes, which may be any.
struct PagedPlane {
    std::byte* at = nullptr;
    std::int64_t block_stride = 0;
    std::vector<std::int64_t> strides;  // of a block's dimensions, the token first
};

// What all planes have in common. `shape` is that of a block: tokens, then a token's dimensions.
struct PagedShape {
    std::vector<std::int64_t> shape;
    std::size_t item_bytes = 0;

    [[nodiscard]] std::size_t block_bytes() const noexcept;
};

// `chunk` takes planes * blocks * block_bytes(); every id is that of a block which is there. From
// 4 MiB on past the caches: what was written is ordered before the caller's next release.
void gather_blocks(std::span<const PagedPlane> planes, const PagedShape& shape,
                   std::span<const std::int64_t> blocks, std::byte* chunk) noexcept;

// The chunk's first `skip_tokens` are not written.
void scatter_blocks(std::span<const PagedPlane> planes, const PagedShape& shape,
                    std::span<const std::int64_t> blocks, const std::byte* chunk,
                    std::size_t skip_tokens) noexcept;

}  // namespace penstock::codec

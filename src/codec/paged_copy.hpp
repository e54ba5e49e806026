// Gathers the blocks of a paged KV cache into one contiguous chunk, and scatters a chunk back, in
// one pass, for any order of a block's dimensions in the cache.
//
// A chunk is [plane][block][token][a token's dimensions], contiguous: a plane is K or V (or both,
// where they are one) of one layer. Values are moved as bytes; nothing is converted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace penstock::codec {

// One plane of one layer: the address of item 0 of block 0, and any strides, in bytes.
struct PagedPlane {
    std::byte* at = nullptr;
    std::int64_t blocks = 0;  // number of blocks
    std::int64_t block_stride = 0;
    std::vector<std::int64_t> strides;  // of a block's dimensions, the token first
};

// Properties common to all planes. `shape` is that of a block: tokens, then a token's dimensions.
struct PagedShape {
    std::vector<std::int64_t> shape;
    std::size_t item_bytes = 0;

    bool operator==(const PagedShape&) const noexcept = default;
};

// All planes of a cache; the cache's memory must outlive it. After the last add() any thread may
// copy; the caller must not let copies of the same blocks overlap.
class PagedCache {
public:
    // Throws InvalidArgument if its shape differs from the first plane's, has no tokens, or exceeds
    // the address space.
    void add(PagedPlane plane, const PagedShape& shape);

    // Throws InvalidArgument unless every plane has every block, and together they fill a chunk of
    // exactly that many bytes. Must be called before blocks are gathered or scattered.
    void check_blocks(std::span<const std::int64_t> blocks, std::size_t chunk_bytes) const;

    // Streams past the caches from 4 MiB on; the stores are ordered before the caller's next
    // release.
    void gather(std::span<const std::int64_t> blocks, std::byte* chunk) const noexcept;
    // Skips the chunk's first `skip_tokens`.
    void scatter(std::span<const std::int64_t> blocks, const std::byte* chunk,
                 std::size_t skip_tokens) const noexcept;

    [[nodiscard]] std::size_t block_bytes() const noexcept { return block_bytes_; }

private:
    template <typename Move>
    void each_block(std::span<const std::int64_t> blocks, std::size_t skip_tokens,
                    const Move& move) const noexcept;
    [[nodiscard]] bool is_past_the_caches(std::size_t blocks) const noexcept;

    std::vector<PagedPlane> planes_;
    PagedShape shape_;
    std::size_t block_bytes_ = 0;
    std::int64_t least_blocks_ = 0;
};

}  // namespace penstock::codec

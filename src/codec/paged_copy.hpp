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
    std::int64_t blocks = 0;  // that are there
    std::int64_t block_stride = 0;
    std::vector<std::int64_t> strides;  // of a block's dimensions, the token first
};

// What all planes have in common. `shape` is that of a block: tokens, then a token's dimensions.
struct PagedShape {
    std::vector<std::int64_t> shape;
    std::size_t item_bytes = 0;

    bool operator==(const PagedShape&) const noexcept = default;
};

// All planes of a cache, whose memory outlives it. After the last add() any thread may copy: what
// runs at the same time is the owner's to keep apart.
class PagedCache {
public:
    // Throws InvalidArgument: of another shape than the first, without tokens, or larger than an
    // address space.
    void add(PagedPlane plane, const PagedShape& shape);

    // Throws InvalidArgument unless each plane has every block, and together they fill a chunk of
    // so many bytes. To be asked before blocks are gathered or scattered.
    void check_blocks(std::span<const std::int64_t> blocks, std::size_t chunk_bytes) const;

    // From 4 MiB on past the caches: what was written is ordered before the caller's next release.
    void gather(std::span<const std::int64_t> blocks, std::byte* chunk) const noexcept;
    // The chunk's first `skip_tokens` are not written.
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

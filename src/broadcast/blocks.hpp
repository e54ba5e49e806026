// The blocks of large messages: which granules are free, which have memory, and which blocks
// readers may still read. Private memory of the writer: no other process allocates, and when the
// writer dies its stream ends, and the blocks go with the segment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "broadcast/holders.hpp"

namespace penstock::detail {

// A run of granules: a block, or a free run between blocks.
struct Block {
    std::uint32_t first = 0;
    std::uint32_t granules = 0;
};

// Used by the writer's thread only, never in a forked child.
class WriterBlocks {
public:
    WriterBlocks() noexcept = default;
    // All granules are free and have no memory. `segment` must outlive this object. Throws
    // std::bad_alloc.
    WriterBlocks(const BroadcastView& view, Segment& segment);

    // First fit by address, so that free granules stay together. The block's memory is reserved.
    // `bytes` is at most the shape's blocks_bytes().
    // Busy: no run is long enough now. NoSpace: the file system is full, although the memory of all
    // free granules has been given back. System: the reservation failed for another reason.
    Result<Block> allocate(std::uint64_t bytes) noexcept;
    // Frees the block. Its memory stays reserved until trim().
    void give_back(Block block) noexcept;
    // The block was sent with the record that ends at `end`.
    void send(Block block, std::uint64_t end) noexcept { sent_.push_back({block, end}); }
    // Frees the sent blocks whose records end at `passed` or before; those that readers hold become
    // kept blocks. Also frees kept blocks that no reader holds any more: checks `looks` of them, in
    // turn. False: it freed none.
    bool recycle(std::uint64_t passed, std::size_t looks = ~std::size_t{0}) noexcept;

    // Whether a block that was sent is not free yet.
    [[nodiscard]] bool has_sent() const noexcept { return !sent_.empty() || !kept_.empty(); }
    // The reader position that frees the oldest sent block, unless readers hold it; 0: no block
    // waits for a position.
    [[nodiscard]] std::uint64_t next_end() const noexcept {
        return sent_.empty() ? 0 : sent_.front().end;
    }
    // Gives the memory of free granules back to the system. False: some of it is still reserved.
    bool trim() noexcept;

private:
    struct Sent {
        Block block;
        std::uint64_t end = 0;  // of its record
    };

    Status reserve(Block block) noexcept;
    [[nodiscard]] Block find_stretch(Block run, bool has_memory) const noexcept;
    [[nodiscard]] std::uint64_t file_offset(std::uint32_t granule) const noexcept;
    void count(std::int64_t granules) noexcept;

    BroadcastView view_;
    BlockHolders holders_;
    Segment* segment_ = nullptr;
    std::vector<Block> free_;               // by address; no two touch
    std::vector<std::uint8_t> has_memory_;  // by granule: 1 if its memory is reserved
    std::deque<Sent> sent_;                 // in order of publication
    std::vector<Block> kept_;               // passed by all, held at the last check
    std::size_t turn_ = 0;                  // index in kept_ of the next check
    std::uint64_t used_ = 0;                // granules that are not free
};

}  // namespace penstock::detail

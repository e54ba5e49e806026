// The memory of large messages as their writer knows it: which granules are free, which have
// memory, and which blocks readers may still read. All of it is private to the writer: no other
// process allocates, and when the writer dies its stream ends, and the blocks go with the segment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "broadcast/holders.hpp"

namespace penstock::detail {

// A run of granules: a block, or what is free between blocks.
struct Block {
    std::uint32_t first = 0;
    std::uint32_t granules = 0;
};

// The writer's thread only. Never in a forked child.
class WriterBlocks {
public:
    WriterBlocks() noexcept = default;
    // All free, without memory. Throws std::bad_alloc. `segment` outlives it.
    WriterBlocks(const BroadcastView& view, Segment& segment);

    // First fit by address, so that free granules stay together. The block's memory is reserved.
    // `bytes` is at most the shape's blocks_bytes().
    // Busy: no run is long enough now. NoSpace: the file system is full, also with the memory of
    // all free granules, which has been given back.
    Result<Block> allocate(std::uint64_t bytes) noexcept;
    // Its memory stays reserved until trim().
    void give_back(Block block) noexcept;
    // The block goes out with the record that ends at `end`.
    void send(Block block, std::uint64_t end) noexcept { sent_.push_back({block, end}); }
    // Takes back the blocks whose records end at `passed` or before, but for those that readers
    // keep; of those that readers kept before it looks at `looks`, in turn. False: none.
    bool recycle(std::uint64_t passed, std::size_t looks = ~std::size_t{0}) noexcept;

    // Some block was sent and is not back yet.
    [[nodiscard]] bool has_sent() const noexcept { return !sent_.empty() || !kept_.empty(); }
    // The reader position that lets the oldest block go; 0: only readers that keep one can.
    [[nodiscard]] std::uint64_t next_end() const noexcept {
        return sent_.empty() ? 0 : sent_.front().end;
    }
    // Gives the memory of free granules back to the system. False: some is still there.
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
    std::vector<Block> kept_;               // passed by all, still held at the last look
    std::size_t turn_ = 0;                  // of kept_, the next to be looked at
    std::uint64_t used_ = 0;                // granules in blocks
};

}  // namespace penstock::detail

// Blocks of payload memory: runs of granules, each run with one owner word.
//
// A granule's word is FREE, HEAD (the first of a block: its owner, its length), BODY (points back
// at its head) or FREEING (a head that its freer is taking apart). To allocate is to
// turn FREE into HEAD by one compare-and-swap, then FREE into BODY along the run; a dead owner's
// HEAD tells its janitor exactly which granules to give back, at whatever step it died.
#pragma once

#include <cstdint>

#include "os/shared_file.hpp"
#include "penstock/error.hpp"
#include "segment/layout.hpp"
#include "segment/waiting/signal.hpp"

namespace penstock::detail {

// Names a block until it is freed. The generation has 20 bits and wraps after about a million
// allocations that start at one granule; a stale name that old could match a live block, so no name
// may be kept that long without holding the block.
struct BlockId {
    std::uint32_t granule = 0;
    std::uint32_t generation = 0;
};

struct ArenaGeometry {
    std::uint64_t granule_bytes = 0;  // a power of two, at least a page
    std::uint32_t granules = 0;

    // Bytes of control memory for this geometry.
    [[nodiscard]] std::uint64_t control_bytes() const noexcept;
};

// A view of one arena through one handle. Allocating, freeing and trimming are safe from several
// processes and threads at once (compare-and-swap on each word).
class Arena {
public:
    Arena() noexcept = default;
    // `control` has geometry.control_bytes(), zeroed at creation. `payload` may be mapped read-only
    // if nothing is allocated through this handle. `file_offset` is the payload's offset in the
    // file.
    Arena(const ArenaGeometry& geometry, std::byte* control, std::byte* payload,
          os::SharedFile& file, std::uint64_t file_offset) noexcept;

    // Marks all memory reserved. At creation, before the segment is published.
    void mark_reserved() noexcept;
    // `space` is the signal that waiters for room sleep on. allocate() notifies it when it claims a
    // run and gives it back; after free(), reap() and trim() the caller notifies.
    void announce_room_on(const Signal& space) noexcept {
        space_ = space;
        has_space_ = true;
    }

    // A block of at least `bytes` owned by participant `owner`, its memory reserved. Busy: no run
    // is free now. TooLarge: none ever will be. NoSpace: the file system is full. Searches from
    // granule `from` on, then before it: 0 prefers memory that is reserved already; the end of the
    // last block is faster where many blocks come and go in order.
    Result<BlockId> allocate(std::uint64_t bytes, unsigned owner, std::uint32_t from = 0) noexcept;
    // Changes a block's owner from `from` to `to`: from then on it survives `from`'s death. False:
    // `from` does not own the block.
    bool hand_over(BlockId block, unsigned from, unsigned to) noexcept;
    // Gives the block back. Only its owner (or its owner's janitor) may call, once. Its memory
    // stays reserved until trim().
    void free(BlockId block, unsigned owner) noexcept;

    // True if the block is allocated under this very name and at least `bytes` long.
    [[nodiscard]] bool is_valid(BlockId block, std::uint64_t bytes) const noexcept;
    [[nodiscard]] std::byte* data(BlockId block) const noexcept;

    // Takes back what dead participant `slot` owned. For its janitor; repeatable.
    void reap(unsigned slot) noexcept;
    // Gives the memory of free granules back to the system, all but `keep_bytes`. Returns how many
    // bytes.
    std::uint64_t trim(unsigned owner, std::uint64_t keep_bytes) noexcept;

    [[nodiscard]] std::uint64_t range_bytes() const noexcept;
    [[nodiscard]] std::uint64_t allocated_bytes() const noexcept;  // scans; for people

private:
    using Word = std::atomic<std::uint64_t>;

    [[nodiscard]] Word& word(std::uint32_t granule) const noexcept;
    bool claim_run(std::uint32_t first, std::uint32_t length, unsigned owner) noexcept;
    void release_run(std::uint32_t first, std::uint32_t length) noexcept;
    void give_back_run(std::uint32_t first, std::uint32_t length) noexcept;
    std::uint32_t search(std::uint32_t from, std::uint32_t to, std::uint32_t length,
                         unsigned owner) noexcept;
    Status reserve_run(std::uint32_t first, std::uint32_t length) noexcept;

    ArenaGeometry geometry_;
    layout::GranuleWord* words_ = nullptr;
    std::byte* payload_ = nullptr;
    os::SharedFile* file_ = nullptr;
    std::uint64_t file_offset_ = 0;
    Signal space_;
    bool has_space_ = false;
};

}  // namespace penstock::detail

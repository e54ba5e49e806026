// Holder bits of a Broadcast's blocks: the readers that keep a block beyond its record. One bit for
// each rank, on the block's first granule.
#pragma once

#include <cstdint>

#include "broadcast/control.hpp"

namespace penstock::detail {

// A view of the bits through one handle. Any thread. A rank's bit is changed by its reader and,
// once that reader is dead, by its successor. `granule` is below shape().granules.
class BlockHolders {
public:
    BlockHolders() noexcept = default;
    explicit BlockHolders(const BroadcastView& view) noexcept : view_(view) {}

    // While the bit is set the writer does not reuse the block. hold() must come before the
    // reader's position passes the block's record, so that the writer sees one or the other.
    // Idempotent.
    void hold(std::uint32_t granule, unsigned rank) noexcept;
    void drop(std::uint32_t granule, unsigned rank) noexcept;
    // Drops the rank's bit on every block. Repeatable.
    void drop_all(unsigned rank) noexcept;

    // Counts the bits of readers that are announced and not found dead. Other bits are void: a
    // reader that joins drops those of its rank before it is announced.
    [[nodiscard]] bool is_held(std::uint32_t granule,
                               const Participants& participants) const noexcept;
    // Whether the rank holds any block. Scans all granules: for display.
    [[nodiscard]] bool is_held_by(unsigned rank, const Participants& participants) const noexcept;

private:
    [[nodiscard]] std::atomic<std::uint64_t>& word(std::uint32_t granule,
                                                   unsigned rank) const noexcept {
        return view_.holders(granule)[rank / 64];
    }

    BroadcastView view_;
};

}  // namespace penstock::detail

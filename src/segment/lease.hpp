// The right to read a block until it is released: one holder bit on the block.
// Dies with its process: the janitor clears the bits of a dead participant.
#pragma once

#include <utility>

#include "segment/arena.hpp"

namespace penstock::detail {

// Owns participant `slot`'s bit on one block. At most one Lease per block and participant, since
// the bit does not count; a process that shares a block among many views counts them itself.
class Lease {
public:
    Lease() noexcept = default;
    // The caller knows the block alive: it is named by a record that its reader has not passed.
    Lease(Arena& arena, BlockId block, unsigned slot) noexcept
        : arena_(&arena), block_(block), slot_(slot) {
        arena_->hold(block_, slot_);
    }
    Lease(Lease&& other) noexcept
        : arena_(std::exchange(other.arena_, nullptr)), block_(other.block_), slot_(other.slot_) {}
    Lease& operator=(Lease&& other) noexcept {
        if (this != &other) {
            release();
            arena_ = std::exchange(other.arena_, nullptr);
            block_ = other.block_;
            slot_ = other.slot_;
        }
        return *this;
    }
    ~Lease() { release(); }

    void release() noexcept {
        if (arena_ != nullptr) std::exchange(arena_, nullptr)->drop(block_, slot_);
    }

private:
    Arena* arena_ = nullptr;
    BlockId block_;
    unsigned slot_ = 0;
};

}  // namespace penstock::detail

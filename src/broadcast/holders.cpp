// One bit changes at a time; what a dead reader left is found by looking at every block.
#include "broadcast/holders.hpp"

#include "os/crash_point.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

constexpr std::uint64_t bit(unsigned rank) noexcept {
    return std::uint64_t{1} << (rank % 64);
}

}  // namespace

void BlockHolders::hold(std::uint32_t granule, unsigned rank) noexcept {
    // The position's release, which comes after it, carries it: see publish_position().
    fetch_or_relaxed(word(granule, rank), bit(rank));
}

void BlockHolders::drop(std::uint32_t granule, unsigned rank) noexcept {
    // pairs with: the acquire in is_held(): the reads of the block come before its reuse
    fetch_and_release(word(granule, rank), ~bit(rank));
}

void BlockHolders::drop_all(unsigned rank) noexcept {
    for (std::uint32_t at = 0; at < view_.shape().granules; ++at) {
        if ((load_relaxed(word(at, rank)) & bit(rank)) == 0) continue;
        drop(at, rank);
        PENSTOCK_CRASH_POINT("broadcast.holders.dropped");
    }
}

bool BlockHolders::is_held(std::uint32_t granule) const noexcept {
    const unsigned readers = view_.shape().readers;
    // pairs with: the release in drop()
    for (unsigned rank = 0; rank < readers; rank += 64) {
        // Bits of ranks that don't exist are damage, and hold nothing.
        const std::uint64_t known = readers - rank < 64 ? bit(readers) - 1 : ~std::uint64_t{0};
        if ((load_acquire(word(granule, rank)) & known) != 0) return true;
    }
    return false;
}

bool BlockHolders::is_held_by(unsigned rank) const noexcept {
    for (std::uint32_t at = 0; at < view_.shape().granules; ++at) {
        if ((load_relaxed(word(at, rank)) & bit(rank)) != 0) return true;
    }
    return false;
}

}  // namespace penstock::detail

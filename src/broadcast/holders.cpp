// Holder bits change one at a time; the bits of a rank are found by a scan of all granules.
#include "broadcast/holders.hpp"

#include <bit>

#include "os/crash_point.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

constexpr std::uint64_t bit(unsigned rank) noexcept {
    return std::uint64_t{1} << (rank % 64);
}

// Whether bits of the rank count: it has an announced reader that was not found dead.
bool is_holder(unsigned rank, const Participants& participants) noexcept {
    const unsigned slot = layout::slot_of_rank(rank);
    return participants.is_announced(slot) && !participants.has_janitor(slot);
}

}  // namespace

void BlockHolders::hold(std::uint32_t granule, unsigned rank) noexcept {
    // Relaxed: the release of the position in publish_position() comes later and publishes the bit.
    fetch_or_relaxed(word(granule, rank), bit(rank));
}

void BlockHolders::drop(std::uint32_t granule, unsigned rank) noexcept {
    // pairs with: the acquire in is_held(): reads of the block come before its reuse
    fetch_and_release(word(granule, rank), ~bit(rank));
}

void BlockHolders::drop_all(unsigned rank) noexcept {
    for (std::uint32_t at = 0; at < view_.shape().granules; ++at) {
        if ((load_relaxed(word(at, rank)) & bit(rank)) == 0) continue;
        drop(at, rank);
        PENSTOCK_CRASH_POINT("broadcast.holders.dropped");
    }
}

bool BlockHolders::is_held(std::uint32_t granule, const Participants& participants) const noexcept {
    const unsigned readers = view_.shape().readers;
    // pairs with: the release in drop()
    for (unsigned rank = 0; rank < readers; rank += 64) {
        // Bits of ranks that don't exist are damage and are ignored.
        const std::uint64_t known = readers - rank < 64 ? bit(readers) - 1 : ~std::uint64_t{0};
        std::uint64_t bits = load_acquire(word(granule, rank)) & known;
        for (; bits != 0; bits &= bits - 1) {
            const auto at = static_cast<unsigned>(std::countr_zero(bits));
            if (is_holder(rank + at, participants)) return true;
        }
    }
    return false;
}

bool BlockHolders::is_held_by(unsigned rank, const Participants& participants) const noexcept {
    if (!is_holder(rank, participants)) return false;
    for (std::uint32_t at = 0; at < view_.shape().granules; ++at) {
        if ((load_relaxed(word(at, rank)) & bit(rank)) != 0) return true;
    }
    return false;
}

}  // namespace penstock::detail

// The arena's steps. Each changes one word, so that a death between any two of them leaves words
// that name their owner; reap() finishes or undoes them.
#include "segment/memory/arena.hpp"

#include <algorithm>
#include <bit>
#include <string>

#include "os/crash_point.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

constexpr std::uint32_t kNowhere = ~std::uint32_t{0};

// The granule word, from the lowest bit: state 2, reserved 1, unused 1, owner 12, length 28 (a
// head's run; a body's distance to its head), generation 20.
enum State : std::uint64_t { kFree = 0, kHead = 1, kBody = 2, kFreeing = 3 };
constexpr std::uint64_t kReserved = 4;
constexpr unsigned kOwnerShift = 4;
constexpr unsigned kLengthShift = 16;
constexpr unsigned kGenerationShift = 44;
constexpr std::uint64_t kOwnerMask = 0xFFF;
constexpr std::uint64_t kLengthMask = 0xFFFFFFF;
constexpr std::uint64_t kGenerationMask = 0xFFFFF;

State state_of(std::uint64_t word) noexcept {
    return static_cast<State>(word & 3U);
}
unsigned owner_of(std::uint64_t word) noexcept {
    return static_cast<unsigned>(word >> kOwnerShift & kOwnerMask);
}
std::uint32_t length_of(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word >> kLengthShift & kLengthMask);
}
std::uint32_t generation_of(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word >> kGenerationShift & kGenerationMask);
}

// The word with another state; reserved bit and generation stay.
std::uint64_t with_state(std::uint64_t word, State state, unsigned owner,
                         std::uint32_t length) noexcept {
    const std::uint64_t kept = word & (kReserved | kGenerationMask << kGenerationShift);
    return kept | state | std::uint64_t{owner} << kOwnerShift |
           std::uint64_t{length} << kLengthShift;
}

std::uint64_t next_generation(std::uint64_t word) noexcept {
    const std::uint64_t next = (std::uint64_t{generation_of(word)} + 1) & kGenerationMask;
    return (word & ~(kGenerationMask << kGenerationShift)) | next << kGenerationShift;
}

}  // namespace

std::uint64_t ArenaGeometry::control_bytes() const noexcept {
    return layout::round_up(granules * sizeof(layout::GranuleWord), layout::kApart);
}

Arena::Arena(const ArenaGeometry& geometry, std::byte* control, std::byte* payload,
             os::SharedFile& file, std::uint64_t file_offset) noexcept
    : geometry_(geometry), words_(reinterpret_cast<layout::GranuleWord*>(control)),
      payload_(payload), file_(&file), file_offset_(file_offset) {}

Arena::Word& Arena::word(std::uint32_t granule) const noexcept {
    return words_[granule].owner;
}

void Arena::mark_reserved() noexcept {
    for (std::uint32_t at = 0; at < geometry_.granules; ++at) {
        fetch_or_relaxed(word(at), kReserved);
    }
}

std::uint64_t Arena::range_bytes() const noexcept {
    return geometry_.granules * geometry_.granule_bytes;
}

std::byte* Arena::data(BlockId block) const noexcept {
    return payload_ + block.granule * geometry_.granule_bytes;
}

// FREE -> HEAD(owner, length), then FREE -> BODY along the run. If a granule is taken, gives back
// what it claimed.
bool Arena::claim_run(std::uint32_t first, std::uint32_t length, unsigned owner) noexcept {
    std::uint64_t seen = load_acquire(word(first));
    if (state_of(seen) != kFree) return false;
    const std::uint64_t head = with_state(next_generation(seen), kHead, owner, length);
    if (!cas_acq_rel(word(first), seen, head)) return false;
    PENSTOCK_CRASH_POINT("arena.claim.head");
    for (std::uint32_t i = 1; i < length; ++i) {
        seen = load_acquire(word(first + i));
        if (state_of(seen) != kFree ||
            !cas_acq_rel(word(first + i), seen, with_state(seen, kBody, owner, i))) {
            give_back_run(first, length);
            return false;
        }
        PENSTOCK_CRASH_POINT("arena.claim.body");
    }
    PENSTOCK_CRASH_POINT("arena.claim.bodies");
    return true;
}

// HEAD|FREEING -> FREE for the run at `first`, its bodies first. Skips bodies that do not point at
// this head (never claimed, or part of another block by now). Repeatable until the head is FREE.
void Arena::release_run(std::uint32_t first, std::uint32_t length) noexcept {
    for (std::uint32_t i = length - 1; i > 0; --i) {
        std::uint64_t seen = load_acquire(word(first + i));
        if (state_of(seen) != kBody || length_of(seen) != i) continue;
        cas_acq_rel(word(first + i), seen, with_state(seen, kFree, 0, 0));
        PENSTOCK_CRASH_POINT("arena.release.body");
    }
    PENSTOCK_CRASH_POINT("arena.release.bodies");
    // pairs with: the acquire load in claim_run()
    store_release(word(first), with_state(load_relaxed(word(first)), kFree, 0, 0));
    PENSTOCK_CRASH_POINT("arena.release.head");
}

// Gives back a run that was claimed and is not to be used. Other allocators may have found it taken
// meanwhile and wait for room: they are notified. Two allocators can't do this to each other for
// ever: a run is given back only if another allocator got a part of it.
void Arena::give_back_run(std::uint32_t first, std::uint32_t length) noexcept {
    release_run(first, length);
    if (has_space_) space_.notify();
}

// Claims the first run of `length` free granules that starts in [from, to); kNowhere if there is
// none.
std::uint32_t Arena::search(std::uint32_t from, std::uint32_t to, std::uint32_t length,
                            unsigned owner) noexcept {
    std::uint32_t run = 0;
    const std::uint32_t end = std::min(geometry_.granules, to + length - 1);
    for (std::uint32_t at = from; at < end; ++at) {
        const std::uint64_t seen = load_relaxed(word(at));
        if (state_of(seen) != kFree) {
            run = 0;
            continue;
        }
        if (++run < length) continue;
        const std::uint32_t first = at + 1 - length;
        if (claim_run(first, length, owner)) return first;
        run = 0;
    }
    return kNowhere;
}

// Reserves memory for those granules of the run that have none yet.
Status Arena::reserve_run(std::uint32_t first, std::uint32_t length) noexcept {
    for (std::uint32_t at = first; at < first + length;) {
        if ((load_relaxed(word(at)) & kReserved) != 0) {
            ++at;
            continue;
        }
        std::uint32_t end = at;
        while (end < first + length && (load_relaxed(word(end)) & kReserved) == 0) ++end;
        const std::uint64_t bytes = (end - at) * geometry_.granule_bytes;
        const auto error = file_->reserve(file_offset_ + at * geometry_.granule_bytes, bytes);
        if (error) {
            return {error == std::errc::no_space_on_device ? ErrorCode::NoSpace : ErrorCode::System,
                    "could not reserve " + std::to_string(bytes) +
                        " bytes of shared memory: " + error.message()};
        }
        PENSTOCK_CRASH_POINT("arena.reserve.reserved");
        for (; at < end; ++at) fetch_or_relaxed(word(at), kReserved);
        PENSTOCK_CRASH_POINT("arena.reserve.marked");
    }
    return Status::ok();
}

Result<BlockId> Arena::allocate(std::uint64_t bytes, unsigned owner, std::uint32_t from) noexcept {
    const std::uint64_t wanted =
        std::max<std::uint64_t>(1, (bytes + geometry_.granule_bytes - 1) / geometry_.granule_bytes);
    if (bytes > range_bytes() || wanted > geometry_.granules) {
        return Status(ErrorCode::TooLarge, std::to_string(bytes) + " bytes can never fit in " +
                                               std::to_string(range_bytes()));
    }
    const auto length = static_cast<std::uint32_t>(wanted);
    from = std::min(from, geometry_.granules);
    std::uint32_t first = search(from, geometry_.granules, length, owner);
    if (first == kNowhere) first = search(0, from, length, owner);
    if (first == kNowhere) {
        return Status(ErrorCode::Busy,
                      "no free run of " + std::to_string(bytes) + " bytes at this moment");
    }
    if (Status reserved = reserve_run(first, length); !reserved) {
        give_back_run(first, length);
        return reserved;
    }
    return BlockId{first, generation_of(load_relaxed(word(first)))};
}

void Arena::free(BlockId block, unsigned owner) noexcept {
    std::uint64_t seen = load_acquire(word(block.granule));
    if (state_of(seen) != kHead || generation_of(seen) != block.generation) return;
    const std::uint32_t length = length_of(seen);
    if (length == 0 || length > geometry_.granules - block.granule) return;  // corrupt
    const std::uint64_t freeing = with_state(seen, kFreeing, owner, length);
    if (!cas_acq_rel(word(block.granule), seen, freeing)) return;
    PENSTOCK_CRASH_POINT("arena.free.freeing");
    release_run(block.granule, length);
}

bool Arena::hand_over(BlockId block, unsigned from, unsigned to) noexcept {
    std::uint64_t seen = load_acquire(word(block.granule));
    if (state_of(seen) != kHead || generation_of(seen) != block.generation ||
        owner_of(seen) != from) {
        return false;
    }
    const bool handed =
        cas_acq_rel(word(block.granule), seen, with_state(seen, kHead, to, length_of(seen)));
    PENSTOCK_CRASH_POINT("arena.hand_over.done");
    return handed;
}

bool Arena::is_valid(BlockId block, std::uint64_t bytes) const noexcept {
    if (block.granule >= geometry_.granules) return false;
    const std::uint64_t seen = load_acquire(word(block.granule));
    const std::uint64_t length = length_of(seen);
    return state_of(seen) == kHead && generation_of(seen) == block.generation &&
           length <= geometry_.granules - block.granule &&
           bytes <= length * geometry_.granule_bytes;
}

void Arena::reap(unsigned slot) noexcept {
    for (std::uint32_t at = 0; at < geometry_.granules; ++at) {
        const std::uint64_t seen = load_acquire(word(at));
        const bool is_run = state_of(seen) == kHead || state_of(seen) == kFreeing;
        if (!is_run || owner_of(seen) != slot) continue;
        const std::uint32_t length = length_of(seen);
        if (length == 0 || length > geometry_.granules - at) continue;  // corrupt: skipped
        release_run(at, length);
    }
}

std::uint64_t Arena::trim(unsigned owner, std::uint64_t keep_bytes) noexcept {
    // In pieces: a participant that is stopped here keeps one piece from the others, not all.
    constexpr std::uint64_t kMaxAtOnce = std::uint64_t{1} << 20U;
    const auto most = static_cast<std::uint32_t>(
        std::max<std::uint64_t>(1, kMaxAtOnce / geometry_.granule_bytes));
    std::uint64_t kept = 0;
    std::uint64_t given_back = 0;
    for (std::uint32_t at = 0; at < geometry_.granules;) {
        const std::uint64_t seen = load_relaxed(word(at));
        if ((seen & kReserved) == 0 || state_of(seen) != kFree) {
            ++at;
            continue;
        }
        if (kept + geometry_.granule_bytes <= keep_bytes) {
            kept += geometry_.granule_bytes;
            ++at;
            continue;
        }
        std::uint32_t length = 1;
        while (at + length < geometry_.granules && length < most) {
            const std::uint64_t next = load_relaxed(word(at + length));
            if (state_of(next) != kFree || (next & kReserved) == 0) break;
            ++length;
        }
        if (!claim_run(at, length, owner)) {
            ++at;
            continue;
        }
        // Cleared before the memory is punched: a death in between costs one fallocate.
        for (std::uint32_t i = 0; i < length; ++i) fetch_and_relaxed(word(at + i), ~kReserved);
        PENSTOCK_CRASH_POINT("arena.trim.unmarked");
        const std::uint64_t bytes = length * geometry_.granule_bytes;
        if (!file_->punch(file_offset_ + at * geometry_.granule_bytes, bytes)) given_back += bytes;
        PENSTOCK_CRASH_POINT("arena.trim.punched");
        release_run(at, length);
        at += length;
    }
    return given_back;
}

std::uint64_t Arena::allocated_bytes() const noexcept {
    std::uint64_t granules = 0;
    for (std::uint32_t at = 0; at < geometry_.granules; ++at) {
        if (state_of(load_relaxed(word(at))) != kFree) ++granules;
    }
    return granules * geometry_.granule_bytes;
}

}  // namespace penstock::detail

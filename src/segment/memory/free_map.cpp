#include "segment/memory/free_map.hpp"

#include <algorithm>
#include <bit>

#include "os/crash_point.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

constexpr unsigned kFan = 8;

constexpr SizeClass byte_of(std::uint64_t word, unsigned at) noexcept {
    return static_cast<SizeClass>(word >> (8 * at));
}
constexpr std::uint64_t with_byte(std::uint64_t word, unsigned at, SizeClass value) noexcept {
    return (word & ~(std::uint64_t{0xFF} << (8 * at))) | std::uint64_t{value} << (8 * at);
}
SizeClass largest_in(std::uint64_t word) noexcept {
    SizeClass largest = 0;
    for (unsigned at = 0; at < kFan; ++at) largest = std::max(largest, byte_of(word, at));
    return largest;
}
// The first byte from `from` on that is at least `least`; kFan: none.
unsigned first_in(std::uint64_t word, unsigned from, SizeClass least) noexcept {
    for (unsigned at = from; at < kFan; ++at) {
        if (byte_of(word, at) >= least) return at;
    }
    return kFan;
}
constexpr std::uint32_t words_of(std::uint32_t bytes) noexcept {
    return (bytes + kFan - 1) / kFan;
}

constexpr unsigned kSubclasses = 8;  // to each power of two

}  // namespace

SizeClass class_of_length(std::uint64_t granules) noexcept {
    if (granules == 0) return 0;
    if (granules < kSubclasses) return static_cast<SizeClass>(granules);
    const auto power = static_cast<unsigned>(std::bit_width(granules)) - 1;
    const auto part = static_cast<unsigned>(granules >> (power - 3) & (kSubclasses - 1));
    return static_cast<SizeClass>((power - 2) * kSubclasses + part);
}

SizeClass class_that_holds(std::uint64_t granules) noexcept {
    const SizeClass size = class_of_length(granules);
    return granules == 0 || class_of_length(granules - 1) != size
               ? size
               : static_cast<SizeClass>(size + 1);
}

FreeMap::FreeMap(std::atomic<std::uint64_t>* words, std::uint32_t regions) noexcept {
    for (std::uint32_t bytes = regions;; bytes = words_of(bytes)) {
        levels_[depth_++] = {words, bytes};
        words += words_of(bytes);
        if (bytes <= kFan) break;
    }
}

std::uint64_t FreeMap::words_for(std::uint32_t regions) noexcept {
    std::uint64_t words = 0;
    for (std::uint32_t bytes = regions;; bytes = words_of(bytes)) {
        words += words_of(bytes);
        if (bytes <= kFan) return words;
    }
}

SizeClass FreeMap::at(std::uint32_t region) const noexcept {
    return byte_of(load_relaxed(levels_[0].words[region / kFan]), region % kFan);
}

void FreeMap::raise(std::uint32_t region, SizeClass size) noexcept {
    raise_from(0, region, size);
}

// Stops at a level that says as much already: a concurrent lower() looks again after it.
// pairs with: lower(); both are sequentially consistent, so that one of the two sees the other.
void FreeMap::raise_from(unsigned level, std::uint32_t index, SizeClass size) noexcept {
    for (; level < depth_ && raise_at(level, index, size); ++level, index /= kFan) {
    }
}

// False: the byte says as much already.
bool FreeMap::raise_at(unsigned level, std::uint32_t index, SizeClass size) noexcept {
    std::atomic<std::uint64_t>& word = levels_[level].words[index / kFan];
    std::uint64_t seen = load_seq_cst(word);
    do {
        if (byte_of(seen, index % kFan) >= size) return false;
    } while (!cas_seq_cst(word, seen, with_byte(seen, index % kFan, size)));
    PENSTOCK_CRASH_POINT("heap.map.raised");
    return true;
}

void FreeMap::restore_above(std::uint32_t region) noexcept {
    std::uint32_t index = region / kFan;
    for (unsigned level = 1; level < depth_; ++level, index /= kFan) {
        raise_from(level, index, largest_in(load_seq_cst(levels_[level - 1].words[index])));
    }
}

// Lowers a byte to the maximum below it, level by level, then reads that maximum again and raises
// the byte if it grew meanwhile: the raise may have stopped at the byte's old value.
void FreeMap::lower(std::uint32_t region, SizeClass said, SizeClass size) noexcept {
    if (!replace(0, region, said, size)) return;
    std::uint32_t index = region / kFan;
    for (unsigned level = 1; level < depth_; ++level, index /= kFan) {
        const std::atomic<std::uint64_t>& below = levels_[level - 1].words[index];
        const SizeClass least = largest_in(load_seq_cst(below));
        const SizeClass now =
            byte_of(load_seq_cst(levels_[level].words[index / kFan]), index % kFan);
        if (now <= least || !replace(level, index, now, least)) return;
        PENSTOCK_CRASH_POINT("heap.map.lowered");
        if (const SizeClass since = largest_in(load_seq_cst(below)); since > least) {
            return raise_from(level, index, since);
        }
    }
}

// False: the byte is not `from`.
bool FreeMap::replace(unsigned level, std::uint32_t index, SizeClass from, SizeClass to) noexcept {
    std::atomic<std::uint64_t>& word = levels_[level].words[index / kFan];
    std::uint64_t seen = load_seq_cst(word);
    do {
        if (byte_of(seen, index % kFan) != from) return false;
    } while (!cas_seq_cst(word, seen, with_byte(seen, index % kFan, to)));
    return true;
}

// Goes up where the rest of a word has nothing large enough, on to the next word, and down where a
// maximum promises something.
std::uint32_t FreeMap::find(std::uint32_t from, SizeClass size) const noexcept {
    std::uint32_t index = from;
    unsigned level = 0;
    while (index < levels_[level].bytes) {
        const std::uint64_t word = load_relaxed(levels_[level].words[index / kFan]);
        const unsigned at = first_in(word, index % kFan, size);
        if (at == kFan) {
            if (level + 1 == depth_) break;
            index = index / kFan + 1;
            ++level;
            continue;
        }
        index = index / kFan * kFan + at;
        if (level == 0) return index;
        index *= kFan;
        --level;
    }
    return kNowhere;
}

}  // namespace penstock::detail

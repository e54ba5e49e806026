// Where a free block of at least some size may begin: a tree of maxima over the regions of a heap.
//
// Every region of a heap has a byte, the size class of its largest free block; every word of eight
// bytes has one in the level above, its maximum. To find the first region that may serve is to go
// up and down once. They are hints: the heap looks at its own words before it believes them, and
// takes back what was not true. Any thread, any process; a death between two steps costs a hint,
// which Heap::restore_hints() brings back.
#pragma once

#include <atomic>
#include <cstdint>

namespace penstock::detail {

// Classes of sizes, eight to each power of two; 0: no block at all.
using SizeClass = std::uint8_t;
// The largest class whose blocks are all at most so long, and the smallest whose are all at least.
SizeClass class_of_length(std::uint64_t granules) noexcept;
SizeClass class_that_holds(std::uint64_t granules) noexcept;

class FreeMap {
public:
    static constexpr std::uint32_t kNowhere = ~std::uint32_t{0};

    FreeMap() noexcept = default;
    FreeMap(std::atomic<std::uint64_t>* words, std::uint32_t regions) noexcept;
    [[nodiscard]] static std::uint64_t words_for(std::uint32_t regions) noexcept;

    // There is a block of that class in the region; to be said after it is there.
    void raise(std::uint32_t region, SizeClass size) noexcept;
    // Makes what lies above the region as large as what lies below, where that is still to be done.
    void restore_above(std::uint32_t region) noexcept;
    // There is none larger than `size` in the region, where the map said `said`. The caller looks
    // again afterwards, and raises what it finds then: see the argument at lower().
    void lower(std::uint32_t region, SizeClass said, SizeClass size) noexcept;
    // The first region from `from` on that may have a block of class `size` or larger.
    [[nodiscard]] std::uint32_t find(std::uint32_t from, SizeClass size) const noexcept;
    [[nodiscard]] SizeClass at(std::uint32_t region) const noexcept;

private:
    static constexpr unsigned kMaxLevels = 11;  // 8^11 regions
    // One level of the tree: a byte for each region, or for each word of the level below.
    struct Level {
        std::atomic<std::uint64_t>* words = nullptr;
        std::uint32_t bytes = 0;
    };

    void raise_from(unsigned level, std::uint32_t index, SizeClass size) noexcept;
    bool raise_at(unsigned level, std::uint32_t index, SizeClass size) noexcept;
    bool replace(unsigned level, std::uint32_t index, SizeClass from, SizeClass to) noexcept;

    Level levels_[kMaxLevels];
    unsigned depth_ = 0;
};

}  // namespace penstock::detail

// Where a free block of at least some size may begin: a tree of maxima over the regions of a heap.
//
// Every region of a heap has a byte, the size class of its largest free block; every word of eight
// bytes has one in the level above, its maximum. The first suitable region is found by going up and
// down once. The bytes are hints: the heap checks them against its own words, and lowers those that
// are too high. Any thread, any process; a death between two steps costs a hint, which
// Heap::restore_hints() restores.
#pragma once

#include <atomic>
#include <cstdint>

namespace penstock::detail {

// Size classes, eight to each power of two; 0: no block.
using SizeClass = std::uint8_t;
// class_of_length: the largest class that a block of this length has. The second: the smallest
// class whose blocks are all at least this long.
SizeClass class_of_length(std::uint64_t granules) noexcept;
SizeClass class_that_holds(std::uint64_t granules) noexcept;

class FreeMap {
public:
    static constexpr std::uint32_t kNowhere = ~std::uint32_t{0};

    FreeMap() noexcept = default;
    FreeMap(std::atomic<std::uint64_t>* words, std::uint32_t regions) noexcept;
    [[nodiscard]] static std::uint64_t words_for(std::uint32_t regions) noexcept;

    // Records that the region has a free block of that class. After the block was freed.
    void raise(std::uint32_t region, SizeClass size) noexcept;
    // Raises the levels above the region to its byte, where a death left them lower.
    void restore_above(std::uint32_t region) noexcept;
    // Records that the region, of which the map said `said`, has nothing larger than `size`. The
    // caller must look at the region again afterwards, and raise what it finds: see lower() in
    // free_map.cpp.
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

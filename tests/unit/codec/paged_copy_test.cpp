// Blocks of paged caches, gathered and scattered, against plain loops over every item; and
// arguments that are refused before a byte is written.
#include "codec/paged_copy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "tests/unit/support/verdict.hpp"

namespace penstock::codec {
namespace {

using test::refuses;
using Bytes = std::vector<std::byte>;
using Sizes = std::vector<std::int64_t>;

class Chance {
public:
    std::int64_t pick(std::int64_t from, std::int64_t to) {
        return std::uniform_int_distribution<std::int64_t>(from, to)(engine_);
    }
    void fill(Bytes& bytes) {
        for (std::byte& byte : bytes) byte = static_cast<std::byte>(engine_() & 0xFFU);
    }

private:
    std::mt19937 engine_{20261129};
};

// One plane in its own memory, gaps between its items included.
struct Plane {
    Bytes memory;
    std::int64_t start = 0;
    std::int64_t blocks = 0;
    std::int64_t block_stride = 0;
    Sizes strides;

    [[nodiscard]] PagedPlane paged() {
        return {memory.data() + start, blocks, block_stride, strides};
    }
};

// A plane with its dimensions in random order, blocks among them, some with gaps or negative
// strides.
Plane make_plane(const PagedShape& shape, std::int64_t blocks, Chance& chance) {
    Sizes counts{blocks};
    counts.insert(counts.end(), shape.shape.begin(), shape.shape.end());
    std::vector<std::size_t> order(counts.size());
    std::iota(order.begin(), order.end(), 0U);
    for (std::size_t i = order.size() - 1; i > 0; --i) {
        // Half of the swaps are left out, so that contiguous planes occur too.
        if (chance.pick(0, 1) == 1) {
            std::swap(
                order[i],
                order[static_cast<std::size_t>(chance.pick(0, static_cast<std::int64_t>(i)))]);
        }
    }
    Sizes strides(counts.size());
    Plane plane;
    auto bytes = static_cast<std::int64_t>(shape.item_bytes);
    for (std::size_t i = order.size(); i-- > 0;) {  // the innermost first
        const std::size_t dimension = order[i];
        if (chance.pick(0, 4) == 0) bytes += chance.pick(1, 9);
        const bool is_backwards = chance.pick(0, 5) == 0;
        strides[dimension] = is_backwards ? -bytes : bytes;
        if (is_backwards) plane.start += (counts[dimension] - 1) * bytes;
        bytes *= counts[dimension];
    }
    plane.memory.resize(static_cast<std::size_t>(bytes));
    chance.fill(plane.memory);
    plane.blocks = blocks;
    plane.block_stride = strides.front();
    plane.strides.assign(strides.begin() + 1, strides.end());
    return plane;
}

bool count_up(Sizes& index, const Sizes& shape) {
    for (std::size_t dim = shape.size(); dim-- > 0;) {
        if (++index[dim] < shape[dim]) return true;
        index[dim] = 0;
    }
    return false;
}

// Calls `item(address in the plane, address in the chunk, token)` for each item.
template <typename Item>
void each_item(const Plane& plane, const PagedShape& shape, const Sizes& blocks, Item&& item) {
    std::size_t at = 0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        Sizes index(shape.shape.size());
        do {
            std::int64_t place = plane.start + blocks[i] * plane.block_stride;
            for (std::size_t dim = 0; dim < index.size(); ++dim) {
                place += index[dim] * plane.strides[dim];
            }
            const auto token = static_cast<std::size_t>(
                static_cast<std::int64_t>(i) * shape.shape.front() + index.front());
            item(static_cast<std::size_t>(place), at, token);
            at += shape.item_bytes;
        } while (count_up(index, shape.shape));
    }
}

struct Cache {
    PagedShape shape;
    std::vector<Plane> planes;
    PagedCache paged;

    Cache(PagedShape of, std::int64_t blocks, std::size_t count, Chance& chance)
        : shape(std::move(of)) {
        for (std::size_t i = 0; i < count; ++i) planes.push_back(make_plane(shape, blocks, chance));
        for (Plane& plane : planes) paged.add(plane.paged(), shape);
    }
    [[nodiscard]] std::size_t chunk_bytes(const Sizes& blocks) const {
        return planes.size() * blocks.size() * paged.block_bytes();
    }
};

constexpr std::byte kBeyond{0x5A};
constexpr std::size_t kMargin = 64;

Bytes gathered(const Cache& cache, const Sizes& blocks) {
    Bytes chunk(cache.chunk_bytes(blocks) + 2 * kMargin, kBeyond);
    cache.paged.check_blocks(blocks, cache.chunk_bytes(blocks));
    cache.paged.gather(blocks, chunk.data() + kMargin);
    return chunk;
}

Bytes gathered_by_loop(const Cache& cache, const Sizes& blocks) {
    Bytes chunk(cache.chunk_bytes(blocks) + 2 * kMargin, kBeyond);
    std::size_t first = kMargin;
    for (const Plane& plane : cache.planes) {
        each_item(plane, cache.shape, blocks, [&](std::size_t place, std::size_t at, std::size_t) {
            std::memcpy(chunk.data() + first + at, plane.memory.data() + place,
                        cache.shape.item_bytes);
        });
        first += blocks.size() * cache.paged.block_bytes();
    }
    return chunk;
}

std::vector<Bytes> scattered_by_loop(const Cache& cache, const Sizes& blocks, const Bytes& chunk,
                                     std::size_t skip) {
    std::vector<Bytes> planes;
    std::size_t first = 0;
    for (const Plane& plane : cache.planes) {
        Bytes memory = plane.memory;
        each_item(plane, cache.shape, blocks,
                  [&](std::size_t place, std::size_t at, std::size_t token) {
                      if (token < skip) return;
                      std::memcpy(memory.data() + place, chunk.data() + first + at,
                                  cache.shape.item_bytes);
                  });
        first += blocks.size() * cache.paged.block_bytes();
        planes.push_back(std::move(memory));
    }
    return planes;
}

void expect_both_ways(Cache& cache, const Sizes& blocks, std::size_t skip, Chance& chance) {
    EXPECT_EQ(gathered(cache, blocks), gathered_by_loop(cache, blocks));
    Bytes chunk(cache.chunk_bytes(blocks));
    chance.fill(chunk);
    const std::vector<Bytes> due = scattered_by_loop(cache, blocks, chunk, skip);
    cache.paged.scatter(blocks, chunk.data(), skip);
    for (std::size_t i = 0; i < due.size(); ++i) EXPECT_EQ(cache.planes[i].memory, due[i]);
}

// No block twice: scattering to one block twice leaves either value.
Sizes some_blocks(std::int64_t there, std::size_t wanted, Chance& chance) {
    Sizes all(static_cast<std::size_t>(there));
    std::iota(all.begin(), all.end(), 0);
    for (std::size_t i = all.size(); i > 1; --i) {
        std::swap(all[i - 1],
                  all[static_cast<std::size_t>(chance.pick(0, static_cast<std::int64_t>(i) - 1))]);
    }
    all.resize(std::min(wanted, all.size()));
    return all;
}

TEST(PagedCopy, AnyShapeAndStridesEqualThePlainLoop) {
    Chance chance;
    for (int round = 0; round < 1500; ++round) {
        SCOPED_TRACE(round);
        PagedShape shape;
        shape.item_bytes = static_cast<std::size_t>(chance.pick(1, 20));
        for (std::int64_t dims = chance.pick(1, 4); dims > 0; --dims) {
            shape.shape.push_back(chance.pick(1, 5));
        }
        const std::int64_t there = chance.pick(1, 6);
        Cache cache(shape, there, static_cast<std::size_t>(chance.pick(1, 4)), chance);
        const Sizes blocks =
            some_blocks(there, static_cast<std::size_t>(chance.pick(0, there)), chance);
        const auto tokens = static_cast<std::int64_t>(blocks.size()) * shape.shape.front();
        expect_both_ways(cache, blocks, static_cast<std::size_t>(chance.pick(0, tokens + 3)),
                         chance);
        if (::testing::Test::HasFailure()) return;
    }
}

// Larger than the 4 MiB from which copies bypass the caches: runs of all lengths and alignments.
TEST(PagedCopy, LargeCopiesEqualThePlainLoop) {
    Chance chance;
    for (const std::int64_t run : {3, 19, 20, 80, 400}) {
        SCOPED_TRACE(run);
        const PagedShape shape{{4, 2, run}, 13};
        const std::int64_t count = (std::int64_t{9} << 18U) / (run * 4 * 2 * 13) + 1;
        Cache cache(shape, count, 2, chance);
        const Sizes blocks = some_blocks(count, static_cast<std::size_t>(count), chance);
        ASSERT_GE(cache.chunk_bytes(blocks), std::size_t{4} << 20U);
        expect_both_ways(cache, blocks, 5, chance);
    }
}

TEST(PagedCopy, GathersABlockAsOftenAsItIsNamed) {
    Chance chance;
    Cache cache({{2, 3}, 4}, 4, 2, chance);
    const Sizes blocks{1, 1, 0, 1};
    EXPECT_EQ(gathered(cache, blocks), gathered_by_loop(cache, blocks));
}

TEST(PagedCopy, NothingIsWrittenWhereAllTokensAreSkipped) {
    Chance chance;
    Cache cache({{4, 3}, 2}, 5, 2, chance);
    const Sizes blocks{3, 1};
    const std::vector<Bytes> before{cache.planes[0].memory, cache.planes[1].memory};
    const Bytes chunk(cache.chunk_bytes(blocks), std::byte{1});
    for (const std::size_t skip : {std::size_t{8}, std::size_t{9}, std::size_t{1} << 40U,
                                   std::numeric_limits<std::size_t>::max()}) {
        cache.paged.scatter(blocks, chunk.data(), skip);
        EXPECT_EQ(cache.planes[0].memory, before[0]) << skip;
        EXPECT_EQ(cache.planes[1].memory, before[1]) << skip;
    }
}

TEST(PagedCopy, MissingBlocksAreRefused) {
    Chance chance;
    const Cache cache({{2, 3}, 4}, 5, 2, chance);
    constexpr std::size_t kTwo = 2 * std::size_t{2} * 24;
    cache.paged.check_blocks(Sizes{0, 4}, kTwo);
    constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();
    constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
    for (const std::int64_t wrong : {std::int64_t{-1}, std::int64_t{5}, kMin, kMax}) {
        const auto check = [&](const Sizes& blocks) { cache.paged.check_blocks(blocks, kTwo); };
        const std::string words = "block " + std::to_string(wrong) + " of a cache that has 5";
        EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { check({wrong, 0}); }, {words}));
        EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { check({0, wrong}); }, {words}));
    }
}

// For planes with different numbers of blocks.
TEST(PagedCopy, ABlockExistsIfEveryPlaneHasIt) {
    Chance chance;
    const PagedShape shape{{2}, 4};
    for (const bool is_short_first : {true, false}) {
        Plane shorter = make_plane(shape, 3, chance);
        Plane longer = make_plane(shape, 9, chance);
        PagedCache cache;
        cache.add((is_short_first ? shorter : longer).paged(), shape);
        cache.add((is_short_first ? longer : shorter).paged(), shape);
        cache.check_blocks(Sizes{2}, 16);
        EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { cache.check_blocks(Sizes{3}, 16); },
                            {"block 3 of a cache that has 3"}));
    }
}

TEST(PagedCopy, AChunkOfAnotherSizeIsRefused) {
    Chance chance;
    const Cache cache({{2, 3}, 4}, 5, 2, chance);
    for (const std::size_t bytes : {0U, 47U, 49U, 96U, 24U}) {
        EXPECT_TRUE(refuses(ErrorCode::InvalidArgument,
                            [&] { cache.paged.check_blocks(Sizes{0}, bytes); },
                            {"1 blocks of the cache take 48 bytes, and the object has"}))
            << bytes;
    }
    cache.paged.check_blocks(Sizes{}, 0);
    EXPECT_TRUE(
        refuses(ErrorCode::InvalidArgument, [&] { cache.paged.check_blocks(Sizes{}, 48); }));
}

// Strides of zero: little memory whose size in items overflows a word.
TEST(PagedCopy, SizesThatOverflowAreRefused) {
    std::byte one{};
    PagedCache cache;
    const auto shape = [](Sizes sizes) { return PagedShape{std::move(sizes), 1}; };
    const auto plane = [&one](std::size_t dims) { return PagedPlane{&one, 4, 0, Sizes(dims)}; };
    constexpr std::int64_t kHalf = std::int64_t{1} << 32U;
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument,
                        [&] { cache.add(plane(2), shape({kHalf, kHalf})); }, {"larger than"}));
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument,
                        [&] { cache.add(plane(3), shape({kHalf, kHalf, 2})); }, {"larger than"}));
    cache.add(plane(1), shape({std::int64_t{1} << 62U}));
    for (const std::size_t count : {2U, 4U, 8U}) {  // 4: the product is 0
        EXPECT_TRUE(refuses(ErrorCode::InvalidArgument,
                            [&] { cache.check_blocks(Sizes(count), 0); }, {"and the object has 0"}))
            << count;
    }
}

TEST(PagedCopy, InvalidCachesAreRefused) {
    std::byte memory[64] = {};
    const auto plane = [&memory](std::size_t dims) {
        return PagedPlane{memory, 2, 8, Sizes(dims, 1)};
    };
    PagedCache cache;
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { cache.check_blocks(Sizes{}, 0); },
                        {"without planes"}));
    cache.gather({}, memory);
    cache.scatter({}, memory, 3);
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { cache.add(plane(0), {{}, 1}); },
                        {"blocks of tokens"}));
    for (const Sizes& empty : {Sizes{0}, Sizes{0, 3}, Sizes{3, 0}, Sizes{-1}, Sizes{-1, -1}}) {
        EXPECT_TRUE(refuses(ErrorCode::InvalidArgument,
                            [&] { cache.add(plane(empty.size()), {empty, 1}); }, {"empty blocks"}));
    }
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { cache.add(plane(1), {{2}, 0}); },
                        {"empty blocks"}));
    cache.add(plane(1), {{2}, 1});
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { cache.add(plane(1), {{3}, 1}); },
                        {"differ in their shape"}));
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { cache.add(plane(1), {{2}, 2}); },
                        {"differ in their shape"}));
    cache.check_blocks(Sizes{1}, 2);  // as it was: of one plane
}

}  // namespace
}  // namespace penstock::codec

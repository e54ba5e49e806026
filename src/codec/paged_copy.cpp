#include "codec/paged_copy.hpp"

#include <algorithm>
#include <cstring>

#include "os/stream_copy.hpp"

namespace penstock::codec {
namespace {

constexpr std::size_t kPastTheCaches = std::size_t{4} << 20U;
constexpr std::size_t kLeastStreamed = 256;  // a shorter run costs more by itself than it saves

struct Dimension {
    std::int64_t count = 1;
    std::int64_t stride = 0;
};

// A block as runs of contiguous bytes: the dimensions that lie without gaps are one.
struct Runs {
    std::vector<Dimension> outer;
    std::size_t bytes = 0;
};

Runs runs_of(const PagedPlane& plane, const PagedShape& shape) {
    Runs runs;
    runs.bytes = shape.item_bytes;
    for (std::size_t i = shape.shape.size(); i-- > 0;) {
        const Dimension dimension{shape.shape[i], plane.strides[i]};
        if (dimension.count == 1) continue;
        const bool is_contiguous =
            runs.outer.empty() && dimension.stride == static_cast<std::int64_t>(runs.bytes);
        if (is_contiguous) {
            runs.bytes *= static_cast<std::size_t>(dimension.count);
        } else {
            runs.outer.push_back(dimension);
        }
    }
    std::ranges::reverse(runs.outer);  // the slowest first
    return runs;
}

void copy_run(std::byte* to, const std::byte* from, std::size_t bytes, bool streams) noexcept {
    if (streams) return os::stream_copy(to, from, bytes);
    std::memcpy(to, from, bytes);
}

// Calls `move(in the cache, in the chunk, bytes)` for each run of a block, in the chunk's order.
template <typename Move>
void each_run(const Runs& runs, std::size_t depth, std::byte* at, std::size_t& done,
              const Move& move) noexcept {
    if (depth == runs.outer.size()) {
        move(at, done, runs.bytes);
        done += runs.bytes;
        return;
    }
    const Dimension& dimension = runs.outer[depth];
    for (std::int64_t i = 0; i < dimension.count; ++i) {
        each_run(runs, depth + 1, at + i * dimension.stride, done, move);
    }
}

// The rest of the block from that token on, as a plane and shape of its own.
PagedShape shortened(const PagedShape& shape, std::size_t skip_tokens) {
    PagedShape rest = shape;
    rest.shape.front() -= static_cast<std::int64_t>(skip_tokens);
    return rest;
}

template <typename Move>
void each_block(std::span<const PagedPlane> planes, const PagedShape& shape,
                std::span<const std::int64_t> blocks, std::size_t skip_tokens,
                const Move& move) noexcept {
    const std::size_t block_bytes = shape.block_bytes();
    const auto tokens = static_cast<std::size_t>(shape.shape.front());
    const std::size_t first = skip_tokens / tokens;
    const std::size_t part = skip_tokens % tokens;
    const std::size_t part_bytes = block_bytes / tokens * part;
    const PagedShape rest = shortened(shape, part);
    for (std::size_t p = 0; p < planes.size(); ++p) {
        const PagedPlane& plane = planes[p];
        const Runs whole = runs_of(plane, shape);
        for (std::size_t i = first; i < blocks.size(); ++i) {
            std::byte* at = plane.at + blocks[i] * plane.block_stride;
            std::size_t done = (p * blocks.size() + i) * block_bytes;
            if (i == first && part > 0) {
                at += plane.strides.front() * static_cast<std::int64_t>(part);
                done += part_bytes;
                each_run(runs_of(plane, rest), 0, at, done, move);
            } else {
                each_run(whole, 0, at, done, move);
            }
        }
    }
}

bool is_streamed(std::span<const PagedPlane> planes, const PagedShape& shape, std::size_t blocks) {
    return planes.size() * blocks * shape.block_bytes() >= kPastTheCaches;
}

}  // namespace

std::size_t PagedShape::block_bytes() const noexcept {
    std::size_t bytes = item_bytes;
    for (const std::int64_t count : shape) bytes *= static_cast<std::size_t>(count);
    return bytes;
}

void gather_blocks(std::span<const PagedPlane> planes, const PagedShape& shape,
                   std::span<const std::int64_t> blocks, std::byte* chunk) noexcept {
    const bool streams = is_streamed(planes, shape, blocks.size());
    each_block(planes, shape, blocks, 0,
               [&](const std::byte* cache, std::size_t at, std::size_t bytes) noexcept {
                   copy_run(chunk + at, cache, bytes, streams && bytes >= kLeastStreamed);
               });
    if (streams) os::stream_fence();
}

void scatter_blocks(std::span<const PagedPlane> planes, const PagedShape& shape,
                    std::span<const std::int64_t> blocks, const std::byte* chunk,
                    std::size_t skip_tokens) noexcept {
    const bool streams = is_streamed(planes, shape, blocks.size());
    each_block(planes, shape, blocks, skip_tokens,
               [&](std::byte* cache, std::size_t at, std::size_t bytes) noexcept {
                   copy_run(cache, chunk + at, bytes, streams && bytes >= kLeastStreamed);
               });
    if (streams) os::stream_fence();
}

}  // namespace penstock::codec

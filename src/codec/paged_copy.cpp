#include "codec/paged_copy.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "os/stream_copy.hpp"
#include "penstock/error.hpp"

namespace penstock::codec {
namespace {

constexpr std::size_t kPastTheCaches = std::size_t{4} << 20U;
// a streaming store costs more than it saves on a shorter run
constexpr std::size_t kMinStreamed = 256;

struct Dimension {
    std::int64_t count = 1;
    std::int64_t stride = 0;
};

// A block as runs of contiguous bytes: adjacent dimensions without gaps are joined.
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

// The shape of the block without its first `skip` tokens.
PagedShape shortened(const PagedShape& shape, std::size_t skip_tokens) {
    PagedShape rest = shape;
    rest.shape.front() -= static_cast<std::int64_t>(skip_tokens);
    return rest;
}

[[noreturn]] void refuse(const std::string& why) {
    throw Error(ErrorCode::InvalidArgument, why);
}

// Strides of zero, or the same block many times, can describe more bytes than a number can count:
// then kMaxBytes, which no chunk has.
constexpr std::size_t kMaxBytes = std::numeric_limits<std::int64_t>::max();

std::size_t product(std::size_t one, std::size_t other) noexcept {
    return one != 0 && other > kMaxBytes / one ? kMaxBytes : one * other;
}

std::size_t bytes_of(const PagedShape& shape) {
    std::size_t bytes = shape.item_bytes;
    for (const std::int64_t count : shape.shape) {
        if (count < 1 || bytes == 0) refuse("a plane of a paged cache has empty blocks");
        bytes = product(bytes, static_cast<std::size_t>(count));
    }
    if (bytes == kMaxBytes) refuse("a plane of a paged cache has blocks larger than memory");
    return bytes;
}

}  // namespace

void PagedCache::add(PagedPlane plane, const PagedShape& shape) {
    if (shape.shape.empty()) refuse("a plane of a paged cache has blocks of tokens");
    if (!planes_.empty() && shape != shape_) {
        refuse("the planes of a paged cache differ in their shape");
    }
    block_bytes_ = bytes_of(shape);
    shape_ = shape;
    least_blocks_ = planes_.empty() ? plane.blocks : std::min(least_blocks_, plane.blocks);
    planes_.push_back(std::move(plane));
}

void PagedCache::check_blocks(std::span<const std::int64_t> blocks, std::size_t chunk_bytes) const {
    if (planes_.empty()) refuse("a paged cache without planes has no blocks");
    for (const std::int64_t block : blocks) {
        if (block < 0 || block >= least_blocks_) {
            refuse("block " + std::to_string(block) + " of a cache that has " +
                   std::to_string(least_blocks_));
        }
    }
    const std::size_t wanted = product(planes_.size() * blocks.size(), block_bytes_);
    if (wanted == chunk_bytes) return;
    refuse(std::to_string(blocks.size()) + " blocks of the cache take " + std::to_string(wanted) +
           " bytes, and the object has " + std::to_string(chunk_bytes));
}

template <typename Move>
void PagedCache::each_block(std::span<const std::int64_t> blocks, std::size_t skip_tokens,
                            const Move& move) const noexcept {
    if (planes_.empty()) return;
    const auto tokens = static_cast<std::size_t>(shape_.shape.front());
    const std::size_t first = skip_tokens / tokens;
    const std::size_t part = skip_tokens % tokens;
    const std::size_t part_bytes = block_bytes_ / tokens * part;
    const PagedShape rest = shortened(shape_, part);
    for (std::size_t p = 0; p < planes_.size(); ++p) {
        const PagedPlane& plane = planes_[p];
        const Runs whole = runs_of(plane, shape_);
        for (std::size_t i = first; i < blocks.size(); ++i) {
            std::byte* at = plane.at + blocks[i] * plane.block_stride;
            std::size_t done = (p * blocks.size() + i) * block_bytes_;
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

bool PagedCache::is_past_the_caches(std::size_t blocks) const noexcept {
    return planes_.size() * blocks * block_bytes_ >= kPastTheCaches;
}

void PagedCache::gather(std::span<const std::int64_t> blocks, std::byte* chunk) const noexcept {
    const bool streams = is_past_the_caches(blocks.size());
    each_block(blocks, 0, [&](const std::byte* cache, std::size_t at, std::size_t bytes) noexcept {
        copy_run(chunk + at, cache, bytes, streams && bytes >= kMinStreamed);
    });
    if (streams) os::stream_fence();
}

void PagedCache::scatter(std::span<const std::int64_t> blocks, const std::byte* chunk,
                         std::size_t skip_tokens) const noexcept {
    const bool streams = is_past_the_caches(blocks.size());
    each_block(blocks, skip_tokens,
               [&](std::byte* cache, std::size_t at, std::size_t bytes) noexcept {
                   copy_run(cache, chunk + at, bytes, streams && bytes >= kMinStreamed);
               });
    if (streams) os::stream_fence();
}

}  // namespace penstock::codec

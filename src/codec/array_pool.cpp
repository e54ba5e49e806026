// A list of free blocks; the youngest of those that fit best is taken first, for its pages are the
// warmest.
#include "codec/array_pool.hpp"

#include <algorithm>
#include <limits>

#include "os/clock.hpp"
#include "os/fork.hpp"
#include "os/private_memory.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::codec {
namespace {

// The most memory that a process keeps for its next arrays, and the largest part of the machine's.
constexpr std::uint64_t kMostKept = std::uint64_t{256} << 20U;
constexpr std::uint64_t kPartOfMachine = 16;
constexpr std::int64_t kIdleNs = 1'000'000'000;

// Granularity of blocks: messages vary a little in size.
constexpr std::size_t kStep = std::size_t{64} << 10U;

constinit ArrayPool* of_process = nullptr;

ArrayPool* make_pool_of_process() {
    const std::uint64_t limit = std::min(kMostKept, os::physical_memory() / kPartOfMachine);
    of_process = new ArrayPool(limit, kIdleNs);
    os::on_fork([] { of_process->before_fork(); }, [] { of_process->after_fork_in_parent(); },
                [] { of_process->after_fork_in_child(); });
    return of_process;
}

// Makes the pool while the program or the library is loaded, so that no fork meets its making.
[[maybe_unused]] const ArrayPool& prepared = array_pool();

}  // namespace

ArrayPool& array_pool() {
    static ArrayPool* const pool = make_pool_of_process();
    return *pool;
}

ArrayPool::ArrayPool(std::uint64_t limit, std::int64_t idle_ns) : idle_ns_(idle_ns) {
    kept_.reserve(static_cast<std::size_t>(limit / kLeast) + 1);
    stats_.limit_bytes = limit;
}

ArrayPool::~ArrayPool() {
    return_all();
}

ArrayPool::Block ArrayPool::take(std::size_t bytes) noexcept {
    if (bytes > std::numeric_limits<std::size_t>::max() - kStep) return {};
    const Block kept = take_kept(bytes);
    return kept.data != nullptr ? kept : map((bytes + kStep - 1) / kStep * kStep);
}

// The block with the least waste, which is half of it at most.
ArrayPool::Block ArrayPool::take_kept(std::size_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    std::size_t best = kept_.size();
    for (std::size_t at = kept_.size(); at-- > 0;) {
        const std::size_t size = kept_[at].block.bytes;
        const bool fits = size >= bytes && size / 2 <= bytes;
        if (fits && (best == kept_.size() || size < kept_[best].block.bytes)) best = at;
    }
    if (best == kept_.size()) return {};
    const Block found = remove(best);
    lend(found);
    ++stats_.recycled;
    return found;
}

ArrayPool::Block ArrayPool::map(std::size_t bytes) noexcept {
    Block fresh{os::map_private(bytes), bytes};
    if (fresh.data == nullptr) {
        return_all();
        fresh.data = os::map_private(bytes);
    }
    if (fresh.data == nullptr) return {};
    os::prefer_huge_pages(fresh.data, bytes);
    const std::lock_guard lock(mutex_);
    lend(fresh);
    ++stats_.fresh;
    return fresh;
}

void ArrayPool::give_back(Block block) noexcept {
    {
        const std::lock_guard lock(mutex_);
        stats_.in_use_bytes -= block.bytes;
        // One that can't stay would drive all others out first.
        const bool may_stay = block.bytes <= std::min(stats_.limit_bytes, peak_);
        if (may_stay && kept_.size() < kept_.capacity()) {
            kept_.push_back({block, os::coarse_ns()});
            detail::add_as_sole_writer(kept_bytes_, block.bytes);
            block = {};
        } else {
            stats_.returned_bytes += block.bytes;
        }
    }
    if (block.data != nullptr) os::unmap_private(block.data, block.bytes);
    trim();
}

// Unmapping takes time, and a message may be due: what is only idle goes in parts.
void ArrayPool::trim() noexcept {
    if (detail::load_relaxed(kept_bytes_) == 0) return;
    constexpr std::size_t kMostIdleAtOnce = std::size_t{16} << 20U;
    for (std::size_t unmapped = 0;;) {
        const Block block = pop_oldest(unmapped < kMostIdleAtOnce ? Which::Surplus : Which::Excess);
        if (block.data == nullptr) return;
        os::unmap_private(block.data, block.bytes);
        unmapped += block.bytes;
    }
}

MemoryStats ArrayPool::stats() const noexcept {
    const std::lock_guard lock(mutex_);
    MemoryStats now = stats_;
    now.kept_bytes = detail::load_relaxed(kept_bytes_);
    return now;
}

void ArrayPool::before_fork() noexcept {
    mutex_.lock();
}

void ArrayPool::after_fork_in_parent() noexcept {
    mutex_.unlock();
}

void ArrayPool::after_fork_in_child() noexcept {
    mutex_.unlock();
    return_all();
}

bool ArrayPool::is_to_go(const Kept& kept, Which which) const noexcept {
    if (which == Which::All) return true;
    if (detail::load_relaxed(kept_bytes_) > std::min(stats_.limit_bytes, peak_)) return true;
    return which == Which::Surplus && os::coarse_ns() - kept.since >= idle_ns_;
}

ArrayPool::Block ArrayPool::remove(std::size_t at) noexcept {
    const Block block = kept_[at].block;
    kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(at));
    detail::add_as_sole_writer(kept_bytes_, -block.bytes);
    return block;
}

void ArrayPool::lend(const Block& block) noexcept {
    stats_.in_use_bytes += block.bytes;
    peak_ = std::max(peak_, stats_.in_use_bytes);
}

ArrayPool::Block ArrayPool::pop_oldest(Which which) noexcept {
    const std::lock_guard lock(mutex_);
    if (kept_.empty() || !is_to_go(kept_.front(), which)) return {};
    const Block oldest = remove(0);
    stats_.returned_bytes += oldest.bytes;
    return oldest;
}

void ArrayPool::return_all() noexcept {
    for (Block block = pop_oldest(Which::All); block.data != nullptr;
         block = pop_oldest(Which::All)) {
        os::unmap_private(block.data, block.bytes);
    }
}

}  // namespace penstock::codec

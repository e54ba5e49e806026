// Memory for arrays that are copied out of shared memory: returned by the last reference to an
// array, and warm for the next one. The first touch of fresh pages costs several times the copy.
//
// States of a block, and the calls that move it, from any thread:
//
//   the system's --take()--> lent --give_back()--> kept --take()--> lent
//                                                  kept --trim(), give_back()--> the system's
//
// lent: exactly one owner, which outlives every reference to the bytes, and alone may touch them.
// kept: the pool's; older than `idle_ns`, the next give_back() or trim() returns it. It holds the
// old array's bytes, so that an owner must write all bytes that it shows. In a forked child lent
// blocks stay lent, to the child's copies of the owners, and kept ones are returned at once:
// otherwise the parent would copy each page that it writes.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "penstock/statistics.hpp"

namespace penstock::codec {

#define PENSTOCK_MEMORY_STATISTICS(X)                                                        \
    X(std::uint64_t, in_use_bytes, Bytes, "Recycled memory under arrays that exist.")        \
    X(std::uint64_t, kept_bytes, Bytes, "Memory of earlier arrays, kept for the next ones.") \
    X(std::uint64_t, limit_bytes, Bytes, "The most that is kept.")                           \
    X(std::uint64_t, recycled, Counter, "Arrays that got memory of an earlier one.")         \
    X(std::uint64_t, fresh, Counter, "Arrays that got memory from the system.")              \
    X(std::uint64_t, returned_bytes, CountedBytes, "Memory given back to the system.")
PENSTOCK_STATISTICS(MemoryStats, Statistics, PENSTOCK_MEMORY_STATISTICS);

// Thread-safe; its mutex is held for no system call and with no other mutex.
class ArrayPool {
public:
    struct Block {
        std::byte* data = nullptr;
        std::size_t bytes = 0;
    };

    // Arrays of fewer bytes are left to malloc, which reuses memory itself below this size.
    static constexpr std::size_t kLeast = std::size_t{128} << 10U;

    // Keeps up to `limit` bytes, and no more than were ever lent at once.
    ArrayPool(std::uint64_t limit, std::int64_t idle_ns);
    ArrayPool(const ArrayPool&) = delete;
    ArrayPool& operator=(const ArrayPool&) = delete;
    ~ArrayPool();

    // At least `bytes` from a page boundary on; null data without memory for them.
    [[nodiscard]] Block take(std::size_t bytes) noexcept;
    // Returns what take() gave, after the last access to it.
    void give_back(Block block) noexcept;
    // Gives back to the system what is too much, and some of what was kept for too long. Costs a
    // load if nothing is kept.
    void trim() noexcept;

    [[nodiscard]] MemoryStats stats() const noexcept;

    // Around every fork, in the forking thread: a child finds the pool consistent and unlocked.
    void before_fork() noexcept;
    void after_fork_in_parent() noexcept;
    void after_fork_in_child() noexcept;

private:
    struct Kept {
        Block block;
        std::int64_t since = 0;
    };
    // Which kept blocks are to go: those beyond the bound, also those that were kept for too long,
    // or all.
    enum class Which : std::uint8_t { Excess, Surplus, All };

    [[nodiscard]] Block take_kept(std::size_t bytes) noexcept;
    [[nodiscard]] Block map(std::size_t bytes) noexcept;
    // These need the mutex.
    [[nodiscard]] bool is_to_go(const Kept& kept, Which which) const noexcept;
    Block remove(std::size_t at) noexcept;
    void lend(const Block& block) noexcept;
    // Removes the oldest kept block, to be unmapped; null data: it may stay, or there is none.
    [[nodiscard]] Block pop_oldest(Which which) noexcept;
    void return_all() noexcept;

    const std::int64_t idle_ns_;
    mutable std::mutex mutex_;
    std::vector<Kept> kept_;                    // by age, the oldest first
    std::uint64_t peak_ = 0;                    // the most that was ever lent
    MemoryStats stats_;                         // except kept_bytes
    std::atomic<std::uint64_t> kept_bytes_{0};  // written with the mutex
};

// The pool of this process, never destroyed: arrays may be freed by any thread, and after the end
// of the interpreter.
ArrayPool& array_pool();

}  // namespace penstock::codec

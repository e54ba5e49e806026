// Reading memory that another process may be changing: each value once, into a local, to be checked
// and used from there. The compiler could repeat a plain load after the check.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace penstock::detail {

// A word of memory that may be mapped read-only, as one atomic load (atomic_ref of const comes with
// C++26 only). `from` is aligned to 8 bytes. Relaxed: ordered by the position that led here.
inline std::uint64_t load_word(const std::byte* from) noexcept {
    return __atomic_load_n(reinterpret_cast<const std::uint64_t*>(from), __ATOMIC_RELAXED);
}

// A struct of whole words, each loaded once. `from` is aligned to 8 bytes. The result may mix old
// and new words: later checks must cope with that.
template <typename T>
T load_words(const std::byte* from) noexcept {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % sizeof(std::uint64_t) == 0);
    std::array<std::uint64_t, sizeof(T) / sizeof(std::uint64_t)> words;
    for (std::size_t at = 0; at < words.size(); ++at) {
        words[at] = load_word(from + at * sizeof(std::uint64_t));
    }
    return std::bit_cast<T>(words);
}

// The same for any type at any address; even the bytes of one value may be mixed. The fence keeps
// the compiler from reading again a value that was checked already.
template <typename T>
T read_once(const std::byte* from) noexcept {
    T value;
    std::memcpy(&value, from, sizeof(T));
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return value;
}

}  // namespace penstock::detail

// Reading a value out of memory that another process may be changing: once, into a local.
// The fence keeps the compiler from going back to memory for a value that was checked already.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>

namespace penstock::codec {

// `from` needs no alignment. The bytes of one value may still be a mixture of old and new: that is
// for the checks behind to survive.
template <typename T>
T read_once(const std::byte* from) noexcept {
    T value;
    std::memcpy(&value, from, sizeof(T));
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return value;
}

}  // namespace penstock::codec

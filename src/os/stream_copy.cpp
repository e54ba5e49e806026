// Streaming stores of x86-64, available on every such processor; elsewhere memcpy, whose library
// chooses best (ARM's has instructions for long copies).
#include "os/stream_copy.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace penstock::os {

#if defined(__SSE2__)

void stream_copy(std::byte* to, const std::byte* from, std::size_t bytes) noexcept {
    constexpr std::size_t kWidth = sizeof(__m128i);
    constexpr std::size_t kLine = 4 * kWidth;
    const std::size_t head = std::min(bytes, -reinterpret_cast<std::uintptr_t>(to) % kLine);
    std::memcpy(to, from, head);
    to += head;
    from += head;
    bytes -= head;
    for (; bytes >= kLine; bytes -= kLine, to += kLine, from += kLine) {
        const auto* const in = reinterpret_cast<const __m128i*>(from);
        auto* const out = reinterpret_cast<__m128i*>(to);
        const __m128i first = _mm_loadu_si128(in);
        const __m128i second = _mm_loadu_si128(in + 1);
        const __m128i third = _mm_loadu_si128(in + 2);
        const __m128i fourth = _mm_loadu_si128(in + 3);
        _mm_stream_si128(out, first);
        _mm_stream_si128(out + 1, second);
        _mm_stream_si128(out + 2, third);
        _mm_stream_si128(out + 3, fourth);
    }
    std::memcpy(to, from, bytes);
}

void stream_fence() noexcept {
    _mm_sfence();
}

#else

void stream_copy(std::byte* to, const std::byte* from, std::size_t bytes) noexcept {
    std::memcpy(to, from, bytes);
}

void stream_fence() noexcept {}

#endif

}  // namespace penstock::os

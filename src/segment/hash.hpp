// FNV-1a, 64 bits: for short texts and headers, where the value is part of a layout.
// Fowler, Noll, Vo; parameters as in RFC 9923.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock::detail {

constexpr std::uint64_t fnv1a(std::string_view bytes) noexcept {
    std::uint64_t hash = 0xCBF29CE484222325;
    for (const char byte : bytes) {
        hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001B3;
    }
    return hash;
}

}  // namespace penstock::detail

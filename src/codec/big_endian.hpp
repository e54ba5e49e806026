// MessagePack's numbers are big-endian. Compilers turn these shifts into one instruction.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "segment/words/read_once.hpp"

namespace penstock::codec {

constexpr std::uint8_t byte_swapped(std::uint8_t value) noexcept {
    return value;
}

constexpr std::uint16_t byte_swapped(std::uint16_t value) noexcept {
    return static_cast<std::uint16_t>((value >> 8U) | (value << 8U));
}

constexpr std::uint32_t byte_swapped(std::uint32_t value) noexcept {
    return (value >> 24U) | ((value >> 8U) & 0x0000ff00U) | ((value << 8U) & 0x00ff0000U) |
           (value << 24U);
}

constexpr std::uint64_t byte_swapped(std::uint64_t value) noexcept {
    return (std::uint64_t{byte_swapped(static_cast<std::uint32_t>(value))} << 32U) |
           byte_swapped(static_cast<std::uint32_t>(value >> 32U));
}

template <std::unsigned_integral T>
constexpr T big_endian(T value) noexcept {
    return std::endian::native == std::endian::little ? byte_swapped(value) : value;
}

template <std::unsigned_integral T>
void store_big(std::byte* to, T value) noexcept {
    const T swapped = big_endian(value);
    std::memcpy(to, &swapped, sizeof(T));
}

template <std::unsigned_integral T>
T load_big(const std::byte* from) noexcept {
    return big_endian(detail::read_once<T>(from));
}

}  // namespace penstock::codec

// Bytes overwritten by a fuzzer's input: significant words, single bits, or random bytes. And a
// header's checksum corrected again, so that the checks behind it are reached.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "segment/layout.hpp"

namespace penstock::fuzzing {

// Corrects the checksum of a changed header (FNV-1a, as in header.cpp).
inline void mend_checksum(std::span<std::uint8_t> image) {
    if (image.size() < sizeof(layout::SegmentHeader)) return;
    constexpr std::size_t kEnd = offsetof(layout::SegmentHeader, checksum);
    std::uint64_t hash = 0xcbf29ce484222325;
    for (std::size_t i = 0; i < kEnd; ++i) hash = (hash ^ image[i]) * 0x100000001b3;
    std::memcpy(image.data() + kEnd, &hash, sizeof hash);
}

// Overwrites some words or bytes within [from, from + size) of the memory, as the input says.
inline void damage(FuzzedDataProvider& input, std::uint8_t* memory, std::size_t from,
                   std::size_t size) {
    constexpr std::uint64_t kTelling[] = {0,
                                          1,
                                          2,
                                          7,
                                          8,
                                          4096,
                                          65536,
                                          0x7FFFFFFF,
                                          0xFFFFFFFF,
                                          std::uint64_t{1} << 40U,
                                          ~std::uint64_t{0} - 7,
                                          ~std::uint64_t{0}};
    const std::size_t at = input.ConsumeIntegralInRange<std::size_t>(0, size - 1);
    if (input.ConsumeBool()) {
        const auto bytes =
            input.ConsumeBytes<std::uint8_t>(input.ConsumeIntegralInRange<std::size_t>(1, 64));
        if (bytes.empty()) return;
        std::memcpy(memory + from + at, bytes.data(), std::min(bytes.size(), size - at));
        return;
    }
    const std::size_t word = at / 8 * 8;
    if (word + 8 > size) return;
    std::uint64_t value = 0;
    std::memcpy(&value, memory + from + word, 8);
    switch (input.ConsumeIntegralInRange<int>(0, 3)) {
        case 0:
            value = input.PickValueInArray(kTelling);
            break;
        case 1:
            value += input.ConsumeIntegralInRange<std::uint64_t>(0, 64) * 8;
            break;
        case 2:
            value ^= std::uint64_t{1} << input.ConsumeIntegralInRange<unsigned>(0, 63);
            break;
        default:
            value = input.ConsumeIntegral<std::uint64_t>();
            break;
    }
    std::memcpy(memory + from + word, &value, 8);
}

}  // namespace penstock::fuzzing

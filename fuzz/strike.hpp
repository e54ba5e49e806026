// A corruptor's writes, taken from a fuzzer's input.
#pragma once

#include "fuzz/damage.hpp"
#include "tests/support/segment_corruptor.hpp"

namespace penstock::fuzzing {

using trust::SegmentCorruptor;

// Not between control block and payload: in a Store, that is nearly all of the file.
inline void strike(const SegmentCorruptor& corruptor, FuzzedDataProvider& input) {
    const std::span<std::byte> part = input.ConsumeBool() ? corruptor.words() : corruptor.payload();
    damage(input, reinterpret_cast<std::uint8_t*>(part.data()), 0, part.size());
}

}  // namespace penstock::fuzzing

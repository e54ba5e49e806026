// A corruptor's writes as a fuzzer's input has them.
#pragma once

#include "fuzz/damage.hpp"
#include "tests/support/segment_corruptor.hpp"

namespace penstock::fuzzing {

using trust::SegmentCorruptor;

// Not what lies between control and payload: of a Store, that is nearly everything.
inline void strike(const SegmentCorruptor& corruptor, FuzzedDataProvider& input) {
    const std::span<std::byte> part = input.ConsumeBool() ? corruptor.words() : corruptor.payload();
    damage(input, reinterpret_cast<std::uint8_t*>(part.data()), 0, part.size());
}

}  // namespace penstock::fuzzing

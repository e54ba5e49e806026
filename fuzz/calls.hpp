// The library's calls as fuzzers make them: they may fail, and their results are read. No other
// outcome is allowed.
#pragma once

#include <cstddef>
#include <span>

#include "penstock/error.hpp"

namespace penstock::fuzzing {

// Calls that may fail with an Error, and in no other way.
template <typename Call>
void may_refuse(Call&& call) {
    try {
        call();
    } catch (const Error&) {  // the only allowed exception
    }
}

// Reads some bytes of every page, so that a range outside the mapping is noticed.
inline void touch(std::span<const std::byte> bytes) {
    volatile unsigned sum = 0;
    for (std::size_t at = 0; at < bytes.size(); at += 1024) {
        sum = sum + std::to_integer<unsigned>(bytes[at]);
    }
    if (!bytes.empty()) sum = sum + std::to_integer<unsigned>(bytes.back());
}

}  // namespace penstock::fuzzing

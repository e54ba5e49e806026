// Calls of the library as fuzzers make them: they may refuse, and what they give is read.
// Nothing else may come of them.
#pragma once

#include <cstddef>
#include <span>

#include "penstock/error.hpp"

namespace penstock::fuzzing {

// Calls that may refuse, and must do nothing worse.
template <typename Call>
void may_refuse(Call&& call) {
    try {
        call();
    } catch (const Error&) {  // the only thing that may come out
    }
}

// Reads some of every page, so that a range that is not there is noticed.
inline void touch(std::span<const std::byte> bytes) {
    volatile unsigned sum = 0;
    for (std::size_t at = 0; at < bytes.size(); at += 1024) {
        sum = sum + std::to_integer<unsigned>(bytes[at]);
    }
    if (!bytes.empty()) sum = sum + std::to_integer<unsigned>(bytes.back());
}

}  // namespace penstock::fuzzing

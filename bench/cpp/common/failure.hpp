// The end of a failed benchmark: a message on stderr and a nonzero exit code. A figure from a run
// that lost or tore a message must never be printed.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <string>
#include <string_view>

#include "penstock/error.hpp"

namespace penstock::bench {

[[noreturn]] inline void fail(const std::string& sentence) {
    std::fprintf(stderr, "bench: %s\n", sentence.c_str());
    std::fflush(stderr);
    _exit(3);
}

inline void require(bool condition, std::string_view sentence) {
    if (!condition) [[unlikely]] {
        fail(std::string(sentence));
    }
}

inline void require(const Status& status) {
    if (!status) [[unlikely]] {
        fail(std::string(status.message()));
    }
}

// For set-up only; loops over messages check the Result themselves.
template <typename T>
T require(Result<T> result) {
    require(result.status());
    return *std::move(result);
}

}  // namespace penstock::bench

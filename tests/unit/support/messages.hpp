// Messages whose every byte follows from their number, and the longest wait for one.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tests/support/numbered.hpp"

namespace penstock::test {

using Bytes = std::vector<std::byte>;

inline constexpr std::chrono::seconds kLong{20};  // a bound that no wait may reach

inline Bytes make_message(std::uint64_t number, std::size_t size) {
    Bytes bytes(size);
    trust::fill_numbered(bytes, number);
    return bytes;
}

inline ::testing::AssertionResult is_message(std::span<const std::byte> bytes, std::uint64_t number,
                                             std::size_t size) {
    if (bytes.size() != size) {
        return ::testing::AssertionFailure()
               << bytes.size() << " bytes, where " << size << " had been sent";
    }
    const std::string fault = trust::check_numbered(bytes, number);
    if (fault.empty()) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "message " << number << ": " << fault;
}

}  // namespace penstock::test

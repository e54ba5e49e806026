// Assertions on errors: the code, and the parts that the message must have.
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <ostream>
#include <string>
#include <string_view>

#include "penstock/error.hpp"

namespace penstock {

// How GoogleTest prints a code.
inline void PrintTo(ErrorCode code, std::ostream* out) {
    *out << to_string(code);
}

}  // namespace penstock

namespace penstock::test {

using Parts = std::initializer_list<std::string_view>;

inline ::testing::AssertionResult says(std::string_view sentence, Parts parts) {
    for (const std::string_view part : parts) {
        if (sentence.find(part) != std::string_view::npos) continue;
        return ::testing::AssertionFailure()
               << "\"" << sentence << "\" does not say \"" << part << "\"";
    }
    return ::testing::AssertionSuccess();
}

// The call throws Error with this code, and its message has all of `parts`.
template <typename Call>
::testing::AssertionResult refuses(ErrorCode code, Call&& call, Parts parts = {}) {
    try {
        call();
    } catch (const Error& error) {
        if (error.code() != code) {
            return ::testing::AssertionFailure() << "threw " << to_string(error.code()) << " (\""
                                                 << error.what() << "\"), not " << to_string(code);
        }
        return says(error.what(), parts);
    }
    return ::testing::AssertionFailure()
           << "threw nothing, where " << to_string(code) << " was due";
}

inline ::testing::AssertionResult fails(const Status& status, ErrorCode code, Parts parts = {}) {
    if (status.code() != code) {
        return ::testing::AssertionFailure() << to_string(status.code()) << " (\""
                                             << status.message() << "\"), not " << to_string(code);
    }
    return says(status.message(), parts);
}

template <typename T>
::testing::AssertionResult fails(const Result<T>& result, ErrorCode code, Parts parts = {}) {
    return fails(result.status(), code, parts);
}

inline ::testing::AssertionResult succeeds(const Status& status) {
    if (status) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << to_string(status.code()) << ": " << status.message();
}

template <typename T>
::testing::AssertionResult succeeds(const Result<T>& result) {
    return succeeds(result.status());
}

}  // namespace penstock::test

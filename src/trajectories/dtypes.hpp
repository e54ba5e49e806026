// Dtypes that a column may have.
#pragma once

#include "penstock/codec.hpp"

namespace penstock {

constexpr bool is_integer(codec::DType dtype) noexcept {
    using enum codec::DType;
    switch (dtype) {
        case Bool:
        case Int8:
        case Int16:
        case Int32:
        case Int64:
        case UInt8:
        case UInt16:
        case UInt32:
            return true;
        default:
            return false;
    }
}

constexpr bool is_real(codec::DType dtype) noexcept {
    using enum codec::DType;
    return dtype == Float16 || dtype == BFloat16 || dtype == Float32 || dtype == Float64;
}

constexpr bool is_real_or_integer(codec::DType dtype) noexcept {
    return is_real(dtype) || is_integer(dtype);
}

// A type that holds every value of both: the type itself if they are equal, otherwise Int32 or
// Int64 for integers, and Float32 or Float64 for real numbers.
constexpr codec::DType widest(codec::DType one, codec::DType other) noexcept {
    using enum codec::DType;
    if (one == other) return one;
    if (is_real(one)) return one == Float64 || other == Float64 ? Float64 : Float32;
    const bool is_wide = one == Int64 || other == Int64 || one == UInt32 || other == UInt32;
    return is_wide ? Int64 : Int32;
}

}  // namespace penstock

// A kernel for each pair of dtypes, chosen once for a column. Values are loaded and stored by
// memcpy: those of a restored message, or of a caller's row, need not be aligned.
#include "trajectories/fill.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "trajectories/dtypes.hpp"

namespace penstock::detail {
namespace {

using codec::DType;

// Layout of a 16-bit float, to widen it; both conversions are exact.
struct Half {
    std::uint16_t bits;
    [[nodiscard]] float value() const noexcept {
        const unsigned sign = (bits & 0x8000U) << 16U;
        const unsigned exponent = bits >> 10U & 0x1FU;
        const unsigned fraction = bits & 0x3FFU;
        if (exponent == 0) {  // zero, or below the normal range
            const float small = std::ldexp(static_cast<float>(fraction), -24);
            return sign != 0 ? -small : small;
        }
        const unsigned wide = exponent == 0x1F ? 0xFFU : exponent + 112;
        return std::bit_cast<float>(sign | wide << 23U | fraction << 13U);
    }
};

struct Brain {
    std::uint16_t bits;
    [[nodiscard]] float value() const noexcept {
        return std::bit_cast<float>(unsigned{bits} << 16U);
    }
};

template <typename T>
T load(const std::byte* from, std::size_t at) noexcept {
    T value;
    std::memcpy(&value, from + at * sizeof(T), sizeof(T));
    return value;
}

template <typename T>
void store(std::byte* to, std::size_t at, T value) noexcept {
    std::memcpy(to + at * sizeof(T), &value, sizeof(T));
}

template <std::size_t Size>
bool copy_same(std::byte* to, const std::byte* from, std::size_t count) noexcept {
    if (count > 0) std::memcpy(to, from, count * Size);  // an empty row may have no address
    return true;
}

// No branch in the loop: misfits are collected and reported at its end.
template <typename To, typename From>
bool copy_integers(std::byte* to, const std::byte* from, std::size_t count) noexcept {
    std::int64_t lost = 0;
    for (std::size_t at = 0; at < count; ++at) {
        const std::int64_t value{load<From>(from, at)};  // widened with its sign
        const auto kept = static_cast<To>(value);
        lost |= static_cast<std::int64_t>(kept) ^ value;
        store(to, at, kept);
    }
    return lost == 0;
}

template <typename To, typename From>
bool copy_reals(std::byte* to, const std::byte* from, std::size_t count) noexcept {
    for (std::size_t at = 0; at < count; ++at) {
        if constexpr (std::is_class_v<From>) {
            store(to, at, static_cast<To>(load<From>(from, at).value()));
        } else {
            store(to, at, static_cast<To>(load<From>(from, at)));
        }
    }
    return true;
}

template <typename To>
CopyValues integers_to(DType from) noexcept {
    switch (from) {
        case DType::Bool:
        case DType::UInt8:
            return &copy_integers<To, std::uint8_t>;
        case DType::Int8:
            return &copy_integers<To, std::int8_t>;
        case DType::Int16:
            return &copy_integers<To, std::int16_t>;
        case DType::UInt16:
            return &copy_integers<To, std::uint16_t>;
        case DType::Int32:
            return &copy_integers<To, std::int32_t>;
        case DType::UInt32:
            return &copy_integers<To, std::uint32_t>;
        case DType::Int64:
            return &copy_integers<To, std::int64_t>;
        default:
            return nullptr;
    }
}

template <typename To>
CopyValues reals_to(DType from) noexcept {
    switch (from) {
        case DType::Float16:
            return &copy_reals<To, Half>;
        case DType::BFloat16:
            return &copy_reals<To, Brain>;
        case DType::Float32:
            return &copy_reals<To, float>;
        case DType::Float64:
            return &copy_reals<To, double>;
        default:
            return nullptr;
    }
}

CopyValues copy_unchanged(DType dtype) noexcept {
    switch (codec::item_size(dtype)) {
        case 1:
            return &copy_same<1>;
        case 2:
            return &copy_same<2>;
        case 4:
            return &copy_same<4>;
        case 8:
            return &copy_same<8>;
        default:
            return nullptr;
    }
}

template <typename T>
void fill(std::byte* to, std::size_t count, double value) noexcept {
    T pad;
    if constexpr (std::is_integral_v<T>) {
        constexpr auto kMin = static_cast<double>(std::numeric_limits<T>::lowest());
        constexpr auto kMax = static_cast<double>(std::numeric_limits<T>::max());
        if (value >= kMax) {
            pad = std::numeric_limits<T>::max();
        } else {
            pad = value > kMin ? static_cast<T>(value) : std::numeric_limits<T>::lowest();
        }
    } else {
        pad = static_cast<T>(value);
    }
    for (std::size_t at = 0; at < count; ++at) store(to, at, pad);
}

}  // namespace

CopyValues copy_values(DType to, DType from) noexcept {
    if (to == from) return copy_unchanged(to);
    switch (to) {
        case DType::Int32:
            return integers_to<std::int32_t>(from);
        case DType::Int64:
            return integers_to<std::int64_t>(from);
        case DType::Float32:
            return reals_to<float>(from);
        case DType::Float64:
            return reals_to<double>(from);
        default:
            return nullptr;
    }
}

FillValues fill_values(DType dtype) noexcept {
    switch (dtype) {
        case DType::Bool:
        case DType::UInt8:
            return &fill<std::uint8_t>;
        case DType::Int8:
            return &fill<std::int8_t>;
        case DType::Int16:
            return &fill<std::int16_t>;
        case DType::UInt16:
            return &fill<std::uint16_t>;
        case DType::Int32:
            return &fill<std::int32_t>;
        case DType::UInt32:
            return &fill<std::uint32_t>;
        case DType::Int64:
            return &fill<std::int64_t>;
        case DType::Float32:
            return &fill<float>;
        case DType::Float64:
            return &fill<double>;
        default:
            return nullptr;  // a 16-bit float: ask for float32
    }
}

}  // namespace penstock::detail

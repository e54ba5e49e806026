// Parses one number of JSON text. Whole numbers and reals of at most nineteen digits are read eight
// digits at a time and rounded exactly; all others go to std::from_chars.
#pragma once

#include <array>
#include <bit>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>

namespace penstock::py::json {

static_assert(std::endian::native == std::endian::little, "the first digit is the lowest byte");

// every number of so many digits fits into 64 bits
inline constexpr std::ptrdiff_t kMaxDigits = 19;

constexpr bool is_digit(char letter) noexcept {
    return letter >= '0' && letter <= '9';
}

template <std::size_t Count>
constexpr std::array<std::uint64_t, Count> powers_of(std::uint64_t base) noexcept {
    std::array<std::uint64_t, Count> powers{1};
    for (std::size_t at = 1; at < Count; ++at) powers[at] = powers[at - 1] * base;
    return powers;
}

// How many of eight characters, from the first, are digits; each has '0' subtracted.
inline unsigned count_digits(std::uint64_t letters) noexcept {
    const std::uint64_t others =
        ((letters + 0x7676767676767676) | letters) & std::uint64_t{0x8080808080808080};
    return others == 0 ? 8 : static_cast<unsigned>(std::countr_zero(others)) / 8;
}

// The value of eight digits: neighbours are joined to two, four and eight digits.
constexpr std::uint64_t join_digits(std::uint64_t digits) noexcept {
    constexpr std::uint64_t kPairs = 0x000000FF000000FF;
    digits = digits * 10 + (digits >> 8U);
    return ((digits & kPairs) * (100 + (std::uint64_t{1'000'000} << 32U)) +
            ((digits >> 16U) & kPairs) * (1 + (std::uint64_t{10'000} << 32U))) >>
           32U;
}

// Appends the digits at `at` to `number`, modulo 2^64. Returns their end.
inline const char* read_digits(const char* at, const char* end, std::uint64_t& number) noexcept {
    static constexpr auto kPowers = powers_of<9>(10);
    constexpr std::uint64_t kZeros = 0x3030303030303030;
    while (end - at >= 8) {
        std::uint64_t letters = 0;
        std::memcpy(&letters, at, sizeof letters);
        letters ^= kZeros;
        const unsigned count = count_digits(letters);
        const unsigned half_shift = 4 * (8 - count);
        number = number * kPowers[count] + join_digits(letters << half_shift << half_shift);
        at += count;
        if (count != 8) return at;
    }
    for (; at != end && is_digit(*at); ++at) {
        number = number * 10 + static_cast<std::uint64_t>(*at - '0');
    }
    return at;
}

__extension__ using Wide = unsigned __int128;

inline constexpr std::size_t kMaxPower = 27;  // largest power of five that fits into 64 bits

// 5^power, shifted until its highest bit is set, and 2^127 over that, rounded down.
struct Divisor {
    std::uint64_t value = 0;
    std::uint64_t reciprocal = 0;
    int shift = 0;
};

constexpr std::array<Divisor, kMaxPower + 1> make_divisors() noexcept {
    std::array<Divisor, kMaxPower + 1> divisors{};
    constexpr auto kPowers = powers_of<kMaxPower + 1>(5);
    for (std::size_t power = 1; power <= kMaxPower; ++power) {
        Divisor& divisor = divisors[power];
        divisor.shift = std::countl_zero(kPowers[power]);
        divisor.value = kPowers[power] << static_cast<unsigned>(divisor.shift);
        divisor.reciprocal = static_cast<std::uint64_t>((Wide{1} << 127U) / divisor.value);
    }
    return divisors;
}

// number * 2^63 / divisor, both with their highest bit set: at least 62 bits, of which a double has
// 53, and correct enough that converting it to double rounds as the true quotient would.
inline std::uint64_t quotient_of(std::uint64_t number, const Divisor& divisor) noexcept {
    // The estimate by reciprocal is less than 2 too small. That matters only if the bits beyond a
    // double's are at one half, or just below.
    const auto estimate = static_cast<std::uint64_t>((Wide{number} * divisor.reciprocal) >> 64U);
    const std::uint64_t half = (estimate >> 63U) != 0 ? 1U << 10U : 1U << 9U;
    const std::uint64_t below = estimate & (2 * half - 1);
    if (half - below > 2) return estimate;  // one branch: which side of a half is unpredictable
    // By division, which takes ten times as long; a remainder sets the lowest bit.
    const Wide dividend = Wide{number} << 63U;
    const auto quotient = static_cast<std::uint64_t>(dividend / divisor.value);
    const bool is_exact = Wide{quotient} * divisor.value == dividend;
    return quotient | (is_exact ? 0U : 1U);
}

// The double nearest to number / 10^power, power in [1, 27]: over 5^power, and over 2^power.
inline double divide_by_power_of_ten(std::uint64_t number, std::size_t power) noexcept {
    static constexpr auto kDivisors = make_divisors();
    if (number == 0) return 0;
    const Divisor& divisor = kDivisors[power];
    const int shift = std::countl_zero(number);
    const std::uint64_t quotient = quotient_of(number << static_cast<unsigned>(shift), divisor);
    // Halved, so that a signed conversion without a branch can be used. The lowest bit still
    // records lower bits.
    const auto half = static_cast<std::int64_t>((quotient >> 1U) | (quotient & 1U));
    const int exponent = divisor.shift - shift - 62 - static_cast<int>(power);
    const auto scale = std::bit_cast<double>(static_cast<std::uint64_t>(1023 + exponent) << 52U);
    return static_cast<double>(half) * scale;
}

// number * 10^exponent, rounded once. False where this method does not apply.
inline bool scale_exactly(std::uint64_t number, std::int64_t exponent, double& value) noexcept {
    if (exponent == 0) {
        value = static_cast<double>(number);
        return true;
    }
    if (exponent > 0 || exponent < -static_cast<std::int64_t>(kMaxPower)) return false;
    value = divide_by_power_of_ten(number, static_cast<std::size_t>(-exponent));
    return true;
}

// These functions return where the number ends; null: there is none, or no Value can hold it.

template <std::integral Value>
const char* read_number(const char* at, const char* end, Value& value) noexcept {
    const bool is_negative = at != end && *at == '-';
    const char* const begin = is_negative ? at + 1 : at;
    std::uint64_t number = 0;
    at = read_digits(begin, end, number);
    const std::ptrdiff_t count = at - begin;
    if (count == 0 || count > kMaxDigits || (count > 1 && *begin == '0')) return nullptr;
    constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<Value>::max());
    if (number > kMax + (is_negative ? 1 : 0)) return nullptr;
    value = static_cast<Value>(is_negative ? 0 - number : number);
    return at;
}

// NaN, Infinity and -Infinity, which Python writes though JSON has none. `at` is behind the sign.
inline const char* read_literal(const char* at, const char* end, bool is_negative,
                                double& value) noexcept {
    constexpr std::string_view kNan = "NaN";
    constexpr std::string_view kInfinity = "Infinity";
    using Limits = std::numeric_limits<double>;
    const std::string_view left(at, static_cast<std::size_t>(end - at));
    if (!is_negative && left.starts_with(kNan)) {
        value = Limits::quiet_NaN();
        return at + kNan.size();
    }
    if (!left.starts_with(kInfinity)) return nullptr;
    value = is_negative ? -Limits::infinity() : Limits::infinity();
    return at + kInfinity.size();
}

// Adds the exponent at `at`, if there is one, to `exponent`; huge ones are clamped beyond a
// double's range.
inline const char* read_exponent(const char* at, const char* end, std::int64_t& exponent) noexcept {
    constexpr std::int64_t kFar = 1'000'000;
    if (at == end || (*at != 'e' && *at != 'E')) return at;
    ++at;
    const bool is_negative = at != end && *at == '-';
    if (at != end && (*at == '+' || *at == '-')) ++at;
    const char* const begin = at;
    std::int64_t read = 0;
    for (; at != end && is_digit(*at); ++at) {
        if (read < kFar) read = read * 10 + (*at - '0');
    }
    if (at == begin) return nullptr;
    exponent += is_negative ? -read : read;
    return at;
}

inline const char* read_number(const char* at, const char* end, double& value) noexcept {
    const char* const begin = at;
    const bool is_negative = at != end && *at == '-';
    if (is_negative) ++at;
    const char* const whole = at;
    std::uint64_t number = 0;
    // the common form: no need to count digits
    if (end - at >= 2 && is_digit(at[0]) && at[1] == '.') {
        number = static_cast<std::uint64_t>(*at++ - '0');
    } else {
        at = read_digits(at, end, number);
    }
    if (at == whole) return read_literal(at, end, is_negative, value);
    if (at - whole > 1 && *whole == '0') return nullptr;
    std::ptrdiff_t count = at - whole;
    std::int64_t exponent = 0;
    const char* const whole_end = at;
    if (at != end && *at == '.') {
        const char* const fraction = ++at;
        // Leading zeros do not count towards the nineteen. With more digits `number` is a remainder
        // modulo 2^64, which may also be 0.
        if (number == 0 && count == 1) {
            count = 0;
            while (at != end && *at == '0') ++at;
        }
        const char* const digits = at;
        at = read_digits(at, end, number);
        if (at == fraction) return nullptr;
        count += at - digits;
        exponent = fraction - at;
    }
    at = read_exponent(at, end, exponent);
    if (at == nullptr) return nullptr;
    if (count > kMaxDigits || !scale_exactly(number, exponent, value)) {
        const auto [stop, error] = std::from_chars(begin, at, value);
        return error == std::errc() && stop == at ? at : nullptr;
    }
    // -0 is a whole number, which has no sign; -0.0 is a real number with one.
    if (is_negative && !(number == 0 && at == whole_end)) value = -value;
    return at;
}

}  // namespace penstock::py::json

// Text, one character at a time: its length, and whether a terminal would show it.
#include "segment/text.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

namespace penstock::detail {
namespace {

struct Character {
    char32_t code = 0;
    std::size_t size = 1;
    bool is_valid = false;  // false: one byte that is not part of valid UTF-8
};

struct Range {
    char32_t first;
    char32_t last;
};

// Unicode's control (Cc), format (Cf) and separator (Zl, Zp) characters, and the range reserved for
// tags behind U+E0000.
constexpr std::array kUnprintable = {
    Range{0x00, 0x1F},       Range{0x7F, 0x9F},       Range{0xAD, 0xAD},
    Range{0x600, 0x605},     Range{0x61C, 0x61C},     Range{0x6DD, 0x6DD},
    Range{0x70F, 0x70F},     Range{0x890, 0x891},     Range{0x8E2, 0x8E2},
    Range{0x180E, 0x180E},   Range{0x200B, 0x200F},   Range{0x2028, 0x202E},
    Range{0x2060, 0x206F},   Range{0xFEFF, 0xFEFF},   Range{0xFFF9, 0xFFFB},
    Range{0x110BD, 0x110BD}, Range{0x110CD, 0x110CD}, Range{0x13430, 0x1343F},
    Range{0x1BCA0, 0x1BCA3}, Range{0x1D173, 0x1D17A}, Range{0xE0000, 0xE0FFF},
};

// Exceptions that words need: the joiners, and marks before numbers and names.
constexpr std::array kInWords = {
    Range{0x200C, 0x200D}, Range{0x600, 0x605}, Range{0x6DD, 0x6DD},     Range{0x70F, 0x70F},
    Range{0x890, 0x891},   Range{0x8E2, 0x8E2}, Range{0x110BD, 0x110BD}, Range{0x110CD, 0x110CD},
};

template <std::size_t kRanges>
bool is_in(const std::array<Range, kRanges>& ranges, char32_t code) noexcept {
    return std::any_of(ranges.begin(), ranges.end(), [code](const Range& range) {
        return range.first <= code && code <= range.last;
    });
}

std::uint8_t byte_of(std::string_view text, std::size_t at) noexcept {
    return static_cast<std::uint8_t>(text[at]);
}

bool is_continuation(std::uint8_t byte) noexcept {
    return (byte & 0xC0U) == 0x80U;
}

// Length of a character by its first byte; 0 for a byte that begins none.
std::size_t size_from(std::uint8_t first) noexcept {
    if (first < 0x80U) return 1;
    if (first >= 0xC2U && first <= 0xDFU) return 2;
    if (first >= 0xE0U && first <= 0xEFU) return 3;
    return first >= 0xF0U && first <= 0xF4U ? 4 : 0;
}

// The smallest code point that needs this many bytes: an overlong form is not valid UTF-8.
char32_t least_of(std::size_t size) noexcept {
    constexpr std::array<char32_t, 5> kMin = {0, 0, 0x80, 0x800, 0x10000};
    return kMin[size];
}

// `text` is not empty.
Character first_of(std::string_view text) noexcept {
    const std::uint8_t first = byte_of(text, 0);
    const std::size_t size = size_from(first);
    if (size == 1) return {first, 1, true};
    if (size == 0 || text.size() < size) return {};
    char32_t code = first & (0x7FU >> size);
    for (std::size_t at = 1; at < size; ++at) {
        if (!is_continuation(byte_of(text, at))) return {};
        code = code << 6U | (byte_of(text, at) & 0x3FU);
    }
    const bool is_surrogate = code >= 0xD800 && code <= 0xDFFF;
    if (code < least_of(size) || code > 0x10FFFF || is_surrogate) return {};
    return {code, size, true};
}

void append_escaped(std::string& to, char32_t code) {
    if (code < 0x80) {
        append_hex(to += "\\x", code, 2);
    } else if (code < 0x10000) {
        append_hex(to += "\\u", code, 4);
    } else {
        append_hex(to += "\\U", code, 8);
    }
}

}  // namespace

void append_hex(std::string& to, std::uint64_t number, int digits) {
    constexpr char kDigits[] = "0123456789abcdef";
    for (int digit = digits - 1; digit >= 0; --digit) {
        to += kDigits[number >> (4U * static_cast<unsigned>(digit)) & 0xFU];
    }
}

std::string_view cut(std::string_view utf8, std::size_t most) noexcept {
    if (utf8.size() <= most) return utf8;
    std::size_t begin = most;
    while (begin > 0 && most - begin < 4 && is_continuation(byte_of(utf8, begin))) --begin;
    // At a character boundary the character does not fit and is dropped whole; in invalid text
    // bytes are cut.
    const bool is_whole = !is_continuation(byte_of(utf8, begin));
    return utf8.substr(0, is_whole ? begin : most);
}

bool is_utf8(std::string_view text) noexcept {
    while (!text.empty()) {
        const Character next = first_of(text);
        if (!next.is_valid) return false;
        text.remove_prefix(next.size);
    }
    return true;
}

std::string printable(std::string_view text) {
    std::string shown;
    shown.reserve(text.size());
    while (!text.empty()) {
        const Character next = first_of(text);
        if (!next.is_valid) {
            append_hex(shown += "\\x", byte_of(text, 0), 2);
        } else if (is_in(kUnprintable, next.code)) {
            append_escaped(shown, next.code);
        } else {
            shown += text.substr(0, next.size);
        }
        text.remove_prefix(next.size);
    }
    return shown;
}

std::string find_unprintable(std::string_view name) {
    while (!name.empty()) {
        const Character next = first_of(name);
        if (next.is_valid && is_in(kUnprintable, next.code) && !is_in(kInWords, next.code)) {
            return printable(name.substr(0, next.size));
        }
        name.remove_prefix(next.size);
    }
    return {};
}

}  // namespace penstock::detail

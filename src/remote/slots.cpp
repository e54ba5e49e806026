// CRC16 of keys, and the parser of redirections.
#include "remote/slots.hpp"

#include <array>
#include <charconv>

namespace penstock::detail {

namespace {

constexpr std::array<std::uint16_t, 256> make_table() {
    std::array<std::uint16_t, 256> table{};
    for (unsigned value = 0; value < table.size(); ++value) {
        unsigned crc = value << 8U;
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc & 0x8000U) != 0 ? (crc << 1U) ^ 0x1021U : crc << 1U;
        }
        table[value] = static_cast<std::uint16_t>(crc);
    }
    return table;
}

constexpr std::array<std::uint16_t, 256> kTable = make_table();

std::string_view hashed_part(std::string_view key) noexcept {
    const std::size_t open = key.find('{');
    if (open == std::string_view::npos) return key;
    const std::size_t close = key.find('}', open + 1);
    if (close == std::string_view::npos || close == open + 1) return key;
    return key.substr(open + 1, close - open - 1);
}

// Removes and returns the first word of the text.
std::string_view take_word(std::string_view& text) noexcept {
    const std::size_t end = text.find(' ');
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    return word;
}

template <typename Number>
bool read_all(std::string_view text, Number& number) noexcept {
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
    return fault == std::errc() && end == text.data() + text.size();
}

}  // namespace

unsigned slot_of(std::string_view key) noexcept {
    unsigned crc = 0;
    for (const char letter : hashed_part(key)) {
        const unsigned index = ((crc >> 8U) ^ static_cast<unsigned char>(letter)) & 0xFFU;
        crc = ((crc << 8U) ^ kTable[index]) & 0xFFFFU;
    }
    return crc % kSlots;
}

std::optional<Redirect> parse_redirect(std::string_view error) {
    const std::string_view kind = take_word(error);
    if (kind != "MOVED" && kind != "ASK") return std::nullopt;
    Redirect redirect;
    redirect.is_ask = kind == "ASK";
    if (!read_all(take_word(error), redirect.slot) || redirect.slot >= kSlots) return std::nullopt;
    const std::string_view place = take_word(error);
    const std::size_t colon = place.rfind(':');
    if (colon == std::string_view::npos) return std::nullopt;
    if (!read_all(place.substr(colon + 1), redirect.port)) return std::nullopt;
    redirect.host = place.substr(0, colon);
    return redirect;
}

}  // namespace penstock::detail

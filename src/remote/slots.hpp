// Slots of a Redis cluster and its redirections, after the Redis cluster specification.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::detail {

inline constexpr unsigned kSlots = 16384;

// CRC16 (XMODEM) of the key, or of its hash tag: the text in its first {}, if not empty.
unsigned slot_of(std::string_view key) noexcept;

// Redirection: "MOVED 3999 10.0.0.1:6381" or "ASK 3999 10.0.0.1:6381". An empty host means that of
// the server that sent it.
struct Redirect {
    bool is_ask = false;
    unsigned slot = 0;
    std::string host;
    std::uint16_t port = 0;
};
std::optional<Redirect> parse_redirect(std::string_view error);

}  // namespace penstock::detail

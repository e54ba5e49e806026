// How a cluster spreads its keys: 16384 slots, and the words by which a server says that a slot is
// elsewhere. (The cluster specification of Redis.)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::detail {

inline constexpr unsigned kSlots = 16384;

// CRC16 (XMODEM) of the key, or of what its first {} holds, if that is anything.
unsigned slot_of(std::string_view key) noexcept;

// "MOVED 3999 10.0.0.1:6381", "ASK 3999 10.0.0.1:6381". The host is empty where it is to be that
// of the server which said so.
struct Redirect {
    bool is_ask = false;
    unsigned slot = 0;
    std::string host;
    std::uint16_t port = 0;
};
std::optional<Redirect> parse_redirect(std::string_view error);

}  // namespace penstock::detail

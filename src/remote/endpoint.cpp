// Reading URLs.
#include "remote/endpoint.hpp"

#include <charconv>

#include "penstock/error.hpp"
#include "segment/text.hpp"

namespace penstock::detail {

namespace {

[[noreturn]] void refuse(std::string_view why) {
    throw Error(ErrorCode::InvalidArgument,
                "a server's URL " + std::string(why) +
                    "; write redis://[user:password@]host[:port][/db] or "
                    "unix:[//user:password@]/path[?db=N]");
}

unsigned read_number(std::string_view text, unsigned most, std::string_view what) {
    unsigned value = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || fault != std::errc() || end != text.data() + text.size() || value > most) {
        refuse("has '" + std::string(text) + "' for its " + std::string(what));
    }
    return value;
}

std::string unescape(std::string_view text) {
    std::string plain;
    for (std::size_t at = 0; at < text.size(); ++at) {
        if (text[at] != '%') {
            plain += text[at];
            continue;
        }
        const std::string_view digits = text.substr(at + 1, 2);
        unsigned code = 0;
        const auto [end, fault] =
            std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
        if (digits.size() < 2 || fault != std::errc() || end != digits.data() + 2) {
            refuse("has a '%' that two hexadecimal digits should follow");
        }
        plain += static_cast<char>(code);
        at += 2;
    }
    return plain;
}

bool skip(std::string_view& text, std::string_view start) {
    if (!text.starts_with(start)) return false;
    text.remove_prefix(start.size());
    return true;
}

constexpr unsigned kMaxDb = 1U << 20U;

void parse_user(std::string_view text, Endpoint& endpoint) {
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos) refuse("names a user without a password");
    endpoint.user = unescape(text.substr(0, colon));
    endpoint.password = unescape(text.substr(colon + 1));
}

Endpoint parse_unix(std::string_view rest) {
    Endpoint endpoint;
    if (skip(rest, "//")) {
        const std::size_t at = rest.find("@/");
        if (at == std::string_view::npos) refuse("of a Unix socket names nobody after '//'");
        parse_user(rest.substr(0, at), endpoint);
        rest.remove_prefix(at + 1);
    }
    const std::size_t query = rest.find('?');
    endpoint.path = rest.substr(0, query);
    if (query != std::string_view::npos) {
        std::string_view text = rest.substr(query + 1);
        if (!skip(text, "db=")) refuse("may ask for 'db=N' after '?' and nothing else");
        endpoint.db = read_number(text, kMaxDb, "db");
    }
    if (!endpoint.path.starts_with('/')) refuse("of a Unix socket needs an absolute path");
    return endpoint;
}

// host, host:port or [v6]:port.
void parse_place(std::string_view text, Endpoint& endpoint) {
    std::string_view port;
    if (skip(text, "[")) {
        const std::size_t end = text.find(']');
        if (end == std::string_view::npos) refuse("opens a '[' that nothing closes");
        endpoint.host = text.substr(0, end);
        port = text.substr(end + 1);
    } else {
        const std::size_t colon = text.find(':');
        endpoint.host = text.substr(0, colon);
        if (colon != std::string_view::npos) port = text.substr(colon);
    }
    if (endpoint.host.empty()) refuse("names no host");
    if (port.empty()) return;
    if (!skip(port, ":")) refuse("has something between host and port");
    constexpr unsigned kMaxPort = 65535;
    endpoint.port = static_cast<std::uint16_t>(read_number(port, kMaxPort, "port"));
}

}  // namespace

std::string Endpoint::title() const {
    return printable(path.empty() ? host + ":" + std::to_string(port) : path);
}

bool Endpoint::is_at(const Endpoint& other) const noexcept {
    return path == other.path && host == other.host && port == other.port;
}

Endpoint parse_endpoint(std::string_view url) {
    if (url.find('\0') != std::string_view::npos) refuse("has a zero byte");
    if (skip(url, "unix:")) return parse_unix(url);
    if (!skip(url, "redis://")) refuse("begins with neither redis:// nor unix:");
    Endpoint endpoint;
    // The last one: who wrote a plain '@' into his password is understood.
    const std::size_t at = url.rfind('@');
    if (at != std::string_view::npos) {
        parse_user(url.substr(0, at), endpoint);
        url.remove_prefix(at + 1);
    }
    const std::size_t slash = url.find('/');
    if (slash != std::string_view::npos && slash + 1 < url.size()) {
        endpoint.db = read_number(url.substr(slash + 1), kMaxDb, "db");
    }
    parse_place(url.substr(0, slash), endpoint);
    return endpoint;
}

}  // namespace penstock::detail

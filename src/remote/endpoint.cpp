// URL parser.
#include "remote/endpoint.hpp"

#include <algorithm>
#include <charconv>

#include "penstock/error.hpp"
#include "segment/text.hpp"

namespace penstock::detail {

namespace {

[[noreturn]] void refuse(std::string_view why) {
    throw Error(ErrorCode::InvalidArgument,
                "a server's URL " + std::string(why) +
                    "; write redis://[user:password@]host[:port][/db], "
                    "redis+cluster://[user:password@]host[:port][,host[:port]...], "
                    "redis+sentinel://[user:password@]host[:port][,...]/service[/db] or "
                    "unix:[//user:password@]/path[?db=N]");
}

unsigned read_number(std::string_view text, unsigned most, std::string_view what) {
    unsigned value = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || fault != std::errc() || end != text.data() + text.size() || value > most) {
        // The text is not quoted: in a malformed URL it may be the password.
        refuse("has something else than a number up to " + std::to_string(most) + " for its " +
               std::string(what));
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
    if (endpoint.password.empty()) refuse("names a user with an empty password");
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

// Scheme: "redis" or "valkey", then "://", "+cluster://" or "+sentinel://".
Topology parse_scheme(std::string_view& url) {
    if (!skip(url, "redis") && !skip(url, "valkey")) {
        refuse("begins with neither redis:// nor valkey:// nor unix:");
    }
    if (url.starts_with("s://") || url.starts_with("s+")) {
        throw Error(ErrorCode::InvalidArgument,
                    "a server's URL asks for TLS, which this library does not speak; have a proxy "
                    "on this machine do it (stunnel, or ghostunnel), and give redis:// or unix: of "
                    "that");
    }
    if (skip(url, "://")) return Topology::Single;
    if (skip(url, "+cluster://")) return Topology::Cluster;
    if (skip(url, "+sentinel://")) return Topology::Sentinel;
    refuse("has a scheme that is none of ours");
}

// Path: "" or "/db"; with Sentinels "/service" or "/service/db".
void parse_path(std::string_view path, ServerList& servers) {
    if (servers.topology == Topology::Sentinel) {
        path.remove_prefix(path.empty() ? 0 : 1);
        servers.service = unescape(path.substr(0, path.find('/')));
        if (servers.service.empty()) refuse("of Sentinels names no service");
        path.remove_prefix(std::min(path.size(), path.find('/')));
    }
    if (path.size() > 1) servers.master.db = read_number(path.substr(1), kMaxDb, "db");
    if (servers.topology == Topology::Cluster && servers.master.db != 0) {
        refuse("of a cluster has a database, and a cluster no database but 0");
    }
}

ServerList parse_url(std::string_view url) {
    if (url.find('\0') != std::string_view::npos) refuse("has a zero byte");
    ServerList servers;
    if (skip(url, "unix:")) {
        servers.endpoints.push_back(parse_unix(url));
        return servers;
    }
    servers.topology = parse_scheme(url);
    // The last '@', because a password may contain unescaped ones.
    const std::size_t at = url.rfind('@');
    if (at != std::string_view::npos) {
        parse_user(url.substr(0, at), servers.master);
        url.remove_prefix(at + 1);
    }
    if (url.find('?') != std::string_view::npos) refuse("has a '?', which only that of unix: may");
    std::string_view places = url.substr(0, url.find('/'));
    parse_path(url.substr(places.size()), servers);
    for (bool is_last = false; !is_last;) {
        // Sentinels get no credentials: those of the URL are the master's.
        constexpr std::uint16_t kSentinelPort = 26379;
        Endpoint endpoint = servers.topology == Topology::Sentinel ? Endpoint{} : servers.master;
        if (servers.topology == Topology::Sentinel) endpoint.port = kSentinelPort;
        const std::size_t comma = places.find(',');
        is_last = comma == std::string_view::npos;
        parse_place(places.substr(0, comma), endpoint);
        if (!is_last) places.remove_prefix(comma + 1);
        servers.endpoints.push_back(std::move(endpoint));
    }
    if (servers.topology == Topology::Single && servers.endpoints.size() > 1) {
        refuse("names several servers, and is not that of a cluster");
    }
    return servers;
}

}  // namespace

std::string Endpoint::title() const {
    return printable(path.empty() ? host + ":" + std::to_string(port) : path);
}

bool Endpoint::is_at(const Endpoint& other) const noexcept {
    return path == other.path && host == other.host && port == other.port;
}

ServerList parse_servers(std::span<const std::string> urls) {
    ServerList servers;
    for (const std::string& url : urls) {
        const ServerList one = parse_url(url);
        const bool is_first = servers.endpoints.empty();
        if (!is_first && (one.topology == Topology::Single || one.topology != servers.topology ||
                          one.service != servers.service)) {
            refuse("is one of several, which only servers of one cluster may have, or Sentinels");
        }
        if (is_first) {
            servers = one;
        } else {
            servers.endpoints.insert(servers.endpoints.end(), one.endpoints.begin(),
                                     one.endpoints.end());
        }
    }
    return servers;
}

}  // namespace penstock::detail

// Address of a server and the credentials for it, parsed from a URL.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::detail {

// A value.
struct Endpoint {
    std::string path;  // of a Unix socket; empty: host and port
    std::string host;
    std::uint16_t port = 6379;
    std::string user;  // empty: the server's default user
    std::string password;
    unsigned db = 0;

    // Address for error messages; never the password.
    [[nodiscard]] std::string title() const;
    // Compares the addresses only, not credentials or database.
    [[nodiscard]] bool is_at(const Endpoint& other) const noexcept;
};

enum class Topology : std::uint8_t { Single, Cluster, Sentinel };

// Servers that the URLs of one second tier name. A value.
struct ServerList {
    Topology topology = Topology::Single;
    std::vector<Endpoint> endpoints;  // at least one; servers, or Sentinels
    std::string service;              // of Sentinels: the name of the master
    Endpoint master;                  // credentials and database of the master; no address
};

// Throws InvalidArgument; its message never contains the password.
ServerList parse_servers(std::span<const std::string> urls);

}  // namespace penstock::detail

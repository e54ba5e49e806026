// Where a server is and who we are there, as a URL says it.
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

    // For sentences: never the password.
    [[nodiscard]] std::string title() const;
    // The same place, whoever we are there.
    [[nodiscard]] bool is_at(const Endpoint& other) const noexcept;
};

enum class Topology : std::uint8_t { Single, Cluster, Sentinel };

// What the URLs of one second tier name. A value.
struct ServerList {
    Topology topology = Topology::Single;
    std::vector<Endpoint> endpoints;  // at least one; servers, or Sentinels
    std::string service;              // that the Sentinels watch over
    Endpoint master;                  // its master, but for the place
};

// Throws InvalidArgument, with a sentence that does not repeat the password.
ServerList parse_servers(std::span<const std::string> urls);

}  // namespace penstock::detail

// Where a server is and who we are there, as a URL says it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

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

// Throws InvalidArgument, with a sentence that does not repeat the password.
Endpoint parse_endpoint(std::string_view url);

}  // namespace penstock::detail

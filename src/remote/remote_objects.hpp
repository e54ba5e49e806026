// Objects in the second tier: written, read and removed whole, in the requests that this takes.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "remote/redis_servers.hpp"
#include "remote/value_format.hpp"

namespace penstock::detail {

struct RemoteOptions {
    std::string prefix;
    std::uint64_t part_bytes = 0;
    std::optional<std::chrono::milliseconds> ttl;
};

// Any thread. What `wait` ends is Cancelled.
class RemoteObjects {
public:
    // `servers` must outlive it.
    RemoteObjects(RedisServers& servers, RemoteOptions options);

    // The parts, then the head: nobody finds an object before all of it is there.
    RedisOutcome write(std::string_view key, std::span<const std::byte> data,
                       std::span<const std::byte> meta, Format format, const Wait& wait);

    struct Head {
        RedisOutcome outcome;  // a Nil reply: there is none. `read` is of its text.
        ReadHead read;
    };
    Head read_head(std::string_view key, const Wait& wait);
    // All the data of a sound head into what `make_room` gives, which has its size. It is asked
    // when the server has announced the first part, and says it has the others. A Nil reply or
    // Misfit: not as it was written.
    RedisOutcome read_data(std::string_view key, const ReadHead& read, const MakeRoom& make_room,
                           const Wait& wait);

    // UNLINK or TOUCH: the head, then the parts, of which some are left where `wait` ends first.
    // Integer, even then: whether there was a head.
    RedisOutcome act_on(std::string_view command, std::string_view key, const Wait& wait);
    RedisOutcome has_head(std::string_view key, const Wait& wait);
    // The keys of all heads; some may come twice. Where it is not answered they are not all.
    RedisOutcome list_keys(std::vector<std::string>& keys, const Wait& wait);

private:
    RedisOutcome set(const std::string& name, std::span<const std::byte> value, const Wait& wait);
    RedisOutcome read_parts(std::string_view key, const ValueHead& head, const MakeRoom& make_room,
                            const Wait& wait);
    RedisOutcome ask_of_parts(std::string_view command, std::string_view key, const ValueHead& head,
                              std::uint64_t first, const Wait& wait);

    RedisServers& servers_;
    const RemoteOptions options_;
};

}  // namespace penstock::detail

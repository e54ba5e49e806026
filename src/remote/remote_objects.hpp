// Objects in the second tier, as heads and parts (value_format.hpp): written, read, removed.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
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

// Any thread. A request that `wait` ends is Cancelled.
class RemoteObjects {
public:
    // `servers` must outlive this object.
    RemoteObjects(RedisServers& servers, RemoteOptions options);

    // Writes the parts before the head, so that readers never find an incomplete object.
    RedisOutcome write(std::string_view key, std::span<const std::byte> data,
                       std::span<const std::byte> meta, Format format, const Wait& wait);

    // Memory for the data of a sound head, of its size. nullopt: refused. `meta` is valid during
    // the call. Called again by another attempt, which may find another head.
    using RoomFor = std::function<std::optional<std::span<std::byte>>(
        const ValueHead& head, std::span<const std::byte> meta)>;
    struct Found {
        RedisOutcome outcome;          // a Nil reply: no such object
        std::optional<HeadKind> kind;  // by the first bytes, even if no more came; none: no bytes
        ValueHead head;                // if Sound
        std::string meta;
        bool is_intact = true;  // inline data has the checksum of its head or seal
    };
    // Reads a head and, if it has the data, puts that into the memory of `room_for`, which is
    // called only for data of the right length. Data of up to 64 KiB is compared with its checksum
    // before; more is received there, and must be discarded unless the head is Sound and intact.
    Found find(std::string_view key, const RoomFor& room_for, const Wait& wait);

    struct Parts {
        RedisOutcome outcome;  // Nil: a part is missing. Misfit: a part has another length.
        bool is_intact = false;
    };
    // Reads the parts of a sound head into the memory of `make_room`, which has its size and is
    // called once the server has announced the first part and says that it has the others.
    Parts read_parts(std::string_view key, const ValueHead& head, const MakeRoom& make_room,
                     const Wait& wait);

    // Head and metadata alone, for calls that need no data.
    struct Head {
        RedisOutcome outcome;  // a Nil reply: no such object. `read` refers to its text.
        ReadHead read;
    };
    Head read_head(std::string_view key, const Wait& wait);

    // UNLINK or TOUCH of the head, then of the parts, of which some are left if `wait` ends. The
    // reply, even then, is 1 if there was a head and 0 otherwise.
    RedisOutcome act_on(std::string_view command, std::string_view key, const Wait& wait);
    RedisOutcome has_head(std::string_view key, const Wait& wait);
    // Lists the keys of all heads; some may come twice. After a fault the list is incomplete.
    RedisOutcome list_keys(std::vector<std::string>& keys, const Wait& wait);

private:
    RedisOutcome set(const std::string& name, RedisRequest& request, const Wait& wait);
    RedisOutcome ask_of_parts(std::string_view command, std::string_view key, const ValueHead& head,
                              std::uint64_t first, const Wait& wait);

    RedisServers& servers_;
    const RemoteOptions options_;
};

}  // namespace penstock::detail

// Heads and parts.
#include "remote/remote_objects.hpp"

#include <cstring>
#include <utility>

namespace penstock::detail {

namespace {

using Kind = RedisReply::Kind;

}  // namespace

RemoteObjects::RemoteObjects(RedisServers& servers, RemoteOptions options)
    : servers_(servers), options_(std::move(options)) {}

RedisOutcome RemoteObjects::set(const std::string& name, std::span<const std::byte> value,
                                const Wait& wait) {
    const std::string ttl = options_.ttl ? std::to_string(options_.ttl->count()) : std::string();
    RedisRequest request;
    request.words = options_.ttl ? std::vector<std::string_view>{"PSETEX", name, ttl}
                                 : std::vector<std::string_view>{"SET", name};
    request.value = value;
    request.is_storing = true;
    request.caller = &wait;
    return servers_.run(name, request, {Kind::Line});
}

RedisOutcome RemoteObjects::write(std::string_view key, std::span<const std::byte> data,
                                  std::span<const std::byte> meta, Format format,
                                  const Wait& wait) {
    ValueHead head;
    head.format = format;
    head.nbytes = data.size();
    head.part_bytes = data.size() > kInlineMost ? options_.part_bytes : 0;
    head.checksum = checksum_of(data);
    for (std::uint64_t number = 0; number < head.parts(); ++number) {
        RedisOutcome outcome =
            set(part_name(options_.prefix, key, head, number), head.part(data, number), wait);
        if (!outcome.is_answered()) return outcome;
    }
    std::string value = encode_head(head, meta, key);
    if (head.is_inline()) value.append(reinterpret_cast<const char*>(data.data()), data.size());
    return set(head_name(options_.prefix, key), std::as_bytes(std::span(value)), wait);
}

RemoteObjects::Head RemoteObjects::read_head(std::string_view key, const Wait& wait) {
    const std::string name = head_name(options_.prefix, key);
    RedisRequest request{{"GET", name}};
    request.most_bytes = kHeadMost;
    request.caller = &wait;
    Head head;
    head.outcome = servers_.run(name, request, {Kind::Bytes, Kind::Nil});
    if (head.outcome.is_answered() && head.outcome.reply.kind == Kind::Bytes) {
        head.read = decode_head(std::as_bytes(std::span(head.outcome.reply.text)), key);
    }
    return head;
}

RedisOutcome RemoteObjects::read_data(std::string_view key, const ReadHead& read,
                                      std::span<std::byte> data, const Wait& wait) {
    RedisOutcome outcome;
    outcome.reply.kind = Kind::Bytes;
    if (read.head.is_inline()) {
        if (!data.empty()) std::memcpy(data.data(), read.data.data(), data.size());
        return outcome;
    }
    for (std::uint64_t number = 0; number < read.head.parts(); ++number) {
        const std::string name = part_name(options_.prefix, key, read.head, number);
        RedisRequest request{{"GET", name}};
        request.into = read.head.part(data, number);
        request.caller = &wait;
        outcome = servers_.run(name, request, {Kind::Bytes, Kind::Nil});
        if (!outcome.is_answered() || outcome.reply.kind == Kind::Nil) break;
    }
    return outcome;
}

RedisOutcome RemoteObjects::unlink(const std::string& name, const Wait& wait) {
    RedisRequest request{{"UNLINK", name}};
    request.caller = &wait;
    return servers_.run(name, request, {Kind::Integer});
}

RedisOutcome RemoteObjects::remove(std::string_view key, const Wait& wait) {
    // Without its head nobody knows what parts it has.
    const Head head = read_head(key, wait);
    if (head.outcome.fault == RedisFault::Cancelled) return head.outcome;
    RedisOutcome removed = unlink(head_name(options_.prefix, key), wait);
    if (head.read.verdict != HeadVerdict::Sound) return removed;
    for (std::uint64_t number = 0; removed.is_answered() && number < head.read.head.parts();
         ++number) {
        RedisOutcome outcome =
            unlink(part_name(options_.prefix, key, head.read.head, number), wait);
        if (!outcome.is_answered()) return outcome;
    }
    return removed;
}

RedisOutcome RemoteObjects::has_head(std::string_view key, const Wait& wait) {
    const std::string name = head_name(options_.prefix, key);
    RedisRequest request{{"EXISTS", name}};
    request.caller = &wait;
    return servers_.run(name, request, {Kind::Integer});
}

}  // namespace penstock::detail

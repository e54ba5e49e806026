// Requests for heads and parts.
#include "remote/remote_objects.hpp"

#include <algorithm>
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
    RedisOutcome outcome = servers_.run(name, request, {Kind::Line});
    if (outcome.is_answered() && outcome.reply.text != "OK") {
        outcome.fault = RedisFault::Garbled;
        outcome.sentence = "a server answered neither OK nor an error to what it was to keep";
    }
    return outcome;
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
                                      const MakeRoom& make_room, const Wait& wait) {
    RedisOutcome outcome;
    outcome.reply.kind = Kind::Bytes;
    if (read.head.is_inline()) {
        const std::optional<std::span<std::byte>> room = make_room();
        if (!room) return {RedisFault::Cancelled, {}, "a value is not wanted"};
        if (!room->empty()) std::memcpy(room->data(), read.data.data(), room->size());
        return outcome;
    }
    if (read.head.parts() > 1) {
        // Memory for the whole object is taken with the first part: check the others before.
        outcome = ask_of_parts("EXISTS", key, read.head, 1, wait);
        if (!outcome.is_answered()) return outcome;
        const auto there = static_cast<std::uint64_t>(outcome.reply.integer);
        if (there != read.head.parts() - 1) return {};  // Nil
    }
    return read_parts(key, read.head, make_room, wait);
}

RedisOutcome RemoteObjects::read_parts(std::string_view key, const ValueHead& head,
                                       const MakeRoom& make_room, const Wait& wait) {
    std::span<std::byte> data;
    const MakeRoom make_first = [&]() -> std::optional<std::span<std::byte>> {
        const std::optional<std::span<std::byte>> room = make_room();
        if (!room) return std::nullopt;
        data = *room;
        return head.part(data, 0);
    };
    RedisOutcome outcome;
    for (std::uint64_t number = 0; number < head.parts(); ++number) {
        const std::string name = part_name(options_.prefix, key, head, number);
        RedisRequest request{{"GET", name}};
        request.caller = &wait;
        if (number == 0) {
            request.make_room = &make_first;
            request.room_bytes = std::min(head.part_bytes, head.nbytes);
        } else {
            request.into = head.part(data, number);
        }
        outcome = servers_.run(name, request, {Kind::Bytes, Kind::Nil});
        if (!outcome.is_answered() || outcome.reply.kind == Kind::Nil) break;
    }
    return outcome;
}

// EXISTS, UNLINK or TOUCH of the parts from `first` on; the reply is the number of those that
// exist. Batched, because a head may name a million parts; not in a cluster, where slots may
// differ.
RedisOutcome RemoteObjects::ask_of_parts(std::string_view command, std::string_view key,
                                         const ValueHead& head, std::uint64_t first,
                                         const Wait& wait) {
    constexpr std::uint64_t kNamesMost = 256;
    const std::uint64_t names_most = servers_.is_cluster() ? 1 : kNamesMost;
    long long count = 0;
    RedisOutcome outcome;
    for (std::uint64_t number = first; number < head.parts();) {
        const std::uint64_t end = std::min(head.parts(), number + names_most);
        std::vector<std::string> names;
        for (; number < end; ++number) {
            names.push_back(part_name(options_.prefix, key, head, number));
        }
        RedisRequest request{{command}};
        request.words.insert(request.words.end(), names.begin(), names.end());
        request.caller = &wait;
        outcome = servers_.run(names.front(), request, {Kind::Integer});
        if (!outcome.is_answered()) return outcome;
        const auto most = static_cast<long long>(names.size());
        count += std::clamp(outcome.reply.integer, 0LL, most);
    }
    outcome.reply.integer = count;
    return outcome;
}

RedisOutcome RemoteObjects::act_on(std::string_view command, std::string_view key,
                                   const Wait& wait) {
    // The head first: it names the parts.
    const Head head = read_head(key, wait);
    if (head.outcome.fault == RedisFault::Cancelled) return head.outcome;
    const std::string name = head_name(options_.prefix, key);
    RedisRequest request{{command, name}};
    request.caller = &wait;
    RedisOutcome done = servers_.run(name, request, {Kind::Integer});
    if (head.read.kind != HeadKind::Sound || !done.is_answered()) return done;
    RedisOutcome outcome = ask_of_parts(command, key, head.read.head, 0, wait);
    outcome.reply = std::move(done.reply);
    return outcome;
}

RedisOutcome RemoteObjects::has_head(std::string_view key, const Wait& wait) {
    const std::string name = head_name(options_.prefix, key);
    RedisRequest request{{"EXISTS", name}};
    request.caller = &wait;
    return servers_.run(name, request, {Kind::Integer});
}

RedisOutcome RemoteObjects::list_keys(std::vector<std::string>& keys, const Wait& wait) {
    const std::string start = head_name(options_.prefix, "");
    std::string pattern;
    for (const char letter : start) {
        if (std::string_view("*?[]\\").find(letter) != std::string_view::npos) pattern += '\\';
        pattern += letter;
    }
    RedisOutcome outcome = servers_.list_names(pattern + "*", wait, keys);
    std::erase_if(keys, [&](const std::string& key) { return !key.starts_with(start); });
    for (std::string& key : keys) key.erase(0, start.size());
    return outcome;
}

}  // namespace penstock::detail

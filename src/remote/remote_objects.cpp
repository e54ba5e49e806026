// Requests for heads and parts.
#include "remote/remote_objects.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace penstock::detail {

namespace {

using Kind = RedisReply::Kind;

// Receives a head. A value that fits the connection's buffer is complete there, and checked, before
// memory is taken for it; of a longer one the first bytes are looked at, and the data goes straight
// to its memory.
class HeadSink final : public ValueSink {
public:
    HeadSink(std::string_view key, const RemoteObjects::RoomFor& room_for)
        : key_(key), room_for_(room_for) {}

    [[nodiscard]] std::size_t first_read() const noexcept override { return kFirstRead; }
    [[nodiscard]] std::size_t seen_of(std::uint64_t bytes) const noexcept override {
        if (bytes > kHeadMost) return 0;
        return bytes <= kSeenMost ? static_cast<std::size_t>(bytes) : kFirstRead;
    }
    ValueRoom begin(std::uint64_t bytes, std::span<const std::byte> seen) override {
        found_ = {};
        spill_.clear();
        is_streamed_ = false;
        if (bytes > kHeadMost) return {RedisFault::Misfit};
        const ReadHead read = decode_head(seen, key_, bytes);
        if (read.kind == HeadKind::Cut) return spill(bytes);
        note(read);
        if (seen.size() == bytes) {
            take(read);
            return {RedisFault::None, bytes};
        }
        return read.kind == HeadKind::Sound ? stream(read) : ValueRoom{RedisFault::Misfit};
    }

    // To be called once all of the value has arrived.
    void finish() {
        if (is_streamed_) {
            const Checksum expected =
                found_.head.is_sealed() ? read_seal(seal_) : found_.head.checksum;
            found_.is_intact = sum_.value() == expected;
        } else if (!spill_.empty()) {
            const ReadHead read = decode_head(spill_, key_);
            note(read);
            take(read);
        }
    }

    RunningChecksum& sum() noexcept { return sum_; }
    RemoteObjects::Found& found() noexcept { return found_; }

private:
    static constexpr std::size_t kFirstRead = std::size_t{8} << 10U;

    void note(const ReadHead& read) {
        found_.kind = read.kind;
        found_.head = read.head;
        found_.meta.assign(reinterpret_cast<const char*>(read.meta.data()), read.meta.size());
    }

    // Checks a complete value, and copies its data.
    void take(const ReadHead& read) {
        if (read.kind != HeadKind::Sound || !read.head.is_inline()) return;
        found_.is_intact = checksum_of(read.data) == read.head.checksum;
        if (!found_.is_intact) return;
        const std::optional<std::span<std::byte>> room = room_for_(read.head, read.meta);
        if (room && !room->empty()) std::memcpy(room->data(), read.data.data(), room->size());
    }

    ValueRoom stream(const ReadHead& read) {
        const std::optional<std::span<std::byte>> room = room_for_(read.head, read.meta);
        if (!room) return {RedisFault::Cancelled};
        is_streamed_ = true;
        const std::span<std::byte> seal(seal_);
        return {RedisFault::None, kValueHeader + read.meta.size(), *room,
                seal.first(read.head.is_sealed() ? seal.size() : 0)};
    }

    // Private memory, for a value whose metadata is larger than what is looked at.
    ValueRoom spill(std::uint64_t bytes) {
        spill_.resize(static_cast<std::size_t>(bytes));
        return {RedisFault::None, 0, spill_};
    }

    const std::string_view key_;
    const RemoteObjects::RoomFor& room_for_;
    RunningChecksum sum_;
    RemoteObjects::Found found_;
    std::vector<std::byte> spill_;
    bool is_streamed_ = false;
    Seal seal_{};
};

}  // namespace

RemoteObjects::RemoteObjects(RedisServers& servers, RemoteOptions options)
    : servers_(servers), options_(std::move(options)) {}

// `request`: with the value; its other fields are filled in.
RedisOutcome RemoteObjects::set(const std::string& name, RedisRequest& request, const Wait& wait) {
    const std::string ttl = options_.ttl ? std::to_string(options_.ttl->count()) : std::string();
    request.words = options_.ttl ? std::vector<std::string_view>{"PSETEX", name, ttl}
                                 : std::vector<std::string_view>{"SET", name};
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
    const std::uint64_t sealed_bytes = kValueHeader + meta.size() + data.size() + kSealBytes;
    const bool is_small = data.size() <= kInlineMost ||
                          (data.size() <= kSealedMost && sealed_bytes <= options_.part_bytes);
    ValueHead head;
    head.format = format;
    head.nbytes = data.size();
    head.part_bytes = is_small ? 0 : options_.part_bytes;
    if (!head.is_sealed()) head.checksum = checksum_of(data);
    for (std::uint64_t number = 0; number < head.parts(); ++number) {
        RedisRequest part;
        part.value = head.part(data, number);
        RedisOutcome outcome = set(part_name(options_.prefix, key, head, number), part, wait);
        if (!outcome.is_answered()) return outcome;
    }
    const std::string lead = encode_head(head, meta, key);
    RedisRequest request;
    request.lead = std::as_bytes(std::span(lead));
    if (head.is_inline()) request.value = data;
    request.is_sealed = head.is_sealed();
    return set(head_name(options_.prefix, key), request, wait);
}

RemoteObjects::Found RemoteObjects::find(std::string_view key, const RoomFor& room_for,
                                         const Wait& wait) {
    const std::string name = head_name(options_.prefix, key);
    HeadSink sink(key, room_for);
    RedisRequest request{{"GET", name}};
    request.sink = &sink;
    request.sum = &sink.sum();
    request.caller = &wait;
    RedisOutcome outcome = servers_.run(name, request, {Kind::Bytes, Kind::Nil});
    const bool is_nil = outcome.is_answered() && outcome.reply.kind == Kind::Nil;
    if (outcome.is_answered() && !is_nil) sink.finish();
    Found found = is_nil ? Found{} : std::move(sink.found());  // an earlier attempt's otherwise
    found.outcome = std::move(outcome);
    return found;
}

RemoteObjects::Head RemoteObjects::read_head(std::string_view key, const Wait& wait) {
    constexpr std::uint64_t kUsual = std::uint64_t{64} << 10U;  // with little metadata
    const std::string name = head_name(options_.prefix, key);
    Head head;
    for (const std::uint64_t most : {kUsual, kValueHeader + kMetaMost}) {
        const std::string last = std::to_string(most - 1);
        RedisRequest request{{"GETRANGE", name, "0", last}};
        request.most_bytes = most;
        request.caller = &wait;
        head = {servers_.run(name, request, {Kind::Bytes}), {}};
        if (!head.outcome.is_answered()) return head;
        const std::string& start = head.outcome.reply.text;
        const bool is_all = start.size() < most;
        head.read = decode_head(std::as_bytes(std::span(start)), key,
                                is_all ? std::optional<std::uint64_t>(start.size()) : std::nullopt);
        if (head.read.kind != HeadKind::Cut) break;
    }
    if (head.outcome.reply.text.empty()) head.outcome.reply.kind = Kind::Nil;
    return head;
}

RemoteObjects::Parts RemoteObjects::read_parts(std::string_view key, const ValueHead& head,
                                               const MakeRoom& make_room, const Wait& wait) {
    Parts parts;
    if (head.parts() > 1) {
        // Memory for the whole object is taken with the first part: check the others before.
        parts.outcome = ask_of_parts("EXISTS", key, head, 1, wait);
        if (!parts.outcome.is_answered()) return parts;
        const auto there = static_cast<std::uint64_t>(parts.outcome.reply.integer);
        if (there != head.parts() - 1) return {};  // Nil
    }
    RunningChecksum sum;
    std::span<std::byte> data;
    for (std::uint64_t number = 0; number < head.parts(); ++number) {
        const MakeRoom room_of_part = [&]() -> std::optional<std::span<std::byte>> {
            if (number == 0) {
                const std::optional<std::span<std::byte>> room = make_room();
                if (!room) return std::nullopt;
                data = *room;
            }
            return head.part(data, number);
        };
        ExactSink sink(std::min(head.part_bytes, head.nbytes - number * head.part_bytes),
                       room_of_part);
        const std::string name = part_name(options_.prefix, key, head, number);
        RedisRequest request{{"GET", name}};
        request.sink = &sink;
        request.sum = &sum;
        request.caller = &wait;
        parts.outcome = servers_.run(name, request, {Kind::Bytes, Kind::Nil});
        if (!parts.outcome.is_answered() || parts.outcome.reply.kind == Kind::Nil) return parts;
        sum.mark();
    }
    parts.is_intact = sum.value() == head.checksum;
    return parts;
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

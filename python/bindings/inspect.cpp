// What there is to see of segments from outside, for penstock.inspect and the command.
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cctype>
#include <string>

#include "arguments.hpp"
#include "errors.hpp"
#include "segment/life/name.hpp"
#include "segment/life/segment.hpp"
#include "state.hpp"
#include "text.hpp"
#include "wait.hpp"

namespace penstock::py {
namespace {

std::string lower(std::string_view text) {
    std::string copy(text);
    std::transform(copy.begin(), copy.end(), copy.begin(),
                   [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
    return copy;
}

const char* to_text(BroadcastReaderState::Life life) {
    switch (life) {
        case BroadcastReaderState::Life::Expected:
            return "expected";
        case BroadcastReaderState::Life::Active:
            return "active";
        case BroadcastReaderState::Life::Vacant:
            break;
    }
    return "vacant";
}

// Runs a look at files and processes, which may take a while, without the GIL.
template <typename Look>
auto without_gil(Look&& look) {
    const WithoutGil released;
    return look();
}

}  // namespace

nb::dict to_dict(const BroadcastStats& stats) {
    nb::dict dict;
    dict["messages"] = stats.messages;
    dict["bytes"] = stats.bytes;
    dict["large_messages"] = stats.large_messages;
    dict["waits"] = stats.waits;
    dict["sleeps"] = stats.sleeps;
    dict["reader_deaths"] = stats.reader_deaths;
    dict["capacity"] = stats.capacity;
    dict["used_bytes"] = stats.used_bytes;
    dict["reserved_bytes"] = stats.reserved_bytes;
    dict["held_bytes"] = stats.held_bytes;
    return dict;
}

nb::dict to_dict(const BroadcastReaderState& reader) {
    nb::dict dict;
    dict["rank"] = reader.rank;
    dict["life"] = to_text(reader.life);
    dict["alive"] = reader.alive;
    dict["stopped"] = reader.stopped;
    dict["pid"] = reader.pid;
    dict["process"] = to_text(reader.process);
    dict["messages"] = reader.messages;
    dict["lag_messages"] = reader.lag_messages;
    dict["lag_bytes"] = reader.lag_bytes;
    dict["blocking_for"] = reader.blocking_for;
    dict["description"] = to_text(reader.describe());
    return dict;
}

nb::dict to_dict(const Participant& participant) {
    nb::dict dict;
    dict["slot"] = participant.slot;
    dict["role"] = to_text(participant.role);
    dict["alive"] = participant.alive;
    dict["stopped"] = participant.stopped;
    dict["pid"] = participant.pid;
    dict["process"] = to_text(participant.process);
    dict["attached_at"] = participant.attached_at;
    return dict;
}

nb::dict to_dict(const KeptData& kept) {
    nb::dict dict;
    dict["messages"] = kept.messages;
    dict["objects"] = kept.objects;
    dict["bytes"] = kept.bytes;
    dict["persistent"] = kept.persistent;
    dict["description"] = to_text(kept.describe());
    return dict;
}

nb::dict to_dict(const SegmentSummary& segment) {
    nb::dict dict;
    dict["name"] = to_text(segment.name, Text::FileName);
    dict["kind"] = segment.problem.empty() ? lower(to_string(segment.kind)) : "unknown";
    dict["reserved_bytes"] = segment.reserved_bytes;
    dict["range_bytes"] = segment.range_bytes;
    dict["owner"] =
        segment.problem.empty() ? nb::object(nb::int_(segment.owner)) : nb::object(nb::none());
    dict["participants"] = to_list(segment.participants);
    dict["kept"] = to_dict(segment.kept);
    dict["problem"] = to_text(segment.problem);
    dict["problem_code"] =
        segment.problem.empty() ? "" : std::string(to_string(segment.problem_code));
    return dict;
}

nb::dict to_dict(const BroadcastInfo& info) {
    nb::dict dict;
    dict["segment"] = to_dict(info.segment);
    dict["stats"] = to_dict(info.stats);
    dict["readers"] = to_list(info.readers);
    dict["closed"] = info.closed;
    dict["writer_blocked_for"] = info.writer_blocked_for;
    return dict;
}

nb::dict to_dict(const QueueStats& stats) {
    nb::dict dict;
    dict["accepted"] = stats.accepted;
    dict["accepted_bytes"] = stats.accepted_bytes;
    dict["taken"] = stats.taken;
    dict["acknowledged"] = stats.acknowledged;
    dict["nacked"] = stats.nacked;
    dict["dropped"] = stats.dropped;
    dict["queued"] = stats.queued;
    dict["in_flight"] = stats.in_flight;
    dict["dead_letters"] = stats.dead_letters;
    dict["queued_bytes"] = stats.queued_bytes;
    dict["oldest"] = stats.oldest;
    dict["slots"] = stats.slots;
    dict["capacity"] = stats.capacity;
    dict["held_bytes"] = stats.held_bytes;
    dict["reserved_bytes"] = stats.reserved_bytes;
    dict["requests"] = stats.requests;
    dict["requested"] = stats.requested;
    dict["deaths"] = stats.deaths;
    dict["waits"] = stats.waits;
    dict["sleeps"] = stats.sleeps;
    dict["closed"] = stats.closed;
    return dict;
}

nb::dict to_dict(const StoreStats& stats) {
    nb::dict dict;
    dict["capacity"] = stats.capacity;
    dict["used_bytes"] = stats.used_bytes;
    dict["free_bytes"] = stats.free_bytes;
    dict["object_bytes"] = stats.object_bytes;
    dict["staged_bytes"] = stats.staged_bytes;
    dict["doomed_bytes"] = stats.doomed_bytes;
    dict["padding_bytes"] = stats.padding_bytes;
    dict["other_bytes"] = stats.other_bytes;
    dict["largest_free"] = stats.largest_free;
    dict["reserved_bytes"] = stats.reserved_bytes;
    dict["objects"] = stats.objects;
    dict["staged"] = stats.staged;
    dict["doomed"] = stats.doomed;
    dict["in_use"] = stats.in_use;
    dict["retained"] = stats.retained;
    dict["most_objects"] = stats.most_objects;
    dict["hits"] = stats.hits;
    dict["misses"] = stats.misses;
    dict["committed"] = stats.committed;
    dict["committed_bytes"] = stats.committed_bytes;
    dict["evicted"] = stats.evicted;
    dict["evicted_bytes"] = stats.evicted_bytes;
    dict["deleted"] = stats.deleted;
    dict["aborted"] = stats.aborted;
    dict["expired"] = stats.expired;
    dict["refused"] = stats.refused;
    dict["deaths"] = stats.deaths;
    dict["eviction"] = std::string(to_string(stats.eviction));
    return dict;
}

nb::dict to_dict(const TierStats& stats) {
    nb::dict dict;
    dict["hits"] = stats.hits;
    dict["misses"] = stats.misses;
    dict["skipped"] = stats.skipped;
    dict["shared"] = stats.shared;
    dict["errors"] = stats.errors;
    dict["timeouts"] = stats.timeouts;
    dict["corrupt"] = stats.corrupt;
    dict["incompatible"] = stats.incompatible;
    dict["no_room"] = stats.no_room;
    dict["fetched_bytes"] = stats.fetched_bytes;
    dict["written"] = stats.written;
    dict["written_bytes"] = stats.written_bytes;
    dict["dropped"] = stats.dropped;
    dict["dropped_bytes"] = stats.dropped_bytes;
    dict["inflight"] = stats.inflight;
    dict["inflight_bytes"] = stats.inflight_bytes;
    dict["servers"] = stats.servers;
    dict["servers_away"] = stats.servers_away;
    dict["circuit"] = std::string(to_string(stats.circuit));
    dict["last_error"] = to_text(stats.last_error);
    return dict;
}

nb::dict to_dict(const Unwritten& unwritten) {
    nb::dict dict;
    dict["waiting"] = unwritten.waiting;
    dict["waiting_bytes"] = unwritten.waiting_bytes;
    dict["dropped"] = unwritten.dropped;
    dict["dropped_bytes"] = unwritten.dropped_bytes;
    return dict;
}

nb::dict to_dict(const QueueInfo& info) {
    nb::dict dict;
    dict["segment"] = to_dict(info.segment);
    dict["stats"] = to_dict(info.stats);
    nb::list requests;
    for (const QueueRequest& request : info.requests) {
        nb::dict one;
        one["slot"] = request.slot;
        one["requested"] = request.requested;
        one["passed"] = request.is_passed;
        requests.append(one);
    }
    dict["requests"] = requests;
    nb::list dead_letters;
    for (const std::uint64_t sequence : info.dead_letters) {
        dead_letters.append(sequence);
    }
    dict["dead_letters"] = dead_letters;
    dict["application"] = info.application;
    dict["ends_with"] = info.ends_with == EndsWith::Creator ? "creator" : "last_producer";
    return dict;
}

nb::dict to_dict(const EnvironmentStats& stats) {
    nb::dict dict;
    dict["name"] = to_text(stats.name);
    dict["writers"] = stats.writers;
    dict["weight"] = stats.weight;
    dict["min_share"] = stats.min_share;
    dict["group_size"] = stats.group_size;
    dict["running_groups"] = stats.running_groups;
    dict["running_sequences"] = stats.running_sequences;
    dict["waiting_groups"] = stats.waiting_groups;
    dict["waiting_sequences"] = stats.waiting_sequences;
    dict["largest_waiting"] = stats.largest_waiting;
    return dict;
}

nb::dict to_dict(const TrajectoryStats& stats) {
    nb::dict dict;
    dict["queue"] = to_dict(stats.queue);
    dict["version"] = stats.version;
    dict["batch_sequences"] = stats.batch_sequences;
    dict["max_staleness"] =
        stats.max_staleness == kUnlimited ? nb::none() : nb::object(nb::int_(stats.max_staleness));
    dict["batches"] = stats.batches;
    dict["groups"] = stats.groups;
    dict["sequences"] = stats.sequences;
    dict["dropped_stale"] = stats.dropped_stale;
    dict["max_tokens"] =
        stats.max_tokens == 0 ? nb::none() : nb::object(nb::int_(stats.max_tokens));
    dict["dead_lettered"] = stats.dead_lettered;
    dict["environments"] = to_list(stats.environments);
    return dict;
}

namespace {

// For the async twins of attach(): waits until it would find the segment, and joins nothing. So a
// task that is cancelled has not used up the first place of a rank.
void wait_until_there(const std::string& kind, nb::handle given_name, const std::string& instance,
                      nb::handle timeout, nb::handle owner) {
    const std::string name = parse_name(given_name);
    const Trust trust = parse_trust(owner, Codec::Typed);
    for (const Kind known : {Kind::Broadcast, Kind::Queue, Kind::Store}) {
        if (kind != to_string(known)) {
            continue;
        }
        attach_waiting(parse_timeout(timeout), [&](const Wait& wait) {
            return detail::attach_when_there(
                name, {known, os::Mapping::Access::Read, instance, trust}, wait);
        });
        return;
    }
    raise_error(ErrorCode::InvalidArgument, "there is no kind '" + kind + "'");
}

}  // namespace

void bind_inspect(nb::module_& module) {
    module.def("wait_until_there", &wait_until_there, nb::arg("kind"), nb::arg("name").none(),
               nb::arg("instance"), nb::arg("timeout").none(),
               nb::arg("owner").none() = nb::none());
    module.def("list_segments", [] { return to_list(without_gil(&list_segments)); });
    module.def(
        "check_owner", [](nb::handle owner) { parse_owner(owner); }, nb::arg("owner").none(),
        "Raises InvalidArgument for what is no user's name or number.");
    module.def(
        "check_name", [](nb::handle name) { detail::locate(parse_name(name)); },
        nb::arg("name").none(), "Raises InvalidName for what no segment can be called.");
    module.def(
        "inspect_segment",
        [](nb::handle given) {
            const std::string name = parse_name(given);
            return to_dict(without_gil([&] { return inspect_segment(name); }));
        },
        nb::arg("name").none());
    module.def(
        "inspect_broadcast",
        [](nb::handle given) {
            const std::string name = parse_name(given);
            return to_dict(without_gil([&] { return inspect_broadcast(name); }));
        },
        nb::arg("name").none());
    module.def(
        "inspect_queue",
        [](nb::handle given) {
            const std::string name = parse_name(given);
            return to_dict(without_gil([&] { return inspect_queue(name); }));
        },
        nb::arg("name").none());
    module.def(
        "remove_if_abandoned",
        [](nb::handle given, nb::handle data) {
            const std::string name = parse_name(given);
            const OnData on_data = parse_flag(data, "data") ? OnData::Remove : OnData::Keep;
            return without_gil([&] { return remove_if_abandoned(name, on_data); });
        },
        nb::arg("name").none(), nb::arg("data").none());
    module.def(
        "parse_size", [](nb::handle text) { return parse_size(parse_text(text, "a size")); },
        nb::arg("text").none(),
        "Bytes of a size as people write it: \"64MiB\", \"1.5GiB\", \"4096\", "
        "\"10MB\".\n\nRaises InvalidArgument.");
}

}  // namespace penstock::py

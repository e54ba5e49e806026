// States of segments, seen from outside, as dicts: for penstock.inspect and the command.
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cctype>
#include <optional>
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

// Runs an inspection of files and processes, which may take a while, without the GIL.
template <typename Look>
auto without_gil(Look&& look) {
    const WithoutGil released;
    return look();
}

template <typename Value, typename... Rest>
void put_into(nb::dict& dict, const char* name, const Value& value, const Rest&... rest) {
    dict[name] = to_python(value);
    if constexpr (sizeof...(rest) > 0) {
        put_into(dict, rest...);
    }
}

// A dict of names and values in turn.
template <typename... Pairs>
nb::dict dict_of(const Pairs&... pairs) {
    nb::dict dict;
    put_into(dict, pairs...);
    return dict;
}

}  // namespace

nb::dict to_dict(const BroadcastReaderState& reader) {
    return dict_of("rank", reader.rank, "life", to_text(reader.life), "alive", reader.alive,
                   "stopped", reader.stopped, "pid", reader.pid, "process", reader.process,
                   "messages", reader.messages, "lag_messages", reader.lag_messages, "lag_bytes",
                   reader.lag_bytes, "blocking_for", reader.blocking_for, "exit_code",
                   reader.exit_code, "signal", reader.signal, "how_it_died", reader.how_it_died,
                   "description", reader.describe());
}

nb::dict to_dict(const Participant& participant) {
    return dict_of("slot", participant.slot, "role", participant.role, "alive", participant.alive,
                   "stopped", participant.stopped, "pid", participant.pid, "process",
                   participant.process, "attached_at", participant.attached_at, "exit_code",
                   participant.exit_code, "signal", participant.signal, "how_it_died",
                   participant.how_it_died);
}

nb::dict to_dict(const KeptData& kept) {
    return dict_of("messages", kept.messages, "objects", kept.objects, "bytes", kept.bytes,
                   "persistent", kept.persistent, "description", kept.describe());
}

nb::dict to_dict(const SegmentSummary& segment) {
    const bool is_sound = segment.problem.empty();
    return dict_of("name", to_text(segment.name, Text::FileName), "kind",
                   is_sound ? lower(to_string(segment.kind)) : "unknown", "reserved_bytes",
                   segment.reserved_bytes, "range_bytes", segment.range_bytes, "owner",
                   is_sound ? std::optional(segment.owner) : std::nullopt, "participants",
                   to_list(segment.participants), "reaped", to_list(segment.reaped), "kept",
                   to_dict(segment.kept), "problem", segment.problem, "problem_code",
                   is_sound ? "" : std::string(to_string(segment.problem_code)));
}

nb::dict to_dict(const BroadcastInfo& info) {
    return dict_of("segment", to_dict(info.segment), "stats", info.stats, "readers",
                   to_list(info.readers), "closed", info.closed, "writer_blocked_for",
                   info.writer_blocked_for);
}

nb::dict to_dict(const Unwritten& unwritten) {
    return dict_of("waiting", unwritten.waiting, "waiting_bytes", unwritten.waiting_bytes,
                   "dropped", unwritten.dropped, "dropped_bytes", unwritten.dropped_bytes);
}

nb::dict to_dict(const QueueRequest& request) {
    return dict_of("slot", request.slot, "requested", request.requested, "passed",
                   request.is_passed);
}

nb::dict to_dict(const QueueInfo& info) {
    return dict_of("segment", to_dict(info.segment), "stats", info.stats, "requests",
                   to_list(info.requests), "dead_letters", info.dead_letters, "application",
                   info.application, "ends_with",
                   info.ends_with == EndsWith::Creator ? "creator" : "last_producer");
}

nb::dict to_dict(const StoreInfo& info) {
    return dict_of("segment", to_dict(info.segment), "stats", info.stats);
}

nb::dict to_dict(const TrajectoryInfo& info) {
    nb::dict dict = to_dict(info.queue);
    dict["trajectories"] = to_python(info.trajectories);
    return dict;
}

namespace {

// For the async forms of attach(): waits until attach() would find the segment, without joining it.
// So a cancelled task has not been the first reader of a rank.
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

// Binds an inspection of one segment, by its name.
template <auto kLook>
void bind_look(nb::module_& module, const char* as) {
    module.def(
        as,
        [](nb::handle given) {
            const std::string name = parse_name(given);
            return to_dict(without_gil([&] { return kLook(name); }));
        },
        nb::arg("name").none());
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
    bind_look<&inspect_segment>(module, "inspect_segment");
    bind_look<&inspect_broadcast>(module, "inspect_broadcast");
    bind_look<&inspect_queue>(module, "inspect_queue");
    bind_look<&inspect_store>(module, "inspect_store");
    bind_look<&inspect_trajectories>(module, "inspect_trajectories");
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

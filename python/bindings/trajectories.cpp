// penstock._core: TrajectoryWriter, Rollout and TrajectoryReader. Groups are encoded like any
// value; the library checks them before they are put.
#include "trajectories.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <utility>

#include "arguments.hpp"
#include "codec.hpp"
#include "context.hpp"
#include "dead_letters.hpp"
#include "queue.hpp"
#include "side.hpp"
#include "state.hpp"
#include "text.hpp"

namespace penstock::py {
namespace {

using WriterSide = Side<TrajectoryWriter>;

class PyWriter {
public:
    PyWriter(TrajectoryWriter attached, std::string name_of_it)
        : name(std::move(name_of_it)), instance(attached.instance()),
          environment(attached.environment()), env_id(attached.env_id()),
          putting(title(), std::make_shared<Shared<TrajectoryWriter>>(std::move(attached)),
                  detail::Awaited::Room),
          beginning(title(), putting.shared, detail::Awaited::Room) {}

    void close() {
        beginning.close();
        putting.close();
    }
    [[nodiscard]] bool is_closed() const noexcept { return putting.is_closed(); }
    [[nodiscard]] bool is_foreign() const noexcept { return putting.is_foreign(); }

    const std::string name;
    const std::string instance;
    const std::string environment;
    const std::int64_t env_id;
    WriterSide putting;
    WriterSide beginning;

private:
    [[nodiscard]] std::string title() const {
        return "environment '" + environment + "' of '" + name + "'";
    }
};

struct PyReader final : Handle {
    PyReader(TrajectoryReader attached, const std::string& name_of_it)
        : Handle("trainer of '" + name_of_it + "'"), name(name_of_it),
          instance(attached.instance()), sequences(attached.sequences()),
          reader(std::move(attached)) {
        awaits(instance, detail::Awaited::Message);
    }

    [[nodiscard]] TrajectoryReader& usable() {
        check_usable();
        return reader;
    }

    const std::string name;
    const std::string instance;
    const std::uint64_t sequences;
    TrajectoryReader reader;

private:
    void end_waits() noexcept override { reader.request_close(); }
    void shut() noexcept override { reader.close(); }
};

std::uint64_t parse_staleness(nb::handle max_staleness) {
    return max_staleness.is_none() ? kUnlimited : parse_small(max_staleness, "max_staleness");
}

TrajectoryOptions parse_options(const nb::dict& options, nb::handle owner) {
    TrajectoryOptions parsed;
    parsed.replaces_owner = parse_owner(owner);
    parsed.capacity = parse_bytes(options["capacity"], "capacity");
    parsed.slots = parse_small(options["slots"], "slots");
    parsed.participants = parse_small(options["participants"], "participants");
    parsed.max_deliveries = parse_small(options["max_deliveries"], "max_deliveries");
    parsed.max_staleness = parse_staleness(options["max_staleness"]);
    parsed.ends_with = parse_ends_with(options["ends_with"]);
    parsed.waiting = parse_waiting(options["waiting"]);
    parsed.memory.populate = parse_flag(options["populate"], "populate");
    parsed.memory.lock_memory = parse_flag(options["lock_memory"], "lock_memory");
    parsed.memory.huge_pages = parse_flag(options["huge_pages"], "huge_pages");
    return parsed;
}

// `options` None: attach.
void make_writer(PyWriter* place, nb::handle given_name, const std::string& instance,
                 nb::handle options, nb::handle environment, nb::handle weight,
                 nb::handle min_share, nb::handle group_size, nb::handle env_id, nb::handle timeout,
                 nb::handle owner, bool scales_shares) {
    const std::string name = parse_name(given_name);
    EnvironmentOptions asked;
    asked.name = parse_text(environment, "environment");
    asked.weight = parse_real(weight, "weight");
    asked.min_share = parse_real(min_share, "min_share");
    asked.group_size = parse_small(group_size, "group_size");
    asked.scales_shares = scales_shares;
    if (!env_id.is_none()) {
        asked.env_id = parse_integer(env_id, "env_id");
    }
    if (!options.is_none()) {
        TrajectoryOptions parsed = parse_options(nb::cast<nb::dict>(options), owner);
        new (place) PyWriter(
            create_waiting(parsed, [&] { return TrajectoryWriter::create(name, parsed, asked); }),
            name);
        return;
    }
    const Trust trust = parse_trust(owner, Codec::Typed);
    new (place) PyWriter(attach_waiting(parse_timeout(timeout),
                                        [&](const Wait& wait) {
                                            return TrajectoryWriter::attach(name, asked, wait,
                                                                            instance, trust);
                                        }),
                         name);
}

void make_reader(PyReader* place, nb::handle given_name, const std::string& instance,
                 nb::handle options, nb::handle sequences, nb::handle timeout, nb::handle owner) {
    const std::string name = parse_name(given_name);
    const std::uint64_t count = parse_small(sequences, "sequences");
    if (!options.is_none()) {
        TrajectoryOptions parsed = parse_options(nb::cast<nb::dict>(options), owner);
        new (place) PyReader(
            create_waiting(parsed, [&] { return TrajectoryReader::create(name, parsed, count); }),
            name);
        return;
    }
    const Trust trust = parse_trust(owner, Codec::Typed);
    new (place) PyReader(attach_waiting(parse_timeout(timeout),
                                        [&](const Wait& wait) {
                                            return TrajectoryReader::attach(name, count, wait,
                                                                            instance, trust);
                                        }),
                         name);
}

std::uint64_t credit(PyWriter& writer) {
    return writer.beginning.usable().credit();
}

Rollout begin(PyWriter& writer, nb::handle timeout) {
    const Deadline deadline = parse_timeout(timeout);
    return Turn(writer.beginning)
        .get<Rollout>(
            deadline, [] { return true; },
            [&](const Wait& wait) { return writer.beginning.target().begin(wait); });
}

void put(PyWriter& writer, const Encoded& encoded, Rollout* rollout, Deadline deadline) {
    WriterSide& side = writer.putting;
    Turn turn(side);
    const auto has_room = [&] { return side.target().has_room(); };
    std::optional<QueueLoan> loan;
    turn.run(deadline, nullptr, has_room, [&](const Wait& wait) {
        return store(side.target().loan(encoded.nbytes(), wait), loan);
    });
    write_to(loan->bytes().data(), encoded);
    turn.run(deadline, nullptr, has_room,
             [&](const Wait& wait) { return side.target().commit(*loan, rollout, wait); });
}

// A group of an async twin: encoded once, and tried until there is room.
class OutgoingGroup {
public:
    explicit OutgoingGroup(nb::handle message) : encoded_(encode(message, Codec::Typed)) {}

    void try_put(PyWriter& writer, Rollout* rollout) const {
        put(writer, encoded_, rollout, Deadline::now());
    }

    // Runs in a thread of its own, while the event loop goes on. Puts nothing.
    void wait_for_room(PyWriter& writer, nb::handle timeout, const Cancel& cancel) const {
        const Deadline deadline = parse_timeout(timeout);
        WriterSide& side = writer.putting;
        Turn turn(side);
        turn.run(
            deadline, &cancel, [] { return false; },
            [&](const Wait& wait) { return side.target().wait_room(encoded_.nbytes(), wait); });
    }

private:
    Encoded encoded_;
};

TrajectoryBatch next_batch(PyReader& reader, nb::handle sequences, nb::handle lookahead,
                           nb::handle causal_shift, nb::handle drop_stale,
                           nb::handle set_oversized_aside, nb::handle timeout) {
    const Deadline deadline = parse_timeout(timeout);
    BatchRequest request;
    request.sequences = sequences.is_none() ? 0 : parse_small(sequences, "sequences");
    if (!sequences.is_none() && request.sequences == 0) {
        raise_error(ErrorCode::InvalidArgument, "a batch has 1 sequence at least");
    }
    if (!lookahead.is_none()) {
        request.lookahead = parse_small(lookahead, "lookahead");
    }
    request.causal_shift = parse_flag(causal_shift, "causal_shift");
    request.drops_stale = parse_flag(drop_stale, "drop_stale");
    request.sets_oversized_aside = parse_flag(set_oversized_aside, "set_oversized_aside");
    return Turn(reader).get<TrajectoryBatch>(
        deadline, [] { return false; },
        [&](const Wait& wait) { return reader.reader.next_batch(request, wait); });
}

nb::list held_messages(PyReader& reader, bool restored) {
    nb::list messages;
    const auto which = restored ? TrajectoryReader::Held::Restored : TrajectoryReader::Held::All;
    const auto held = with_turn(reader, [&] { return reader.reader.held_messages(which); });
    for (const std::vector<std::byte>& message : held) {
        messages.append(nb::bytes(message.data(), message.size()));
    }
    return messages;
}

void restore(PyReader& reader, nb::handle message) {
    const Pinned pinned(message, Pinned::Access::Read);
    std::vector<std::byte> copy(pinned.bytes().begin(), pinned.bytes().end());
    Turn turn(reader);
    turn.run(
        Deadline::never(), nullptr, [] { return true; },
        [&](const Wait&) { return reader.reader.restore(std::move(copy)); });
}

// Raises Corrupt if a message is not a sound group.
void check_group(nb::handle message) {
    const Pinned pinned(message, Pinned::Access::Read);
    const Result<GroupView> group = read_group(pinned.bytes());
    if (!group) {
        raise_error(ErrorCode::Corrupt, std::string(group.status().message()));
    }
}

template <typename Bound>
void bind_common(Bound& bound) {
    using Self = typename Bound::Type;
    bound
        .def_prop_ro("name", &name_of<&Self::name, Self>,
                     "The name it was created with, or attached to.")
        .def_ro("_instance", &Self::instance)
        .def("close", &Self::close, "Leave. Ends waits of other threads. Idempotent.");
}

void bind_writer_class(nb::module_& module) {
    nb::class_<OutgoingGroup>(module, "_OutgoingGroup")
        .def(nb::init<nb::handle>(), nb::arg("message").none())
        .def("try_put", &OutgoingGroup::try_put, nb::arg("writer"), nb::arg("rollout").none())
        .def("wait_for_room", &OutgoingGroup::wait_for_room, nb::arg("writer"),
             nb::arg("timeout").none(), nb::arg("cancel"));
    nb::class_<Rollout>(module, "Rollout", "Credit for one group.")
        .def_prop_ro("version", &Rollout::version, "The policy's version when the rollout began.")
        .def("release", &Rollout::release, "Return the credit without a group.");
    auto bound =
        bind_handle<PyWriter>(module, "TrajectoryWriter", "writer",
                              "An environment, behind penstock.trajectories.TrajectoryWriter.");
    bind_common(bound);
    bound
        .def("__init__", &make_writer, nb::arg("name").none(), nb::kw_only(), nb::arg("instance"),
             nb::arg("options").none(), nb::arg("environment").none(), nb::arg("weight").none(),
             nb::arg("min_share").none(), nb::arg("group_size").none(), nb::arg("env_id").none(),
             nb::arg("timeout").none(), nb::arg("owner").none() = nb::none(),
             nb::arg("scales_shares") = false)
        .def("__init__", &refuse_construction<PyWriter>)
        .def_prop_ro("_replaced",
                     [](PyWriter& writer) { return writer.putting.target().replaced().describe(); })
        .def_ro("environment", &PyWriter::environment, "The environment's name.")
        .def_ro("env_id", &PyWriter::env_id,
                "The environment's number: given at attachment, or assigned by the queue, from 1.")
        .def_prop_ro(
            "version", [](PyWriter& writer) { return writer.beginning.usable().version(); },
            "The policy's version: the step of the trainer's last ``ack()``. Closed after "
            "``close()``.")
        .def("credit", &credit,
             "How many groups of ``group_size`` could be begun now; 0: no credit is left.\n\n"
             "Raises Closed after ``close()``.")
        .def("_begin", &begin, nb::arg("timeout").none())
        .def(
            "_put",
            [](PyWriter& writer, nb::handle message, Rollout* rollout, nb::handle timeout) {
                const Deadline deadline = parse_timeout(timeout);
                put(writer, encode(message, Codec::Typed), rollout, deadline);
            },
            nb::arg("message").none(), nb::arg("rollout").none(), nb::arg("timeout").none())
        .def(
            "end", [](PyWriter& writer) { writer.putting.usable().end(); },
            "End the stream without leaving: nothing more is accepted. Any participant may call.")
        .def(
            "stats", [](PyWriter& writer) { return to_python(writer.putting.usable().stats()); },
            "Counters and state of the whole queue. Looks at every slot.");
}

void bind_reader_class(nb::module_& module) {
    auto bound = bind_handle<PyReader>(module, "TrajectoryReader", "reader",
                                       "A trainer, behind penstock.trajectories.TrajectoryReader.");
    bind_common(bound);
    bound
        .def("__init__", &make_reader, nb::arg("name").none(), nb::kw_only(), nb::arg("instance"),
             nb::arg("options").none(), nb::arg("sequences").none(), nb::arg("timeout").none(),
             nb::arg("owner").none() = nb::none())
        .def("__init__", &refuse_construction<PyReader>)
        .def_prop_ro("_replaced",
                     [](PyReader& reader) { return reader.reader.replaced().describe(); })
        .def_prop_ro(
            "version", [](PyReader& reader) { return reader.usable().version(); },
            "The policy's version: the step of the last ``ack()``. Closed after ``close()``.")
        .def_ro("sequences", &PyReader::sequences,
                "Sequences of a batch, as given at creation or attachment.")
        .def("_next", &next_batch, nb::arg("sequences").none(), nb::arg("lookahead").none(),
             nb::arg("causal_shift").none(), nb::arg("drop_stale").none(),
             nb::arg("set_oversized_aside").none(), nb::arg("timeout").none())
        .def("_take_notices", [](PyReader& reader) { return reader.usable().take_notices(); })
        .def(
            "_limit_tokens",
            [](PyReader& reader, nb::handle max_tokens) {
                reader.usable().limit_tokens(parse_natural(max_tokens, "max_tokens", "an int"));
            },
            nb::arg("max_tokens").none())
        .def(
            "drop_waiting",
            [](PyReader& reader) {
                return Turn(reader).get<std::uint64_t>(
                    Deadline::never(), [] { return true; },
                    [&](const Wait&) { return reader.reader.drop_waiting(); });
            },
            "Drop the waiting groups that no trainer holds, and go on; return how many.\n\n"
            "Dead letters stay. Takes time in proportion to the number of groups.")
        .def("_held_messages", &held_messages, nb::arg("restored") = false)
        .def("_restore", &restore, nb::arg("message").none())
        .def(
            "_raise_version",
            [](PyReader& reader, std::uint64_t version) { reader.usable().raise_version(version); })
        .def(
            "discard",
            [](PyReader& reader) {
                return with_turn(reader, [&] { return reader.reader.discard(); });
            },
            "End the stream and drop queued groups and dead letters; return how many.")
        .def(
            "end", [](PyReader& reader) { reader.usable().end(); },
            "End the stream without leaving: nothing more is accepted. Any participant may call.")
        .def("_reopen", [](PyReader& reader) { return reader.usable().reopen(); })
        .def(
            "stats", [](PyReader& reader) { return to_python(reader.usable().stats()); },
            "Counters and state of the whole queue. Looks at every slot.");
    bind_dead_letters(bound, [](PyReader& reader) -> TrajectoryReader& { return reader.usable(); });
    module.def("_check_group", &check_group, nb::arg("message"));
}

}  // namespace

void bind_trajectories(nb::module_& module) {
    bind_trajectory_batch(module);
    bind_writer_class(module);
    bind_reader_class(module);
    nb::list columns;
    for (std::size_t at = 0; at < kColumns; ++at) {
        const std::string_view column = name(static_cast<Column>(at));
        columns.append(nb::str(column.data(), column.size()));
    }
    module.attr("TRAJECTORY_COLUMNS") = nb::tuple(columns);
}

}  // namespace penstock::py

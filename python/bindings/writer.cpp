// penstock._core.BroadcastWriter: encode, find room, write in place, publish.
#include "writer.hpp"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "arguments.hpp"
#include "state.hpp"
#include "text.hpp"

namespace penstock::py {
namespace {

// Messages up to this size are put together on the stack: a copy of nanoseconds, and less of the
// ring than a loan takes, which is aligned to 64 bytes.
constexpr std::size_t kShort = 2048;

Format format_of(const Encoded& message) {
    return message.codec() == Codec::Pickle ? Format::Pickle : Format::Typed;
}

void write_encoded(const Encoded& message, std::byte* place) {
    std::optional<WithoutGil> without_gil;
    if (message.nbytes() >= kLongCopy) {
        without_gil.emplace();
    }
    message.write(place);
}

void send_short(Writer& writer, std::span<const std::byte> message, Format format,
                Deadline deadline) {
    Turn turn(writer);
    turn.run(
        deadline, nullptr, [&] { return writer.core.has_room(message.size()); },
        [&](const Wait& wait) { return writer.core.send(message, wait, format); });
}

// `fill(std::byte*)` writes the message where it will be read.
template <typename Fill>
void send_in_place(Writer& writer, std::size_t nbytes, Format format, Deadline deadline,
                   const Fill& fill) {
    Turn turn(writer);
    std::optional<Loan> loan;
    turn.run(
        deadline, nullptr, [&] { return writer.core.has_room(nbytes); },
        [&](const Wait& wait) { return store(writer.core.loan(nbytes, wait), loan); });
    fill(loan->bytes().data());
    check(loan->commit(format));
}

void send_encoded(Writer& writer, const Encoded& message, Deadline deadline) {
    const std::size_t nbytes = message.nbytes();
    const Format format = format_of(message);
    if (nbytes <= kShort && !message.wants_alignment()) {
        std::array<std::byte, kShort> scratch;
        message.write(scratch.data());
        send_short(writer, {scratch.data(), nbytes}, format, deadline);
    } else {
        send_in_place(writer, nbytes, format, deadline,
                      [&](std::byte* place) { write_encoded(message, place); });
    }
}

void send_span(Writer& writer, std::span<const std::byte> message, Deadline deadline) {
    if (message.size() < kLongCopy) {
        send_short(writer, message, Format::Bytes, deadline);
    } else {
        send_in_place(writer, message.size(), Format::Bytes, deadline,
                      [&](std::byte* place) { copy_bytes(place, message.data(), message.size()); });
    }
}

void send(Writer& writer, nb::handle value, nb::handle timeout) {
    const Deadline deadline = parse_timeout(timeout);
    send_encoded(writer, encode(value, writer.codec), deadline);
}

void send_bytes(Writer& writer, nb::handle buffer, nb::handle timeout) {
    const Deadline deadline = parse_timeout(timeout);
    if (PyBytes_CheckExact(buffer.ptr())) {
        send_span(writer, bytes_of(buffer), deadline);
    } else {
        const Pinned pinned(buffer, Pinned::Access::Read);
        send_span(writer, pinned.bytes(), deadline);
    }
}

void wait_ready(Writer& writer, nb::handle timeout, const Cancel* cancel) {
    const Deadline deadline = parse_timeout(timeout);
    Turn turn(writer);
    turn.run(
        deadline, cancel, [] { return false; },
        [&](const Wait& wait) { return writer.core.wait_ready(wait); });
}

// In a thread of its own, while the event loop goes on. Sends nothing, so that a task that is
// cancelled at any moment has sent nothing.
void wait_room(Writer& writer, std::size_t nbytes, nb::handle timeout, const Cancel& cancel) {
    const Deadline deadline = parse_timeout(timeout);
    Turn turn(writer);
    std::optional<Loan> unused;
    turn.run(
        deadline, &cancel, [] { return false; },
        [&](const Wait& wait) { return store(writer.core.loan(nbytes, wait), unused); });
}

// What an async twin sends: encoded or pinned once, and tried until there is room.
class Outgoing {
public:
    explicit Outgoing(Encoded message) : encoded_(std::move(message)) {}
    explicit Outgoing(nb::handle buffer)
        : pinned_(std::make_unique<Pinned>(buffer, Pinned::Access::Read)) {}

    void try_send(Writer& writer) const {
        if (encoded_) {
            send_encoded(writer, *encoded_, Deadline::now());
        } else {
            send_span(writer, pinned_->bytes(), Deadline::now());
        }
    }

    void wait_for_room(Writer& writer, nb::handle timeout, const Cancel& cancel) const {
        wait_room(writer, encoded_ ? encoded_->nbytes() : pinned_->bytes().size(), timeout, cancel);
    }

private:
    std::optional<Encoded> encoded_;
    std::unique_ptr<Pinned> pinned_;
};

void bind_async(nb::class_<Writer>& cls, nb::module_& module) {
    nb::class_<Outgoing>(module, "_Outgoing")
        .def("try_send", &Outgoing::try_send)
        .def("wait_for_room", &Outgoing::wait_for_room, nb::arg("writer"),
             nb::arg("timeout").none(), nb::arg("cancel"));
    cls.def(
           "_encode",
           [](Writer& writer, nb::handle value) { return Outgoing(encode(value, writer.codec)); },
           nb::arg("obj").none())
        .def(
            "_pin", [](Writer&, nb::handle buffer) { return Outgoing(buffer); },
            nb::arg("data").none())
        .def(
            "_wait_room",
            [](Writer& writer, nb::handle nbytes, nb::handle timeout, const Cancel& cancel) {
                wait_room(writer, parse_bytes(nbytes, "nbytes"), timeout, cancel);
            },
            nb::arg("nbytes").none(), nb::arg("timeout").none(), nb::arg("cancel"))
        .def("_wait_ready", &wait_ready, nb::arg("timeout").none(), nb::arg("cancel"));
}

std::optional<int> numa_node_of(nb::handle node) {
    if (node.is_none()) {
        return std::nullopt;
    }
    constexpr unsigned most = 1U << 16U;  // far beyond any machine, and an int
    return static_cast<int>(std::min(parse_small(node, "numa_node"), most));
}

void create(Writer* place, nb::handle given_name, nb::handle readers, nb::handle capacity,
            nb::handle given_on_reader_death, nb::handle large, nb::handle codec, nb::handle owner,
            const MemoryOptions& memory) {
    // None: an anonymous segment, which the library calls "".
    const std::string name = given_name.is_none() ? "" : parse_name(given_name);
    if (name.empty() && !given_name.is_none()) {
        inspect_segment(name);  // raises InvalidName
    }
    const std::string on_reader_death = parse_text(given_on_reader_death, "on_reader_death");
    BroadcastOptions options;
    options.readers = parse_small(readers, "readers");
    options.capacity = parse_bytes(capacity, "capacity");
    options.large = parse_bytes(large, "large");
    options.memory = memory;
    options.replaces_owner = parse_owner(owner);
    if (on_reader_death != "raise" && on_reader_death != "drop") {
        raise_error(ErrorCode::InvalidArgument,
                    "on_reader_death is '" + on_reader_death + "': give 'raise' or 'drop'");
    }
    options.on_reader_death =
        on_reader_death == "drop" ? OnReaderDeath::Drop : OnReaderDeath::Raise;
    const Codec values = parse_codec(codec);
    new (place) Writer(
        name, create_waiting(options, [&] { return BroadcastWriter::create(name, options); }),
        values);
}

}  // namespace

Writer::Writer(const std::string& name_of_it, BroadcastWriter made, Codec values)
    : Handle(name_of_it.empty() ? "writer of an anonymous segment"
                                : "writer of '" + name_of_it + "'"),
      core(std::move(made)), codec(values), name(name_of_it) {
    awaits(core.instance(), detail::Awaited::Room);
}

void bind_writer(nb::module_& module) {
    nb::class_<Writer> cls(module, "BroadcastWriter", nb::is_weak_referenceable(),
                           "The sending side; penstock.BroadcastWriter is its face.");
    cls.def(
           "__init__",
           [](Writer* place, nb::handle name, nb::handle readers, nb::handle capacity,
              nb::handle on_reader_death, nb::handle large, nb::handle codec, nb::handle huge_pages,
              nb::handle populate, nb::handle lock_memory, nb::handle numa_node, nb::handle owner) {
               create(place, name, readers, capacity, on_reader_death, large, codec, owner,
                      {.huge_pages = parse_flag(huge_pages, "huge_pages"),
                       .populate = parse_flag(populate, "populate"),
                       .lock_memory = parse_flag(lock_memory, "lock_memory"),
                       .numa_node = numa_node_of(numa_node)});
           },
           nb::arg("name").none(), nb::kw_only(), nb::arg("readers").none(),
           nb::arg("capacity").none(), nb::arg("on_reader_death").none(), nb::arg("large").none(),
           nb::arg("codec").none(), nb::arg("huge_pages").none(), nb::arg("populate").none(),
           nb::arg("lock_memory").none(), nb::arg("numa_node").none(),
           nb::arg("owner").none() = nb::none())
        .def("__init__", &refuse_construction<Writer>)
        .def(
            "send", &send, nb::arg("obj").none(), nb::arg("timeout") = nb::none(),
            "Send a value to every reader. Waits while the slowest reader leaves no room.\n\n"
            "``timeout`` is in seconds: None waits for ever, 0 tries once.\n\n"
            "Raises Timeout, PeerDied, TooLarge, NoSpace, UnsupportedType or Closed: then nothing\n"
            "was sent.")
        .def("send_bytes", &send_bytes, nb::arg("data").none(), nb::arg("timeout") = nb::none(),
             "Send a contiguous buffer; readers get bytes. Waits and raises as ``send`` does.")
        .def(
            "loan", &make_loan, nb::arg("nbytes").none(), nb::arg("timeout") = nb::none(),
            "Room for a message of ``nbytes`` bytes, filled in place: ``with writer.loan(n) as "
            "buf``.\n\n"
            "The message is sent at the end of the block, and dropped if the block raises. Arrays\n"
            "made of the buffer should end with the block; those that don't keep what they hold, "
            "at\n"
            "the cost of a copy (ResourceWarning), and reach the shared memory no longer. Until "
            "the\n"
            "block ends, other threads that want to send wait; this one gets Busy.\n\n"
            "Waits and raises as ``send`` does when the block begins.")
        .def(
            "wait_ready",
            [](Writer& writer, nb::handle timeout) { wait_ready(writer, timeout, nullptr); },
            nb::arg("timeout") = nb::none(),
            "Wait until every rank has a living reader, for ``timeout`` seconds at most.\n\n"
            "Raises Timeout, which names the ranks that are missing, or Closed.")
        .def("close", &Writer::close,
             "Close: readers drain what was sent and then get Closed. Ends waits of other "
             "threads.\n\n"
             "The second time it does nothing, and in a forked child neither.")
        .def_prop_ro("closed", &Writer::is_closed, "Whether this handle was closed here.")
        .def_prop_ro("_is_foreign", &Writer::is_foreign)
        .def_prop_ro("name", &name_of<&Writer::name, Writer>,
                     "The name it was created with; empty if anonymous.")
        .def_prop_ro("_instance", [](const Writer& writer) { return writer.core.instance(); })
        .def("_descriptor",
             [](const Writer& writer) {
                 writer.check_usable();
                 return writer.check_descriptor(writer.core.descriptor());
             })
        .def("_stats",
             [](const Writer& writer) {
                 writer.check_usable();
                 return to_dict(writer.core.stats());
             })
        .def("_readers",
             [](const Writer& writer) {
                 writer.check_usable();
                 return to_list(writer.core.readers());
             })
        .def("_blocked_by", [](const Writer& writer) {
            writer.check_usable();
            return to_list(writer.core.blocked_by());
        });
    bind_async(cls, module);
}

}  // namespace penstock::py

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
#include "context.hpp"
#include "outgoing.hpp"
#include "state.hpp"
#include "text.hpp"

namespace penstock::py {
namespace {

struct WriterOutlet {
    using Owner = Writer;
    using Loan = BroadcastLoan;

    explicit WriterOutlet(Writer& owner) : writer(owner) {}
    [[nodiscard]] Handle& handle() const { return writer; }
    [[nodiscard]] bool has_room(std::size_t nbytes) const { return writer.core.has_room(nbytes); }
    // send() takes less room in the ring than a loan, which is aligned to 64 bytes.
    static bool copies(const Encoded& message) { return !message.wants_alignment(); }
    Status send(std::span<const std::byte> message, Format format, const Wait& wait) const {
        return writer.core.send(message, wait, format);
    }
    [[nodiscard]] Result<Loan> loan(std::size_t nbytes, const Wait& wait) const {
        return writer.core.loan(nbytes, wait);
    }
    static void commit(Loan& loan, Format format, Turn& /*turn*/, Deadline /*deadline*/) {
        check(loan.commit(format));
    }
    [[nodiscard]] Status wait_room(std::size_t nbytes, const Wait& wait) const {
        const Result<Loan> unused = loan(nbytes, wait);
        return unused.status();
    }

    Writer& writer;
};

void send(Writer& writer, nb::handle value, nb::handle timeout) {
    const Deadline deadline = parse_timeout(timeout);
    send_encoded(WriterOutlet(writer), encode(value, writer.codec), deadline);
}

void send_bytes(Writer& writer, nb::handle buffer, nb::handle timeout) {
    const Deadline deadline = parse_timeout(timeout);
    if (PyBytes_CheckExact(buffer.ptr())) {
        send_span(WriterOutlet(writer), bytes_of(buffer), deadline);
    } else {
        const Pinned pinned(buffer, Pinned::Access::Read);
        send_span(WriterOutlet(writer), pinned.bytes(), deadline);
    }
}

void wait_ready(Writer& writer, nb::handle timeout, const Cancel* cancel) {
    const Deadline deadline = parse_timeout(timeout);
    Turn turn(writer);
    turn.run(
        deadline, cancel, [] { return false; },
        [&](const Wait& wait) { return writer.core.wait_ready(wait); });
}

void bind_async(nb::class_<Writer>& cls, nb::module_& module) {
    Outgoing<WriterOutlet>::bind(module, "_Outgoing", cls);
    cls.def(
           "_wait_room",
           [](Writer& writer, nb::handle nbytes, nb::handle timeout, const Cancel& cancel) {
               wait_room(WriterOutlet(writer), parse_bytes(nbytes, "nbytes"), timeout, cancel);
           },
           nb::arg("nbytes").none(), nb::arg("timeout").none(), nb::arg("cancel"))
        .def("_wait_ready", &wait_ready, nb::arg("timeout").none(), nb::arg("cancel"));
}

std::optional<int> numa_node_of(nb::handle node) {
    if (node.is_none()) {
        return std::nullopt;
    }
    constexpr unsigned most = 1U << 16U;  // beyond any machine, and within int
    return static_cast<int>(std::min(parse_small(node, "numa_node"), most));
}

void create(Writer* place, nb::handle given_name, nb::handle readers, nb::handle capacity,
            nb::handle given_on_reader_death, nb::handle large, nb::handle waiting,
            nb::handle codec, nb::handle owner, const MemoryOptions& memory) {
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
    options.waiting = parse_waiting(waiting);
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
    auto cls = bind_handle<Writer>(module, "BroadcastWriter", "writer",
                                   "The sending side; penstock.BroadcastWriter is its face.");
    cls.def(
           "__init__",
           [](Writer* place, nb::handle name, nb::handle readers, nb::handle capacity,
              nb::handle on_reader_death, nb::handle large, nb::handle codec, nb::handle huge_pages,
              nb::handle populate, nb::handle lock_memory, nb::handle numa_node, nb::handle waiting,
              nb::handle owner) {
               create(place, name, readers, capacity, on_reader_death, large, waiting, codec, owner,
                      {.huge_pages = parse_flag(huge_pages, "huge_pages"),
                       .populate = parse_flag(populate, "populate"),
                       .lock_memory = parse_flag(lock_memory, "lock_memory"),
                       .numa_node = numa_node_of(numa_node)});
           },
           nb::arg("name").none(), nb::kw_only(), nb::arg("readers").none(),
           nb::arg("capacity").none(), nb::arg("on_reader_death").none(), nb::arg("large").none(),
           nb::arg("codec").none(), nb::arg("huge_pages").none(), nb::arg("populate").none(),
           nb::arg("lock_memory").none(), nb::arg("numa_node").none(),
           nb::arg("waiting").none() = "balanced", nb::arg("owner").none() = nb::none())
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
        .def_prop_ro("name", &name_of<&Writer::name, Writer>,
                     "The name it was created with; empty if anonymous.")
        .def_prop_ro("_instance", [](const Writer& writer) { return writer.core.instance(); })
        .def("_descriptor",
             [](const Writer& writer) {
                 return writer.check_descriptor(writer.usable().descriptor());
             })
        .def(
            "stats", [](const Writer& writer) { return to_python(writer.usable().stats()); },
            "Counters since creation. Works while another thread is sending.")
        .def("_readers", [](const Writer& writer) { return to_list(writer.usable().readers()); })
        .def("_blocked_by",
             [](const Writer& writer) { return to_list(writer.usable().blocked_by()); });
    bind_async(cls, module);
}

}  // namespace penstock::py

// penstock._core.BroadcastReader: wait for a message, decode it, give its room back.
#include "reader.hpp"

#include <nanobind/stl/string.h>

#include <utility>

#include "arguments.hpp"
#include "context.hpp"
#include "received.hpp"
#include "state.hpp"
#include "text.hpp"

namespace penstock::py {
namespace {

// The pending message. Raises Incompatible unless it was sent as bytes.
const BroadcastMessage& expect_bytes(const Reader& reader) {
    if (reader.pending->format() != Format::Bytes) {
        raise_error(ErrorCode::Incompatible,
                    "the next message for the " + reader.title() +
                        " was sent with send(), not send_bytes(); it is still there: take it with "
                        "recv()");
    }
    return *reader.pending;
}

nb::object recv(Reader& reader, nb::handle timeout) {
    const BroadcastMessage message = reader.take_message(parse_timeout(timeout));
    nb::object value = copy_of({message.bytes(), message.format()}, reader.codec);
    check(message.check_held());
    return value;
}

nb::object recv_bytes(Reader& reader, nb::handle timeout) {
    const Deadline deadline = parse_timeout(timeout);
    Turn turn(reader);
    reader.await_message(turn, deadline);
    nb::object bytes = copy_of({expect_bytes(reader).bytes(), Format::Bytes}, reader.codec);
    check(reader.pending->check_held());
    reader.pending.reset();
    return bytes;
}

std::size_t recv_bytes_into(Reader& reader, nb::handle buffer, nb::handle timeout) {
    const Deadline deadline = parse_timeout(timeout);
    const Pinned room(buffer, Pinned::Access::Write);
    Turn turn(reader);
    reader.await_message(turn, deadline);
    const auto bytes = expect_bytes(reader).bytes();
    if (bytes.size() > room.bytes().size()) {
        raise_error(ErrorCode::TooLarge,
                    "the next message for the " + reader.title() + " has " +
                        std::to_string(bytes.size()) + " bytes and the buffer only " +
                        std::to_string(room.bytes().size()) +
                        "; it is still there: take it with a larger buffer or recv_bytes()");
    }
    copy_bytes(room.bytes().data(), bytes.data(), bytes.size());
    const std::size_t size = bytes.size();
    check(reader.pending->check_held());
    reader.pending.reset();
    return size;
}

// For the async methods: leaves the message pending, so that a cancelled task loses nothing.
void wait_message(Reader& reader, nb::handle timeout, const Cancel& cancel) {
    const Deadline deadline = parse_timeout(timeout);
    Turn turn(reader);
    reader.await_message(turn, deadline, &cancel);
}

void create(Reader* place, nb::handle given_name, const std::string& instance, int descriptor,
            nb::handle rank, nb::handle codec, nb::handle timeout, nb::handle owner) {
    const std::string name = parse_name(given_name);
    const unsigned rank_number = parse_small(rank, "rank");
    const Codec values = parse_codec(codec);
    const Trust trust = parse_trust(owner, values);
    const Deadline deadline = parse_timeout(timeout);
    new (place) Reader(
        attach_waiting(deadline,
                       [&](const Wait& wait) {
                           return descriptor >= 0
                                      ? BroadcastReader::attach(descriptor, rank_number, trust)
                                      : BroadcastReader::attach(name, rank_number, wait, instance,
                                                                trust);
                       }),
        name, rank_number, values);
}

std::string title_of(const std::string& name, unsigned rank) {
    return "reader " + std::to_string(rank) + " of " +
           (name.empty() ? "an anonymous segment" : "'" + name + "'");
}

}  // namespace

Reader::Reader(BroadcastReader attached, const std::string& name_of_it, unsigned rank_of_it,
               Codec values)
    : Handle(title_of(name_of_it, rank_of_it)), core(std::move(attached)), codec(values),
      rank(rank_of_it), name(name_of_it), instance(core.instance()) {
    awaits(instance, detail::Awaited::Message);
}

void Reader::await_message(Turn& turn, Deadline deadline, const Cancel* cancel) {
    turn.run(
        deadline, cancel, [this] { return pending.has_value() || core.is_ready(); },
        [this](const Wait& wait) {
            return pending ? Status::ok() : store(core.recv(wait), pending);
        });
}

BroadcastMessage Reader::take_message(Deadline deadline) {
    Turn turn(*this);
    await_message(turn, deadline);
    if (pending->format() == Format::Pickle && codec != Codec::Pickle) {
        raise_error(ErrorCode::Incompatible,
                    "the next message for the " + title() +
                        " is a pickle, and reading it could run any code; it is still there: if "
                        "you trust the writer, attach with codec='pickle'");
    }
    BroadcastMessage message = *std::move(pending);
    pending.reset();
    return message;
}

void bind_reader(nb::module_& module) {
    bind_handle<Reader>(module, "BroadcastReader", "reader",
                        "The receiving side of one rank; penstock.BroadcastReader is its face.")
        .def("__init__", &create, nb::arg("name").none(), nb::kw_only(), nb::arg("instance"),
             nb::arg("descriptor"), nb::arg("rank").none(), nb::arg("codec").none(),
             nb::arg("timeout").none(), nb::arg("owner").none() = nb::none())
        .def("__init__", &refuse_construction<Reader>)
        .def(
            "recv", &recv, nb::arg("timeout") = nb::none(),
            "The next message, as an object of one's own; bytes if it was sent as bytes.\n\n"
            "``timeout`` is in seconds: None waits for ever, 0 tries once.\n\n"
            "Raises Timeout, Closed (everything was received), PeerDied (the same, but the writer\n"
            "is dead), Corrupt, or Incompatible for a pickle that was not asked for, which stays\n"
            "there.")
        .def("recv_view", &make_view, nb::arg("timeout") = nb::none(),
             "The next message, in place: ``with reader.recv_view() as obj``.\n\n"
             "Arrays in it are read-only views of the shared memory, and so is the memoryview "
             "that\n"
             "bytes come as. The room is given back at the end of the block, or when the last of\n"
             "them is gone. Waits and raises as ``recv`` does when the block begins.")
        .def("recv_bytes", &recv_bytes, nb::arg("timeout") = nb::none(),
             "The next message, sent as bytes. Any other gives Incompatible and stays there.\n\n"
             "Waits and raises as ``recv`` does.")
        .def("recv_bytes_into", &recv_bytes_into, nb::arg("buffer").none(),
             nb::arg("timeout") = nb::none(),
             "The next message of bytes, copied into a writable buffer; how many bytes it has.\n\n"
             "A message that is too large for the buffer raises TooLarge and stays there. Waits "
             "and\n"
             "raises as ``recv_bytes`` does.")
        .def("close", &Reader::close,
             "Leave: the rank does not gate the writer until replaced. Ends waits of other "
             "threads.\n\n"
             "The second time it does nothing, and in a forked child neither.")
        .def_prop_ro("name", &name_of<&Reader::name, Reader>,
                     "The name it attached to; empty if anonymous.")
        .def_ro("rank", &Reader::rank, "Its rank, from 0.")
        .def_ro("_instance", &Reader::instance)
        .def("_descriptor",
             [](const Reader& reader) {
                 return reader.check_descriptor(reader.usable().descriptor());
             })
        .def(
            "stats", [](const Reader& reader) { return to_python(reader.usable().stats()); },
            "Counters since attachment. Works while another thread is receiving.")
        .def("_wait_message", &wait_message, nb::arg("timeout").none(), nb::arg("cancel"));
}

}  // namespace penstock::py

// penstock._core.Queue: encode and put, take and decode, acknowledge.
#include "queue.hpp"

#include <nanobind/stl/string.h>

#include <array>
#include <optional>
#include <span>
#include <utility>

#include "arguments.hpp"
#include "context.hpp"
#include "dead_letters.hpp"
#include "received.hpp"
#include "state.hpp"
#include "text.hpp"

namespace penstock::py {
namespace {

void put(PyQueue& queue, nb::handle value, nb::handle timeout) {
    const Deadline deadline = parse_timeout(timeout);
    send_encoded(QueueOutlet(queue), encode(value, queue.codec), deadline);
}

void put_bytes(PyQueue& queue, nb::handle buffer, nb::handle timeout) {
    const Deadline deadline = parse_timeout(timeout);
    const Pinned pinned(buffer, Pinned::Access::Read);
    send_span(QueueOutlet(queue), pinned.bytes(), deadline);
}

// Waits for the next message. Incompatible, and the exception of a signal handler, leave it there.
Delivery take_delivery(PyQueue& queue, Deadline deadline) {
    QueueSide& side = queue.taking();
    std::optional<Delivery> delivery;
    try {
        Turn turn(side);
        turn.run(
            deadline, nullptr, [&] { return side.target().is_ready(); },
            [&](const Wait& wait) { return store(side.target().take(wait), delivery); });
        if (!may_read(queue, *delivery)) {
            delivery->refuse();
            refuse_pickle(side);
        }
    } catch (...) {
        if (delivery) {
            delivery->untake();
        }
        throw;
    }
    return *std::move(delivery);
}

nb::object get(PyQueue& queue, nb::handle timeout) {
    Delivery delivery = take_delivery(queue, parse_timeout(timeout));
    nb::object value = copy_of({delivery.bytes(), delivery.format()}, queue.codec);
    check(delivery.check_held());
    delivery.ack();
    return value;
}

void wait_message(PyQueue& queue, nb::handle timeout, const Cancel& cancel) {
    const Deadline deadline = parse_timeout(timeout);
    QueueSide& side = queue.taking();
    Turn turn(side);
    turn.run(
        deadline, &cancel, [] { return false; },
        [&](const Wait& wait) { return side.target().wait_ready(wait); });
}

QueueRole parse_role(nb::handle given) {
    const std::string role = parse_text(given, "role");
    if (role == "any") {
        return QueueRole::Any;
    }
    if (role == "producer") {
        return QueueRole::Producer;
    }
    if (role == "consumer") {
        return QueueRole::Consumer;
    }
    raise_error(ErrorCode::InvalidArgument,
                "role is '" + role + "': give 'any', 'producer' or 'consumer'");
}

void create(PyQueue* place, nb::handle given_name, nb::handle capacity, nb::handle slots,
            nb::handle inline_bytes, nb::handle participants, nb::handle max_deliveries,
            nb::handle ends_with, nb::handle codec, nb::handle populate, nb::handle lock_memory,
            nb::handle huge_pages, nb::handle waiting, std::uint64_t application,
            nb::handle owner) {
    const std::string name = parse_name(given_name);
    QueueOptions options;
    options.application = application;
    options.capacity = parse_bytes(capacity, "capacity");
    options.slots = parse_small(slots, "slots");
    options.inline_bytes = parse_small(inline_bytes, "inline_bytes");
    options.participants = parse_small(participants, "participants");
    options.max_deliveries = parse_small(max_deliveries, "max_deliveries");
    options.ends_with = parse_ends_with(ends_with);
    options.waiting = parse_waiting(waiting);
    options.memory.populate = parse_flag(populate, "populate");
    options.memory.lock_memory = parse_flag(lock_memory, "lock_memory");
    options.memory.huge_pages = parse_flag(huge_pages, "huge_pages");
    options.replaces_owner = parse_owner(owner);
    const Codec values = parse_codec(codec);
    const Trust own{.owner = std::nullopt, .runs_code = values == Codec::Pickle};
    new (place) PyQueue(create_waiting(options, [&] { return Queue::create(name, options); }),
                        QueueRole::Any, values, application, own);
}

PyQueue* attach(nb::handle given_name, const std::string& instance, nb::handle role,
                nb::handle codec, nb::handle timeout, std::uint64_t application, nb::handle owner) {
    const std::string name = parse_name(given_name);
    const QueueRole parsed = parse_role(role);
    const Codec values = parse_codec(codec);
    const Trust trust = parse_trust(owner, values);
    const Deadline deadline = parse_timeout(timeout);
    return new PyQueue(attach_waiting(deadline,
                                      [&](const Wait& wait) {
                                          return Queue::attach(name, parsed, wait, instance,
                                                               application, trust);
                                      }),
                       parsed, values, application, trust);
}

}  // namespace

PyQueue::PyQueue(Queue attached, QueueRole role_of_it, Codec values,
                 std::uint64_t application_of_it, const Trust& trust_in_it)
    : codec(values), role(role_of_it), application(application_of_it), trust(trust_in_it),
      name(attached.name()), instance(attached.instance()),
      sides_(std::make_unique<Sides>(std::make_shared<SharedQueue>(std::move(attached)), name)) {}

PyQueue::Sides& PyQueue::live() {
    if (!sides_->taking.is_foreign()) {
        return *sides_;
    }
    auto own =
        std::make_unique<Sides>(std::make_shared<SharedQueue>(Queue::attach(
                                    name, role, Deadline::now(), instance, application, trust)),
                                name);
    // Leaked: a thread of the parent may have had a turn at the fork, and a locked mutex can't be
    // destroyed.
    [[maybe_unused]] const Sides* const left_to_the_parent = sides_.release();
    sides_ = std::move(own);
    return *sides_;
}

void PyQueue::close() {
    sides_->taking.close();
    sides_->putting.close();
}

EndsWith parse_ends_with(nb::handle given) {
    const std::string ends_with = parse_text(given, "ends_with");
    if (ends_with == "creator") {
        return EndsWith::Creator;
    }
    if (ends_with == "last_producer") {
        return EndsWith::LastProducer;
    }
    raise_error(ErrorCode::InvalidArgument,
                "ends_with is '" + ends_with + "': give 'creator' or 'last_producer'");
}

bool may_read(const PyQueue& queue, const Delivery& delivery) noexcept {
    return delivery.format() != Format::Pickle || queue.codec == Codec::Pickle;
}

void refuse_pickle(const QueueSide& side) {
    raise_error(ErrorCode::Incompatible,
                "the next message of the " + side.title() +
                    " is a pickle, and reading it could run any code; it is still there, until it "
                    "was refused max_deliveries times: if you trust its producer, attach with "
                    "codec='pickle'");
}

void bind_queue(nb::module_& module) {
    auto bound = bind_handle<PyQueue>(module, "Queue", "queue",
                                      "One participant of a queue; penstock.Queue is its face.");
    bound
        .def("__init__", &create, nb::arg("name").none(), nb::kw_only(), nb::arg("capacity").none(),
             nb::arg("slots").none(), nb::arg("inline_bytes").none(),
             nb::arg("participants").none(), nb::arg("max_deliveries").none(),
             nb::arg("ends_with").none() = "creator", nb::arg("codec").none(),
             nb::arg("populate").none(), nb::arg("lock_memory").none(),
             nb::arg("huge_pages").none() = false, nb::arg("waiting").none() = "balanced",
             nb::arg("application") = 0, nb::arg("owner").none() = nb::none())
        .def(
            "__init__",
            [](PyQueue* place, nb::handle name, const std::string& instance, nb::handle role,
               nb::handle codec, nb::handle timeout, std::uint64_t application, nb::handle owner) {
                const std::unique_ptr<PyQueue> attached(
                    attach(name, instance, role, codec, timeout, application, owner));
                new (place) PyQueue(std::move(*attached));
            },
            nb::arg("name").none(), nb::kw_only(), nb::arg("instance"), nb::arg("role").none(),
            nb::arg("codec").none(), nb::arg("timeout").none(), nb::arg("application") = 0,
            nb::arg("owner").none() = nb::none())
        .def("__init__", &refuse_construction<PyQueue>)
        .def(
            "put", &put, nb::arg("obj").none(), nb::arg("timeout") = nb::none(),
            "Put a value. Waits while the queue is full.\n\n"
            "``timeout`` is in seconds: None waits for ever, 0 tries once.\n\n"
            "Raises Timeout, Closed (the stream has ended), TooLarge, NoSpace or UnsupportedType:\n"
            "then nothing was put.")
        .def("put_bytes", &put_bytes, nb::arg("data").none(), nb::arg("timeout") = nb::none(),
             "Put a contiguous buffer; consumers get bytes. Waits and raises as ``put`` does.")
        .def(
            "get", &get, nb::arg("timeout") = nb::none(),
            "The next message, as an object of one's own; acknowledged when it returns.\n\n"
            "``timeout`` is in seconds: None waits for ever, 0 tries once.\n\n"
            "Raises Timeout, Closed (the stream has ended and nothing is left), Corrupt, or\n"
            "Incompatible for a pickle that was not asked for, which stays there: in front of all\n"
            "that came after it, until ``max_deliveries`` such refusals, or until a consumer with\n"
            "``codec=\"pickle\"`` takes it.")
        .def("get_view", &make_queue_view, nb::arg("timeout") = nb::none(),
             "The next message, in place: ``with queue.get_view() as obj``; see "
             "``get_many``.")
        .def(
            "get_many", &make_batch, nb::arg("max_items").none() = 64,
            nb::arg("min_items").none() = 1, nb::arg("timeout") = nb::none(),
            "The next messages, in place: ``with queue.get_many() as batch``, a list.\n\n"
            "Waits until there are ``min_items``, for ``timeout`` seconds at most, and takes none\n"
            "before. Of several consumers that wait for more than one message each is served "
            "whole, in\n"
            "the order in which they came; a ``get`` that comes later waits behind them until its\n"
            "timeout, a try (``timeout=0``) takes what is there. Timeout leaves everything where "
            "it\n"
            "was. After the end of the stream the last batch may be smaller.\n\n"
            "Arrays are read-only views of shared memory, or of a copy where the message has at "
            "most\n"
            "8 KiB. The messages are acknowledged when the block ends, and nacked if it raises "
            "or\n"
            "the process dies: then they come again. The list is emptied at the end of the block.\n"
            "An array of a longer message that is kept, also by the variable of the ``with``, "
            "holds\n"
            "the message's memory; after an exception it holds the message back until it is "
            "gone.\n\n"
            "With a ``max_deliveries`` a message that came back so often, the last time in a batch "
            "with\n"
            "others, comes once more alone before it is a dead letter: a batch of one, also where\n"
            "``min_items`` is more, and the batch before it ends early.\n\n"
            "Raises what ``get`` raises when the block begins, and InvalidArgument for more\n"
            "``min_items`` than the queue has slots; then nothing was taken.")
        .def(
            "close", &PyQueue::close,
            "Leave. Ends waits of other threads. The second time it does nothing.\n\n"
            "By the creator it also ends the stream, or by the last producer where it was created\n"
            "so: what is queued can still be had, then Closed. The name goes with the last\n"
            "participant if nothing is left in the queue, no dead letters either.")
        .def(
            "end", [](PyQueue& queue) { queue.putting().usable().end(); },
            "End the stream without leaving: nothing more is accepted. By any participant.\n\n"
            "Raises Closed after ``close()``.")
        .def(
            "discard",
            [](PyQueue& queue) {
                QueueSide& side = queue.taking();
                return with_turn(side, [&] { return side.target().discard(); });
            },
            "End the stream and throw away what is queued, and the dead letters; how many\n"
            "messages that were.\n\n"
            "Raises Closed after ``close()``.")
        .def(
            "__len__", [](PyQueue& queue) { return queue.taking().usable().queued(); },
            "How many messages are queued.")
        .def_prop_ro("name", &name_of<&PyQueue::name, PyQueue>,
                     "The name it was created with, or attached to.")
        .def_ro("_instance", &PyQueue::instance)
        .def_prop_ro("_replaced",
                     [](PyQueue& queue) { return queue.putting().target().replaced().describe(); })
        .def(
            "stats", [](PyQueue& queue) { return to_python(queue.taking().usable().stats()); },
            "Counters and state of the whole queue. Looks at every slot.")
        .def("_wait_message", &wait_message, nb::arg("timeout").none(), nb::arg("cancel"));
    bind_dead_letters(bound, [](PyQueue& queue) -> Queue& { return queue.taking().usable(); });
    bound.def_prop_ro("_codec", [](const PyQueue& queue) {
        return queue.codec == Codec::Pickle ? nb::object(nb::str("pickle"))
                                            : nb::object(nb::none());
    });
    Outgoing<QueueOutlet>::bind(module, "_OutgoingPut", bound);
    bind_queue_batch(module);
    bind_queue_put_many(module);
}

}  // namespace penstock::py

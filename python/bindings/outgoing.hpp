// A value, or a buffer, on its way into a Broadcast or a Queue: put together on the stack and
// copied in where it is short, else written where it will be read. Everything here needs the GIL.
//
// An Outlet is a concept's way in, made of a reference to its Python object:
//   Owner                                        that object's class
//   Handle& handle()                             the turn to take
//   bool has_room(nbytes)                        whether it would not wait, probably
//   static bool copies(const Encoded&)           of a short message: it may be copied in
//   Status send(bytes, Format, const Wait&)      copies it in
//   Result<Loan> loan(nbytes, const Wait&)       room with bytes()
//   void commit(Loan&, Format, Turn&, Deadline)  raises what fails
//   Status wait_room(nbytes, const Wait&)        sends nothing
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "arguments.hpp"
#include "codec.hpp"
#include "handle.hpp"
#include "penstock/format.hpp"

namespace penstock::py {

// Messages up to this size are built on the stack: a copy of nanoseconds, and no block or loan if
// they fit without one.
inline constexpr std::size_t kShort = 2048;

inline Format format_of(const Encoded& message) noexcept {
    return message.codec() == Codec::Pickle ? Format::Pickle : Format::Typed;
}

// While other threads run, where it takes long.
inline void write_to(std::byte* place, const Encoded& message) {
    std::optional<WithoutGil> without_gil;
    if (message.nbytes() >= kLongCopy) {
        without_gil.emplace();
    }
    message.write(place);
}

template <typename Outlet>
void send_copy(Outlet& outlet, std::span<const std::byte> message, Format format,
               Deadline deadline) {
    Turn turn(outlet.handle());
    turn.run(
        deadline, nullptr, [&] { return outlet.has_room(message.size()); },
        [&](const Wait& wait) { return outlet.send(message, format, wait); });
}

// `fill(std::byte*)` writes the message in place.
template <typename Outlet, typename Fill>
void send_in_place(Outlet& outlet, std::size_t nbytes, Format format, Deadline deadline,
                   const Fill& fill) {
    Turn turn(outlet.handle());
    std::optional<typename Outlet::Loan> loan;
    turn.run(
        deadline, nullptr, [&] { return outlet.has_room(nbytes); },
        [&](const Wait& wait) { return store(outlet.loan(nbytes, wait), loan); });
    fill(loan->bytes().data());
    outlet.commit(*loan, format, turn, deadline);
}

template <typename Outlet>
void send_encoded(Outlet outlet, const Encoded& message, Deadline deadline) {
    const std::size_t nbytes = message.nbytes();
    if (nbytes <= kShort && Outlet::copies(message)) {
        alignas(64) std::array<std::byte, kShort> scratch;
        message.write(scratch.data());
        send_copy(outlet, {scratch.data(), nbytes}, format_of(message), deadline);
        return;
    }
    send_in_place(outlet, nbytes, format_of(message), deadline,
                  [&](std::byte* place) { write_to(place, message); });
}

template <typename Outlet>
void send_span(Outlet outlet, std::span<const std::byte> message, Deadline deadline) {
    if (message.size() < kLongCopy) {
        send_copy(outlet, message, Format::Bytes, deadline);
    } else {
        send_in_place(outlet, message.size(), Format::Bytes, deadline,
                      [&](std::byte* place) { copy_bytes(place, message.data(), message.size()); });
    }
}

// Runs in a thread of its own, while the event loop goes on. Sends nothing, so that a task
// cancelled at any moment has sent nothing.
template <typename Outlet>
void wait_room(Outlet outlet, std::size_t nbytes, nb::handle timeout, const Cancel& cancel) {
    const Deadline deadline = parse_timeout(timeout);
    Turn turn(outlet.handle());
    turn.run(
        deadline, &cancel, [] { return false; },
        [&](const Wait& wait) { return outlet.wait_room(nbytes, wait); });
}

// A message of an async twin: encoded or pinned once, and tried until there is room.
template <typename Outlet>
class Outgoing {
public:
    using Owner = typename Outlet::Owner;

    explicit Outgoing(Encoded message) : encoded_(std::move(message)) {}
    explicit Outgoing(nb::handle buffer)
        : pinned_(std::make_unique<Pinned>(buffer, Pinned::Access::Read)) {}

    static void bind(nb::module_& module, const char* name, nb::class_<Owner>& owner) {
        nb::class_<Outgoing>(module, name)
            .def("try_send", &Outgoing::try_send)
            .def("wait_for_room", &Outgoing::wait_for_room, nb::arg("owner"),
                 nb::arg("timeout").none(), nb::arg("cancel"));
        owner
            .def(
                "_encode",
                [](Owner& own, nb::handle value) { return Outgoing(encode(value, own.codec)); },
                nb::arg("obj").none())
            .def(
                "_pin", [](Owner&, nb::handle buffer) { return Outgoing(buffer); },
                nb::arg("data").none());
    }

private:
    void try_send(Owner& owner) const {
        if (encoded_) {
            send_encoded(Outlet(owner), *encoded_, Deadline::now());
        } else {
            send_span(Outlet(owner), pinned_->bytes(), Deadline::now());
        }
    }
    void wait_for_room(Owner& owner, nb::handle timeout, const Cancel& cancel) const {
        wait_room(Outlet(owner), encoded_ ? encoded_->nbytes() : pinned_->bytes().size(), timeout,
                  cancel);
    }

    std::optional<Encoded> encoded_;
    std::unique_ptr<Pinned> pinned_;
};

}  // namespace penstock::py

// A participant of a Queue as a Python object, behind penstock/queue.py. Needs the GIL.
#pragma once

#include <memory>
#include <string>

#include "codec.hpp"
#include "outgoing.hpp"
#include "penstock/queue.hpp"
#include "side.hpp"

namespace penstock::py {

using SharedQueue = Shared<Queue>;
using QueueSide = Side<Queue>;

// Members are constant except the sides, which a forked child replaces by its own.
class PyQueue {
public:
    PyQueue(Queue attached, QueueRole role, Codec values, std::uint64_t application,
            const Trust& trust);

    // In a forked child the first use attaches to the queue anew.
    QueueSide& putting() { return live().putting; }
    QueueSide& taking() { return live().taking; }
    void close();
    [[nodiscard]] bool is_closed() const noexcept { return sides_->taking.is_closed(); }
    [[nodiscard]] bool is_foreign() const noexcept { return sides_->taking.is_foreign(); }

    const Codec codec;
    const QueueRole role;
    const std::uint64_t application;
    const Trust trust;
    const std::string name;
    const std::string instance;

private:
    struct Sides {
        explicit Sides(const std::shared_ptr<SharedQueue>& shared, const std::string& name)
            : putting("queue '" + name + "'", shared, detail::Awaited::Room),
              taking("queue '" + name + "'", shared, detail::Awaited::Message) {}
        QueueSide putting;
        QueueSide taking;
    };
    Sides& live();

    std::unique_ptr<Sides> sides_;
};

// See outgoing.hpp.
struct QueueOutlet {
    using Owner = PyQueue;
    using Loan = QueueLoan;

    explicit QueueOutlet(PyQueue& owner) : side(owner.putting()) {}
    [[nodiscard]] Handle& handle() const { return side; }
    [[nodiscard]] bool has_room(std::size_t /*nbytes*/) const { return side.target().has_room(); }
    static bool copies(const Encoded& /*message*/) { return true; }
    Status send(std::span<const std::byte> message, Format format, const Wait& wait) const {
        return side.target().put(message, wait, format);
    }
    [[nodiscard]] Result<Loan> loan(std::size_t nbytes, const Wait& wait) const {
        return side.target().loan(nbytes, wait);
    }
    void commit(Loan& loan, Format format, Turn& turn, Deadline deadline) const {
        turn.run(
            deadline, nullptr, [this] { return side.target().has_room(); },
            [&](const Wait& wait) { return loan.commit(format, wait); });
    }
    [[nodiscard]] Status wait_room(std::size_t nbytes, const Wait& wait) const {
        return side.target().wait_room(nbytes, wait);
    }

    QueueSide& side;
};

// "creator" or "last_producer"; InvalidArgument otherwise.
EndsWith parse_ends_with(nb::handle given);

// Whether this handle's codec reads that message; and the exception if it does not.
bool may_read(const PyQueue& queue, const Delivery& delivery) noexcept;
[[noreturn]] void refuse_pickle(const QueueSide& side);

void bind_queue_batch(nb::module_& module);
void bind_queue_put_many(nb::module_& module);
nb::object make_batch(nb::handle_t<PyQueue> queue, nb::handle max_items, nb::handle min_items,
                      nb::handle timeout);
nb::object make_queue_view(nb::handle_t<PyQueue> queue, nb::handle timeout);
void bind_queue(nb::module_& module);

}  // namespace penstock::py

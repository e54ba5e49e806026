// A participant of a Queue as a Python object; penstock/queue.py is its face.
// Everything here needs the GIL.
#pragma once

#include <memory>
#include <string>

#include "codec.hpp"
#include "penstock/queue.hpp"
#include "side.hpp"

namespace penstock::py {

using SharedQueue = Shared<Queue>;
using QueueSide = Side<Queue>;

// Members are constant but for the sides, which a forked child replaces by its own.
class PyQueue {
public:
    PyQueue(Queue attached, QueueRole role, Codec values, std::uint64_t application,
            const Trust& trust);

    // In a forked child the queue is attached to anew at the first use.
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

// "creator" or "last_producer"; InvalidArgument otherwise.
EndsWith parse_ends_with(nb::handle given);

// Whether this handle's codec reads that message; and what is raised if it does not.
bool may_read(const PyQueue& queue, const Delivery& delivery) noexcept;
[[noreturn]] void refuse_pickle(const QueueSide& side);

void bind_queue_batch(nb::module_& module);
void bind_queue_put_many(nb::module_& module);
// Messages up to this size are put together on the stack: a copy of nanoseconds, and no block where
// they fit into a cell.
inline constexpr std::size_t kShort = 2048;
void put_encoded(QueueSide& side, const Encoded& message, Deadline deadline);
[[nodiscard]] Format format_of(const Encoded& message) noexcept;
nb::object make_batch(nb::handle_t<PyQueue> queue, nb::handle max_items, nb::handle min_items,
                      nb::handle timeout);
nb::object make_queue_view(nb::handle_t<PyQueue> queue, nb::handle timeout);
void bind_queue(nb::module_& module);

}  // namespace penstock::py

// penstock._core._PutMany: many values in one turn with the queue and one notification of sleeping
// consumers, where single puts have one each.
#include <array>
#include <span>

#include "arguments.hpp"
#include "queue.hpp"

namespace penstock::py {
namespace {

// Short messages collected for one put, in the order in which they were added.
class Gathered {
public:
    // False: it has no room for one more, or the message has another format.
    [[nodiscard]] bool has_room(std::size_t nbytes, Format format) const noexcept {
        return count_ == 0 || (count_ < kMost && format == format_ && nbytes <= kBytes - used_);
    }
    void add(const Encoded& message) noexcept {
        format_ = format_of(message);
        message.write(memory_.data() + used_);
        messages_[count_++] = {memory_.data() + used_, message.nbytes()};
        used_ += (message.nbytes() + kAlignment - 1) / kAlignment * kAlignment;
    }
    // Puts them, in one turn. `accepted` counts what was put, even if this raises.
    void put(QueueSide& side, Deadline deadline, std::size_t& accepted) {
        std::span<const std::span<const std::byte>> rest(messages_.data(), count_);
        count_ = used_ = 0;
        if (rest.empty()) {
            return;
        }
        Turn turn(side);
        turn.run(
            deadline, nullptr, [&] { return side.target().has_room(); },
            [&](const Wait& wait) { return put_all(side.target(), rest, wait, accepted); });
    }

private:
    static constexpr std::size_t kMost = 64;
    static constexpr std::size_t kBytes = 32 * 1024;
    static constexpr std::size_t kAlignment = 64;  // alignment of messages, which writing needs
    static_assert(kShort <= kBytes);

    // Leaves in `rest` what was not put.
    Status put_all(Queue& queue, std::span<const std::span<const std::byte>>& rest,
                   const Wait& wait, std::size_t& accepted) const noexcept {
        while (!rest.empty()) {
            const Result<std::size_t> put = queue.put_many(rest, wait, format_);
            if (!put) {
                return put.status();
            }
            accepted += *put;
            rest = rest.subspan(*put);
        }
        return Status::ok();
    }

    alignas(kAlignment) std::array<std::byte, kBytes> memory_;
    std::array<std::span<const std::byte>, kMost> messages_;
    std::size_t count_ = 0;
    std::size_t used_ = 0;
    Format format_ = Format::Typed;
};

// One call of put_many(), which also tells its caller how many were accepted.
class PutMany {
public:
    void put(PyQueue& queue, nb::handle values, nb::handle timeout) {
        const Deadline deadline = parse_timeout(timeout);
        // Pickling runs code, which may use the queue: it must find the earlier values there.
        const bool is_plain = queue.codec == Codec::Typed &&
                              (PyList_CheckExact(values.ptr()) || PyTuple_CheckExact(values.ptr()));
        if (is_plain) {
            put_sequence(queue, values, deadline);
        } else {
            put_each(queue, values, deadline);
        }
    }

    std::size_t accepted = 0;

private:
    static constexpr std::size_t kBreathe = 64;  // values

    // An iterator's next value may depend on what was put before.
    void put_each(PyQueue& queue, nb::handle values, Deadline deadline) {
        for (nb::handle value : nb::iter(values)) {
            send_encoded(QueueOutlet(queue), encode(value, queue.codec), deadline);
            if (++accepted % kBreathe == 0) breathe();
        }
    }

    void put_sequence(PyQueue& queue, nb::handle values, Deadline deadline) {
        Gathered gathered;
        try {
            // A list may change while other threads run: each access reads its size and items anew.
            for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(values.ptr()); ++i) {
                const nb::object value = nb::borrow(PySequence_Fast_GET_ITEM(values.ptr(), i));
                put_one(queue, encode(value, queue.codec), deadline, gathered);
            }
        } catch (const nb::python_error& error) {
            put_before(error, queue, deadline, gathered);
            throw;
        }
        gathered.put(queue.putting(), deadline, accepted);
    }

    // Puts the values before the one that failed. Ctrl-C does not wait for room, and lack of room
    // does not replace Ctrl-C.
    void put_before(const nb::python_error& failure, PyQueue& queue, Deadline deadline,
                    Gathered& gathered) {
        if (failure.matches(PyExc_Exception)) {
            gathered.put(queue.putting(), deadline, accepted);
            return;
        }
        try {
            gathered.put(queue.putting(), Deadline::now(), accepted);
        } catch (const nb::python_error&) {  // `accepted` says how many were put
        }
    }

    void put_one(PyQueue& queue, const Encoded& message, Deadline deadline, Gathered& gathered) {
        const bool is_short = message.nbytes() <= kShort;
        if (!is_short || !gathered.has_room(message.nbytes(), format_of(message))) {
            gathered.put(queue.putting(), deadline, accepted);
            breathe();
        }
        if (is_short) {
            gathered.add(message);
        } else {
            send_encoded(QueueOutlet(queue), message, deadline);
            ++accepted;
        }
    }

    // As between two calls of put(): signals are handled, and other threads run.
    static void breathe() {
        if (PyErr_CheckSignals() != 0) {
            throw nb::python_error();
        }
        const WithoutGil without_gil;
    }
};

}  // namespace

void bind_queue_put_many(nb::module_& module) {
    nb::class_<PutMany>(module, "_PutMany")
        .def(nb::init<>())
        .def("put", &PutMany::put, nb::arg("queue"), nb::arg("objs").none(),
             nb::arg("timeout").none())
        .def_ro("accepted", &PutMany::accepted);
}

}  // namespace penstock::py

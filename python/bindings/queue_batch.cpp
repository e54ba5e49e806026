// penstock._core.Batch: `with queue.get_many() as batch`, messages read where they lie. They are
// acknowledged when the block ends in good order; arrays that outlive it keep their memory, and
// what an exception leaves behind is given back when the last of its arrays is gone.
#include <optional>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "queue.hpp"

namespace penstock::py {
namespace {

// Owns one delivery, as an object that arrays can keep alive. Its buffer is the message.
struct QueueLease {
    Delivery delivery;

    static int get_buffer(PyObject* self, Py_buffer* view, int flags) noexcept {
        const auto bytes = nb::inst_ptr<QueueLease>(self)->delivery.bytes();
        return PyBuffer_FillInfo(view, self, const_cast<std::byte*>(bytes.data()),
                                 static_cast<Py_ssize_t>(bytes.size()), /*readonly=*/1, flags);
    }
};

nb::object view_of(const nb::object& lease, Codec codec) {
    const Delivery& delivery = nb::inst_ptr<QueueLease>(lease)->delivery;
    if (delivery.format() == Format::Bytes) {
        nb::object view = nb::steal(PyMemoryView_FromObject(lease.ptr()));
        if (!view.is_valid()) {
            throw nb::python_error();
        }
        return view;
    }
    return decode(delivery.bytes().data(), delivery.bytes().size(), lease, codec);
}

class BatchBlock {
public:
    BatchBlock(nb::handle_t<PyQueue> queue, std::size_t least, std::size_t most, bool is_single,
               Deadline deadline)
        : queue_(nb::borrow(queue)), least_(least), most_(most), is_single_(is_single),
          deadline_(deadline) {}

    nb::object enter() {
        if (!queue_.is_valid()) {
            raise_error(ErrorCode::Busy, "a batch can be entered once; ask for another one");
        }
        const nb::object owner = std::move(queue_);
        auto& queue = *nb::inst_ptr<PyQueue>(owner);
        std::vector<Delivery> deliveries = take(queue);
        for (Delivery& delivery : deliveries) {
            leases_.push_back(nb::cast(QueueLease{std::move(delivery)}));
            values_.append(view_of(leases_.back(), queue.codec));
        }
        return is_single_ ? nb::object(values_[0]) : nb::object(values_);
    }

    void exit(bool failed) {
        const std::vector<nb::object> leases = std::move(leases_);
        if (!failed) {
            for (const nb::object& lease : leases) {
                nb::inst_ptr<QueueLease>(lease)->delivery.settle();
            }
        }
        // Whoever still has the list has no messages any more: only arrays kept by name stay.
        if (PyList_SetSlice(values_.ptr(), 0, PyList_GET_SIZE(values_.ptr()), nullptr) != 0) {
            throw nb::python_error();
        }
    }

    // As if it had never been entered: each message is where it was, and counts no delivery.
    void untake() {
        const std::vector<nb::object> leases = std::move(leases_);
        PyList_SetSlice(values_.ptr(), 0, PyList_GET_SIZE(values_.ptr()), nullptr);
        for (const nb::object& lease : leases) {
            nb::inst_ptr<QueueLease>(lease)->delivery.untake();
        }
    }

private:
    std::vector<Delivery> take(PyQueue& queue) const {
        QueueSide& side = queue.taking();
        std::vector<Delivery> taken;
        try {
            Turn turn(side);
            turn.run(
                deadline_, nullptr, [&] { return side.target().is_ready(least_); },
                [&](const Wait& wait) {
                    return side.target().take_many(taken, most_, wait, least_);
                });
            leave_unreadable(queue, taken);
        } catch (...) {
            untake_from(taken, 0);
            throw;
        }
        return taken;
    }

    // What this codec may not read stays in the queue, and with it all that came behind it.
    void leave_unreadable(PyQueue& queue, std::vector<Delivery>& taken) const {
        std::size_t readable = 0;
        while (readable < taken.size() && may_read(queue, taken[readable])) {
            ++readable;
        }
        if (readable < least_ && readable < taken.size()) {
            taken[readable].refuse();
            refuse_pickle(queue.taking());
        }
        untake_from(taken, readable);
    }

    static void untake_from(std::vector<Delivery>& taken, std::size_t first) noexcept {
        while (taken.size() > first) {
            taken.back().untake();
            taken.pop_back();
        }
    }

    nb::object queue_;
    std::size_t least_;
    std::size_t most_;
    bool is_single_;
    Deadline deadline_;
    std::vector<nb::object> leases_;
    nb::list values_;
};

nb::object make_block(nb::handle_t<PyQueue> queue, std::size_t least, std::size_t most,
                      bool is_single, nb::handle timeout) {
    nb::inst_ptr<PyQueue>(queue)->taking().check_usable();
    auto* const block = new BatchBlock(queue, least, most, is_single, parse_timeout(timeout));
    return nb::cast(block, nb::rv_policy::take_ownership);
}

}  // namespace

nb::object make_batch(nb::handle_t<PyQueue> queue, nb::handle max_items, nb::handle min_items,
                      nb::handle timeout) {
    const std::size_t most = parse_small(max_items, "max_items");
    const std::size_t least = parse_small(min_items, "min_items");
    if (most == 0 || least == 0 || least > most) {
        raise_error(ErrorCode::InvalidArgument, "a batch has 1 <= min_items <= max_items, not " +
                                                    std::to_string(least) + " and " +
                                                    std::to_string(most));
    }
    return make_block(queue, least, most, false, timeout);
}

nb::object make_queue_view(nb::handle_t<PyQueue> queue, nb::handle timeout) {
    return make_block(queue, 1, 1, true, timeout);
}

void bind_queue_batch(nb::module_& module) {
    static PyType_Slot slots[] = {
        {Py_bf_getbuffer, reinterpret_cast<void*>(&QueueLease::get_buffer)},
        {0, nullptr},
    };
    nb::class_<QueueLease>(module, "_QueueLease", nb::type_slots(slots));

    nb::class_<BatchBlock>(module, "Batch",
                           "Messages of a queue, read where they lie; made by "
                           "``Queue.get_many()`` and ``get_view()``.\n\n"
                           "Can be entered once. Acknowledged at the end of the block, given back "
                           "on an exception.")
        .def("__enter__", &BatchBlock::enter)
        .def("_untake", &BatchBlock::untake)
        .def(
            "__exit__",
            [](BatchBlock& block, nb::handle type, nb::handle, nb::handle) {
                block.exit(!type.is_none());
            },
            nb::arg("type").none(), nb::arg("value").none(), nb::arg("traceback").none());
}

}  // namespace penstock::py

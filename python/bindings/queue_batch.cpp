// penstock._core.Batch: `with queue.get_many() as batch`, messages read in place. They are
// acknowledged when the block ends normally, and nacked when it raises. Short messages are copied
// out first, so that arrays that outlive the block hold nothing; arrays of a longer message hold
// its memory, and after an exception the message itself, until the last of them is gone.
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "context.hpp"
#include "queue.hpp"
#include "received.hpp"

namespace penstock::py {
namespace {

// Up to this size a copy costs less than an array that a variable keeps: even the variable of the
// `with` itself would delay the redelivery of a failed message.
constexpr std::size_t kCopied = 8192;
constexpr std::align_val_t kAlignment{64};  // alignment of a delivery's bytes, which decoding needs

struct FreeAligned {
    void operator()(std::byte* bytes) const noexcept { ::operator delete(bytes, kAlignment); }
};

// Owns one delivery, as an object that arrays can keep alive. Its buffer is the message.
class QueueLease {
public:
    explicit QueueLease(Delivery taken) : delivery_(std::move(taken)), bytes_(delivery_.bytes()) {
        if (bytes_.size() <= kCopied) {
            copy_.reset(static_cast<std::byte*>(::operator new(bytes_.size(), kAlignment)));
            std::memcpy(copy_.get(), bytes_.data(), bytes_.size());
            bytes_ = {copy_.get(), bytes_.size()};
        }
    }

    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
    [[nodiscard]] Format format() const noexcept { return delivery_.format(); }
    [[nodiscard]] Status check_held() const noexcept { return delivery_.check_held(); }

    void acknowledge() noexcept {
        if (copy_ != nullptr) {
            delivery_.ack();
        } else {
            delivery_.settle();
        }
    }

    // Nacks at once if the arrays refer to a copy, otherwise when the last array is gone.
    void nack() noexcept {
        if (copy_ != nullptr) {
            delivery_.nack();
        }
    }

    void untake() noexcept { delivery_.untake(); }

private:
    Delivery delivery_;
    std::unique_ptr<std::byte, FreeAligned> copy_;  // of a short message
    std::span<const std::byte> bytes_;
};

// The value of a short message without arrays, which refers to no memory of the queue. Null for
// other messages.
nb::object copied_value_of(const Delivery& delivery, Codec codec) {
    const auto bytes = delivery.bytes();
    if (bytes.size() > kCopied) {
        return {};
    }
    if (delivery.format() == Format::Bytes) {
        return memory_view_of(copy_of({bytes, Format::Bytes}, codec));
    }
    return decode_plain(bytes, codec);
}

class BatchBlock {
public:
    BatchBlock(nb::handle_t<PyQueue> queue, std::size_t least, std::size_t most, bool is_single,
               Deadline deadline)
        : queue_(nb::borrow(queue)), least_(least), most_(most), is_single_(is_single),
          deadline_(deadline) {}
    BatchBlock(const BatchBlock&) = delete;
    BatchBlock& operator=(const BatchBlock&) = delete;

    nb::object enter() {
        if (!queue_.is_valid()) {
            raise_error(ErrorCode::Busy, "a batch can be entered once; ask for another one");
        }
        const nb::object owner = std::move(queue_);
        auto& queue = *nb::inst_ptr<PyQueue>(owner);
        std::vector<Delivery> deliveries = take(queue);
        copied_.reserve(deliveries.size());
        for (Delivery& delivery : deliveries) {
            nb::object value = copied_value_of(delivery, queue.codec);
            if (value.is_valid()) {
                copied_.push_back(std::move(delivery));
            } else {
                leases_.push_back(nb::cast(QueueLease(std::move(delivery))));
                const auto& lease = *nb::inst_ptr<QueueLease>(leases_.back());
                value = view_of({lease.bytes(), lease.format()}, leases_.back(), queue.codec);
            }
            values_.append(value);
        }
        return is_single_ ? nb::object(values_[0]) : nb::object(values_);
    }

    void exit(bool failed) {
        std::vector<Delivery> copied = std::move(copied_);
        const std::vector<nb::object> leases = std::move(leases_);
        Status held;
        for (Delivery& delivery : copied) {
            if (!failed && held) {
                held = delivery.check_held();
            }
            failed ? delivery.nack() : delivery.ack();
        }
        for (const nb::object& lease : leases) {
            auto& message = *nb::inst_ptr<QueueLease>(lease);
            if (!failed && held) {
                held = message.check_held();
            }
            failed ? message.nack() : message.acknowledge();
        }
        // Empties the list, so that a reference to it keeps no arrays.
        if (PyList_SetSlice(values_.ptr(), 0, PyList_GET_SIZE(values_.ptr()), nullptr) != 0) {
            throw nb::python_error();
        }
        check(held);
    }

    // Undoes enter(): messages keep their order, and no delivery is counted.
    void untake() {
        untake_from(copied_, 0);
        const std::vector<nb::object> leases = std::move(leases_);
        PyList_SetSlice(values_.ptr(), 0, PyList_GET_SIZE(values_.ptr()), nullptr);
        for (const nb::object& lease : leases) {
            nb::inst_ptr<QueueLease>(lease)->untake();
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

    // A message that this codec may not read stays in the queue, with all messages after it.
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
    std::vector<Delivery> copied_;    // their values refer to no memory of the queue
    std::vector<nb::object> leases_;  // of the other messages
    nb::list values_;
};

nb::object make_block(nb::handle_t<PyQueue> queue, std::size_t least, std::size_t most,
                      bool is_single, nb::handle timeout) {
    nb::inst_ptr<PyQueue>(queue)->taking().check_usable();
    return make_object<BatchBlock>(queue, least, most, is_single, parse_timeout(timeout));
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
    bind_exporter<QueueLease>(module, "_QueueLease");

    bind_block<BatchBlock>(module, "Batch",
                           "Messages of a queue, read in place; made by "
                           "``Queue.get_many()`` and ``get_view()``.\n\n"
                           "Can be entered once. Acknowledged at the end of the block, nacked "
                           "on an exception.")
        .def("_untake", &BatchBlock::untake);
}

}  // namespace penstock::py

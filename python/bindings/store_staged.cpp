// penstock._core.StoreStaged: a reservation that Python fills through a buffer, an array or a
// tensor. commit() and abort() do not depend on references to the memory, which from then on show a
// private copy. Destruction without a commit discards the object.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "codec_numpy.hpp"
#include "codec_torch.hpp"
#include "errors.hpp"
#include "os/fork.hpp"
#include "paged_planes.hpp"
#include "room_memory.hpp"
#include "store_view.hpp"
#include "wait.hpp"

namespace penstock::py {
namespace {

struct StoreStaged;

// Open reservations whose memory may be the store's own. Guarded by the GIL.
std::vector<StoreStaged*> open_rooms;

struct StoreStaged {
    StoreStaged(StoreReservation room, std::size_t asked_alignment, bool asked_in_place)
        : reservation(std::move(room)), alignment(asked_alignment), in_place(asked_in_place),
          nbytes(reservation->bytes().size()), ref(reservation->ref()) {}
    StoreStaged(const StoreStaged&) = delete;
    StoreStaged& operator=(const StoreStaged&) = delete;
    ~StoreStaged() { std::erase(open_rooms, this); }

    std::optional<StoreReservation> reservation;
    std::optional<StoreObject> object;  // after the commit, while `memory` shows it
    RoomMemory memory;                  // made at the first use
    std::size_t alignment;
    bool in_place;
    std::size_t nbytes;
    StoreRef ref;
    std::uint64_t fork_generation = os::fork_generation();
    bool is_written = false;  // a thread in gather() has the reservation
    bool is_aborted = false;  // by another thread during gather()
    // References that still exist: buffers, and arrays over the memory.
    Py_ssize_t exports = 0;

    [[nodiscard]] bool is_open() const { return reservation && reservation->is_open(); }
    [[nodiscard]] std::uint64_t offset() const {
        check_process();
        if (!is_open()) {
            raise_error(ErrorCode::Expired,
                        "the reservation is over: committed, or aborted, before");
        }
        return reservation->offset();
    }
    [[nodiscard]] bool is_foreign() const { return fork_generation != os::fork_generation(); }

    std::byte* data() {
        if (!memory.is_made()) {
            if (!is_open()) {
                raise_error(ErrorCode::Expired, "this reservation is over, and had no memory");
            }
            check_process();
            memory = RoomMemory(*reservation, alignment, in_place);
            open_rooms.push_back(this);
        }
        return memory.data();
    }

    // Moves the reservation out, so that other threads, which may run meanwhile, find it ended.
    StoreReservation take_room() {
        check_process();
        if (is_written) {
            raise_error(ErrorCode::Busy, "another thread is just copying into this reservation");
        }
        if (!reservation) {
            raise_error(ErrorCode::Expired,
                        "the reservation is over: committed, or aborted, before");
        }
        StoreReservation own = *std::move(reservation);
        reservation.reset();
        std::erase(open_rooms, this);
        return own;
    }

    void commit(nb::handle timeout) {
        const Deadline deadline = parse_timeout(timeout);
        StoreReservation own = take_room();
        if (memory.is_made()) {
            memory.cut_off(own);
        }
        if (!memory.shows_object()) {
            return py::commit(own, deadline);
        }
        try {
            py::commit(own, object, deadline);
        } catch (...) {
            if (!object) {
                memory.forget_object();
            }
            throw;
        }
    }

    // Gathers straight into the object's memory, without a window or a copy, unless Python already
    // has memory of this room. Releases the GIL; an abort by another thread takes effect at the
    // end.
    void gather(const PagedPlanes& planes, nb::handle given) {
        const std::vector<std::int64_t> blocks = planes.parse_blocks(given, nbytes);
        if (memory.is_made()) {
            return planes.gather(blocks, data());
        }
        StoreReservation own = take_room();
        is_written = true;
        {
            const WithoutGil without_gil;
            planes.gather(blocks, own.bytes().data());
        }
        is_written = false;
        if (is_aborted) {
            raise_error(ErrorCode::Expired, "the reservation was aborted while it was written");
        }
        reservation.emplace(std::move(own));
    }

    void abort() {
        is_aborted = is_written;
        if (!reservation || is_foreign()) {
            return;
        }
        StoreReservation own = take_room();
        memory.drop(own);
    }

    static int get_buffer(PyObject* self, Py_buffer* view, int flags) noexcept {
        auto* const staged = nb::inst_ptr<StoreStaged>(self);
        std::byte* data = nullptr;
        try {
            data = staged->data();
        } catch (nb::python_error& error) {
            error.restore();
        } catch (const std::bad_alloc&) {
            PyErr_NoMemory();
        }
        if (data == nullptr) {
            view->obj = nullptr;
            return -1;
        }
        const int readonly = staged->is_open() ? 0 : 1;
        if (PyBuffer_FillInfo(view, self, data, static_cast<Py_ssize_t>(staged->nbytes), readonly,
                              flags) != 0) {
            return -1;
        }
        ++staged->exports;
        return 0;
    }
    static void release_buffer(PyObject* self, Py_buffer* /*view*/) noexcept {
        --nb::inst_ptr<StoreStaged>(self)->exports;
    }

private:
    void check_process() const {
        if (is_foreign()) {
            raise_error(
                ErrorCode::WrongProcess,
                "this reservation belongs to the parent of this process: reserve anew here");
        }
    }
};

// Owner of an array or a tensor over the memory: counts it in `exports` until the last array made
// of it is gone.
class RoomShare {
public:
    explicit RoomShare(nb::object staged) : staged_(std::move(staged)) { ++counter(); }
    RoomShare(RoomShare&& other) noexcept = default;
    RoomShare& operator=(RoomShare&&) = delete;
    ~RoomShare() {
        if (staged_.is_valid()) {
            --counter();
        }
    }

private:
    [[nodiscard]] Py_ssize_t& counter() const {
        return nb::inst_ptr<StoreStaged>(staged_)->exports;
    }
    nb::object staged_;
};

codec::TensorView view_of(StoreStaged& staged, codec::DType dtype,
                          const std::vector<std::int64_t>& shape) {
    codec::TensorView view;
    view.dtype = dtype;
    view.source = codec::Source::Torch;
    view.ndim = static_cast<std::uint8_t>(shape.size());
    std::copy(shape.begin(), shape.end(), view.dims.begin());
    view.data = {staged.data(), staged.nbytes};
    return view;
}

nb::object make_array(nb::handle_t<StoreStaged> staged, nb::handle dtype,
                      const std::vector<std::int64_t>& shape) {
    auto& memory = *nb::inst_ptr<StoreStaged>(staged);
    const codec::TensorView view = view_of(memory, codec::DType::Described, shape);
    return room_array(view, dtype, nb::cast(RoomShare(nb::borrow(staged))));
}

nb::object make_tensor(nb::handle_t<StoreStaged> staged, const std::string& dtype,
                       const std::vector<std::int64_t>& shape) {
    auto& memory = *nb::inst_ptr<StoreStaged>(staged);
    const codec::TensorView view = view_of(memory, codec::dtype_named(dtype), shape);
    nb::object tensor = decode_tensor(view, nb::cast(RoomShare(nb::borrow(staged))));
    if (!tensor.is_valid()) {
        raise_error(ErrorCode::Incompatible, "a tensor was asked for, and there is no PyTorch");
    }
    return tensor;
}

// Gives the room's tensor a new storage over the same memory, so that the first storage is
// destroyed unless other tensors use it. False: PyTorch refuses, because the tensor is part of an
// autograd graph.
bool settle_tensor(nb::handle_t<StoreStaged> staged, nb::handle tensor) {
    auto& memory = *nb::inst_ptr<StoreStaged>(staged);
    const std::vector<std::int64_t> flat{static_cast<std::int64_t>(memory.nbytes)};
    try {
        const nb::object bytes = decode_tensor(view_of(memory, codec::DType::UInt8, flat), staged);
        tensor.attr("set_")(bytes.attr("untyped_storage")(), tensor.attr("storage_offset")(),
                            tensor.attr("size")(), tensor.attr("stride")());
    } catch (const nb::python_error&) {
        return false;
    }
    return true;
}

// Makes the room's own array read-only; a tensor stays writable. True: other references to the
// memory were found.
bool settle(nb::handle_t<StoreStaged> staged, nb::handle room) {
    bool is_share = false;
    if (is_ndarray(room)) {
        settle_room_array(room, nb::borrow(staged));
    } else if (!room.is_none()) {
        is_share = !settle_tensor(staged, room);
    }
    return nb::inst_ptr<StoreStaged>(staged)->exports > (is_share ? 1 : 0);
}

void resize(StoreStaged& staged, nb::handle wanted) {
    const std::uint64_t nbytes = parse_bytes(wanted, "nbytes");
    if (staged.memory.is_made()) {
        raise_error(ErrorCode::Busy, "the reservation's memory is in use; resize it before");
    }
    if (!staged.is_open()) {
        raise_error(ErrorCode::Expired, "the reservation is over");
    }
    check(staged.reservation->resize(nbytes));
    staged.nbytes = nbytes;
}

}  // namespace

void commit(StoreReservation& room, Deadline deadline) {
    if (!room.is_tiered()) {
        return check(room.commit());
    }
    std::optional<StoreObject> unwanted;
    commit(room, unwanted, deadline);
}

void commit(StoreReservation& room, std::optional<StoreObject>& pinned, Deadline deadline) {
    if (!room.is_tiered()) {
        return check(room.commit(pinned));
    }
    // `pinned` is set under the GIL, because other threads may read it meanwhile.
    std::optional<StoreObject> own;
    Waiting waiting(deadline);
    const Status outcome = room.commit(own, waiting.wait());
    waiting.reacquire();
    pinned = std::move(own);
    waiting.finish(outcome);
}

nb::object make_store_staged(StoreReservation room, std::size_t alignment, bool in_place) {
    auto* const staged = new StoreStaged(std::move(room), alignment, in_place);
    return nb::cast(staged, nb::rv_policy::take_ownership);
}

bool cut_off_open_rooms() noexcept {
    const bool are_taken = std::ranges::all_of(open_rooms, [](StoreStaged* staged) {
        return staged->is_foreign() || staged->memory.take_away();
    });
    return are_taken && !RoomMemory::is_any_kept();
}

void bind_store_staged(nb::module_& module) {
    static PyType_Slot slots[] = {
        {Py_bf_getbuffer, reinterpret_cast<void*>(&StoreStaged::get_buffer)},
        {Py_bf_releasebuffer, reinterpret_cast<void*>(&StoreStaged::release_buffer)},
        {0, nullptr},
    };
    nb::class_<RoomShare>(module, "_RoomShare");
    nb::class_<StoreStaged>(module, "StoreStaged", nb::type_slots(slots))
        .def_ro("nbytes", &StoreStaged::nbytes)
        .def_prop_ro("ref",
                     [](const StoreStaged& staged) {
                         return nb::make_tuple(staged.ref.entry, staged.ref.incarnation);
                     })
        .def_prop_ro("offset", &StoreStaged::offset)
        .def("array", &make_array, nb::arg("dtype"), nb::arg("shape"))
        .def("tensor", &make_tensor, nb::arg("dtype"), nb::arg("shape"))
        .def("gather", &StoreStaged::gather, nb::arg("planes"), nb::arg("blocks"))
        .def("settle", &settle, nb::arg("room").none())
        .def("commit", &StoreStaged::commit, nb::arg("timeout").none() = nb::none())
        .def("abort", &StoreStaged::abort)
        .def("resize", &resize, nb::arg("nbytes").none());
}

}  // namespace penstock::py

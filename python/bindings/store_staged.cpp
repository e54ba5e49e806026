// penstock._core.StoreStaged: a reservation as memory that Python fills in. While it is open it can
// be written; committed it can be read, and holds a pin for as long as anything refers to it.
// Dropped before, its object was never there, and the room is free.
#include <nanobind/stl/optional.h>

#include <optional>
#include <utility>
#include <variant>

#include "errors.hpp"
#include "store_view.hpp"
#include "wait.hpp"

namespace penstock::py {
namespace {

struct StoreStaged {
    explicit StoreStaged(StoreRoom room) : reservation(std::move(room)) {}

    std::optional<StoreRoom> reservation;
    std::optional<StoreObject> object;  // once it is committed
    Py_ssize_t exports = 0;

    [[nodiscard]] bool is_open() const { return reservation && reservation->is_open(); }
    [[nodiscard]] std::span<std::byte> bytes() const {
        if (is_open()) {
            return reservation->bytes();
        }
        if (!object) {
            raise_error(ErrorCode::Expired, "this reservation is over, and was not committed");
        }
        return {const_cast<std::byte*>(object->bytes().data()), object->bytes().size()};
    }

    // Arrays that refer to this object without an export must be read-only by now.
    void commit() {
        if (exports > 0) {
            raise_error(ErrorCode::Busy,
                        "something that was made of the reservation still refers to its memory "
                        "(a tensor, a memoryview, an array): delete it inside the block. Nothing "
                        "was committed, and the room is free when it is gone");
        }
        if (!reservation) {
            raise_error(ErrorCode::Expired, "the reservation is over");
        }
        // Other threads may run meanwhile, and find neither.
        StoreRoom own = *std::exchange(reservation, std::nullopt);
        own.commit(object);
    }

    static int get_buffer(PyObject* self, Py_buffer* view, int flags) noexcept {
        auto* const staged = nb::inst_ptr<StoreStaged>(self);
        std::span<std::byte> bytes;
        try {
            bytes = staged->bytes();
        } catch (nb::python_error& error) {
            error.restore();
            view->obj = nullptr;
            return -1;
        }
        const int readonly = staged->is_open() ? 0 : 1;
        if (PyBuffer_FillInfo(view, self, bytes.data(), static_cast<Py_ssize_t>(bytes.size()),
                              readonly, flags) != 0) {
            return -1;
        }
        ++staged->exports;
        return 0;
    }
    static void release_buffer(PyObject* self, Py_buffer* /*view*/) noexcept {
        --nb::inst_ptr<StoreStaged>(self)->exports;
    }
};

void resize(StoreStaged& staged, std::uint64_t nbytes) {
    if (staged.exports > 0) {
        raise_error(ErrorCode::Busy, "the reservation's memory is in use; resize it before");
    }
    if (!staged.is_open()) {
        raise_error(ErrorCode::Expired, "the reservation is over");
    }
    check(staged.reservation->resize(nbytes));
}

}  // namespace

void StoreRoom::commit() {
    if (auto* const staged = std::get_if<StoreReservation>(&staged_)) {
        return check(staged->commit());
    }
    std::optional<StoreObject> unwanted;
    commit(unwanted);
}

void StoreRoom::commit(std::optional<StoreObject>& pinned) {
    if (auto* const staged = std::get_if<StoreReservation>(&staged_)) {
        return check(py::store(staged->commit_pinned(), pinned));
    }
    std::optional<StoreObject> own;  // others may look at theirs while we are without the GIL
    Waiting waiting(Deadline::never());
    const Status outcome = std::get<TieredReservation>(staged_).commit(own, waiting.wait());
    waiting.reacquire();
    pinned = std::move(own);
    waiting.finish(outcome);
}

nb::object make_store_staged(StoreRoom room) {
    auto* const staged = new StoreStaged(std::move(room));
    return nb::cast(staged, nb::rv_policy::take_ownership);
}

void bind_store_staged(nb::module_& module) {
    static PyType_Slot slots[] = {
        {Py_bf_getbuffer, reinterpret_cast<void*>(&StoreStaged::get_buffer)},
        {Py_bf_releasebuffer, reinterpret_cast<void*>(&StoreStaged::release_buffer)},
        {0, nullptr},
    };
    nb::class_<StoreStaged>(module, "StoreStaged", nb::type_slots(slots))
        .def_prop_ro("nbytes", [](const StoreStaged& staged) { return staged.bytes().size(); })
        .def_prop_ro("ref",
                     [](const StoreStaged& staged) {
                         const StoreRef ref = staged.is_open() ? staged.reservation->ref()
                                              : staged.object  ? staged.object->ref()
                                                               : StoreRef{};
                         return nb::make_tuple(ref.entry, ref.incarnation);
                     })
        .def("commit", &StoreStaged::commit)
        .def("resize", &resize, nb::arg("nbytes"));
}

}  // namespace penstock::py

// The type behind new_memory() and borrowed memory. One allocation holds the object and its bytes.
#include "codec_memory.hpp"

#include <cstdint>
#include <cstring>

#include "penstock/codec.hpp"

namespace penstock::py {
namespace {

// Size from which a copy (50 us) usually takes longer than releasing and retaking the GIL.
constexpr std::size_t kLongCopy = std::size_t{512} << 10U;

// Size from which NumPy's allocator is used, which asks the kernel for huge pages. Without them the
// first touch of each 4 KiB page costs more than copying it: 16 MiB took 2.7 ms, not 1.0.
constexpr std::size_t kHuge = std::size_t{4} << 20U;

struct Memory {
    PyVarObject head;
    void* data;
    Py_ssize_t bytes;
    PyObject* owner;  // null: the bytes follow this struct
    int readonly;
};

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
    auto* const memory = reinterpret_cast<Memory*>(self);
    return PyBuffer_FillInfo(view, self, memory->data, memory->bytes, memory->readonly, flags);
}

void deallocate(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    Py_XDECREF(reinterpret_cast<Memory*>(self)->owner);
    type->tp_free(self);
    Py_DECREF(type);
}

PyTypeObject* make_type() {
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, reinterpret_cast<void*>(&deallocate)},
        {Py_bf_getbuffer, reinterpret_cast<void*>(&get_buffer)},
        {Py_tp_doc, const_cast<char*>("Memory of an array that came through Penstock.")},
        {0, nullptr},
    };
    static PyType_Spec spec = {
        .name = "penstock._core.Memory",
        .basicsize = sizeof(Memory),
        .itemsize = 1,
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = slots,
    };
    PyObject* const type = PyType_FromSpec(&spec);
    if (type == nullptr) {
        nb::raise_python_error();
    }
    return reinterpret_cast<PyTypeObject*>(type);
}

// An object followed by `trailing` bytes.
Memory* allocate(std::size_t trailing) {
    static PyTypeObject* const type = make_type();  // lives as long as the interpreter
    Memory* const memory = PyObject_NewVar(Memory, type, static_cast<Py_ssize_t>(trailing));
    if (memory == nullptr) {
        nb::raise_python_error();
    }
    return memory;
}

nb::object over(const std::byte* data, std::size_t bytes, nb::handle owner, bool readonly) {
    Memory* const memory = allocate(0);
    memory->data = const_cast<std::byte*>(data);
    memory->bytes = static_cast<Py_ssize_t>(bytes);
    memory->owner = owner.inc_ref().ptr();
    memory->readonly = readonly ? 1 : 0;
    return nb::steal(reinterpret_cast<PyObject*>(memory));
}

// The first multiple of 64 from `start` on.
std::byte* aligned(void* start) noexcept {
    const auto address = reinterpret_cast<std::uintptr_t>(start);
    return static_cast<std::byte*>(start) +
           (codec::kAlignment - address % codec::kAlignment) % codec::kAlignment;
}

nb::object new_huge_memory(std::size_t bytes, std::byte*& data) {
    const nb::object array =
        nb::module_::import_("numpy").attr("empty")(bytes + codec::kAlignment, "uint8");
    const nb::object view = nb::steal(PyMemoryView_FromObject(array.ptr()));
    if (!view.is_valid()) {
        nb::raise_python_error();
    }
    data = aligned(PyMemoryView_GET_BUFFER(view.ptr())->buf);
    return over(data, bytes, array, false);
}

}  // namespace

nb::object new_memory(std::size_t bytes, std::byte*& data) {
    if (bytes >= kHuge) {
        return new_huge_memory(bytes, data);
    }
    Memory* const memory = allocate(bytes + codec::kAlignment);
    data = aligned(memory + 1);
    memory->data = data;
    memory->bytes = static_cast<Py_ssize_t>(bytes);
    memory->owner = nullptr;
    memory->readonly = 0;
    return nb::steal(reinterpret_cast<PyObject*>(memory));
}

nb::object borrowed_memory(const std::byte* data, std::size_t bytes, nb::handle owner) {
    return over(data, bytes, owner, true);
}

nb::object writable_memory(std::byte* data, std::size_t bytes, nb::handle owner) {
    return over(data, bytes, owner, false);
}

void copy_payload(std::byte* to, const std::byte* from, std::size_t bytes) {
    if (bytes == 0) {
        return;
    }
    if (bytes < kLongCopy) {
        std::memcpy(to, from, bytes);
        return;
    }
    const nb::gil_scoped_release others_may_run;
    std::memcpy(to, from, bytes);
}

}  // namespace penstock::py

// The type behind new_memory() and borrowed memory. Short memory follows its object in one
// allocation; long memory is a block of the process's pool, which its object returns.
#include "codec_memory.hpp"

#include <cstdint>
#include <cstring>

#include "codec/array_pool.hpp"
#include "os/private_memory.hpp"
#include "penstock/codec.hpp"

namespace penstock::py {
namespace {

// Size from which a copy (50 us) usually takes longer than releasing and retaking the GIL.
constexpr std::size_t kLongCopy = std::size_t{512} << 10U;

struct Memory {
    PyVarObject head;
    void* data;
    Py_ssize_t bytes;
    PyObject* owner;   // null: the bytes follow this struct, or are a block
    std::size_t lent;  // size of the pool's block at `data`; 0: it is none
    int readonly;
};

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
    auto* const memory = reinterpret_cast<Memory*>(self);
    return PyBuffer_FillInfo(view, self, memory->data, memory->bytes, memory->readonly, flags);
}

void deallocate(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    auto* const memory = reinterpret_cast<Memory*>(self);
    Py_XDECREF(memory->owner);
    if (memory->lent > 0) {
        codec::array_pool().give_back({static_cast<std::byte*>(memory->data), memory->lent});
    }
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

// An object of `bytes` writable bytes, still without their address, followed by `trailing` bytes.
Memory* allocate(std::size_t bytes, std::size_t trailing) {
    static PyTypeObject* type = nullptr;  // guarded by the GIL; lives as long as the interpreter
    if (type == nullptr) type = make_type();
    Memory* const memory = PyObject_NewVar(Memory, type, static_cast<Py_ssize_t>(trailing));
    if (memory == nullptr) {
        nb::raise_python_error();
    }
    memory->data = nullptr;
    memory->bytes = static_cast<Py_ssize_t>(bytes);
    memory->owner = nullptr;
    memory->lent = 0;
    memory->readonly = 0;
    return memory;
}

nb::object checked(PyObject* made) {
    if (made == nullptr) {
        nb::raise_python_error();
    }
    return nb::steal(made);
}

nb::object as_object(Memory* memory) noexcept {
    return nb::steal(reinterpret_cast<PyObject*>(memory));
}

// The first multiple of 64 from `start` on.
std::byte* aligned(void* start) noexcept {
    const auto address = reinterpret_cast<std::uintptr_t>(start);
    return static_cast<std::byte*>(start) +
           (codec::kAlignment - address % codec::kAlignment) % codec::kAlignment;
}

// Null: the pool has none, perhaps for want of mappings; malloc may have some.
nb::object take_from_pool(std::size_t bytes, std::byte*& data) {
    Memory* const memory = allocate(bytes, 0);
    nb::object object = as_object(memory);
    const codec::ArrayPool::Block block = codec::array_pool().take(bytes);
    if (block.data == nullptr) {
        return {};
    }
    data = block.data;
    memory->data = data;
    memory->lent = block.bytes;
    return object;
}

// Only where glibc's malloc surely maps the bytes for themselves: a flag on a part of its heap
// would stay there.
void prefer_huge_pages_in_own_mapping(std::byte* data, std::size_t size) noexcept {
    constexpr std::size_t kMaxMmapThreshold = std::size_t{32} << 20U;
    if (size > kMaxMmapThreshold) {
        os::prefer_huge_pages(data, size);
    }
}

}  // namespace

nb::object new_memory(std::size_t bytes, std::byte*& data) {
    if (bytes >= codec::ArrayPool::kLeast) {
        if (nb::object taken = take_from_pool(bytes, data)) {
            return taken;
        }
    }
    if (bytes > PTRDIFF_MAX - codec::kAlignment) {
        PyErr_NoMemory();
        nb::raise_python_error();
    }
    Memory* const memory = allocate(bytes, bytes + codec::kAlignment);
    data = aligned(memory + 1);
    memory->data = data;
    return as_object(memory);
}

nb::object new_bytes(std::size_t size, std::byte*& data) {
    nb::object made = checked(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
    data = reinterpret_cast<std::byte*>(PyBytes_AS_STRING(made.ptr()));
    prefer_huge_pages_in_own_mapping(data, size);
    return made;
}

nb::object new_byte_array(std::size_t size, std::byte*& data) {
    nb::object made =
        checked(PyByteArray_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
    data = reinterpret_cast<std::byte*>(PyByteArray_AS_STRING(made.ptr()));
    prefer_huge_pages_in_own_mapping(data, size);
    return made;
}

nb::object borrowed_memory(const std::byte* data, std::size_t bytes, nb::handle owner) {
    Memory* const memory = allocate(bytes, 0);
    memory->data = const_cast<std::byte*>(data);
    memory->owner = owner.inc_ref().ptr();
    memory->readonly = 1;
    return as_object(memory);
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

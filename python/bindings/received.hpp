// Received messages and objects as Python values: a copy, or a view of their memory, which the view
// keeps. Needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <span>

#include "codec.hpp"
#include "penstock/format.hpp"

namespace penstock::py {

// A message, or an object without its metadata. `Format::Tensor` occurs in stores only.
struct Content {
    std::span<const std::byte> bytes;
    Format format;
};

// `bytes`, or the value with arrays of its own. Raises Corrupt, Incompatible.
nb::object copy_of(const Content& content, Codec codec);

// A memoryview of `exporter`, or the value whose arrays refer to it. `content` is the exporter's
// buffer, 64-byte aligned if there are arrays. Raises Corrupt, Incompatible.
nb::object view_of(const Content& content, const nb::object& exporter, Codec codec);

// A memoryview of any object that exports a buffer.
nb::object memory_view_of(const nb::object& exporter);

// Binds the class of an object that owns received `bytes()` and exports them as a read-only buffer:
// arrays made of it keep it alive.
template <typename Keeper>
void bind_exporter(nb::module_& module, const char* name) {
    const auto get_buffer = +[](PyObject* self, Py_buffer* view, int flags) noexcept {
        const std::span<const std::byte> bytes = nb::inst_ptr<Keeper>(self)->bytes();
        return PyBuffer_FillInfo(view, self, const_cast<std::byte*>(bytes.data()),
                                 static_cast<Py_ssize_t>(bytes.size()), /*readonly=*/1, flags);
    };
    PyType_Slot slots[] = {{Py_bf_getbuffer, reinterpret_cast<void*>(get_buffer)}, {0, nullptr}};
    nb::class_<Keeper>(module, name, nb::type_slots(slots), nb::is_weak_referenceable());
}

}  // namespace penstock::py

#include "paged_planes.hpp"

#include <string_view>

#include "errors.hpp"

namespace penstock::py {
namespace {

// A buffer, released at the end of the scope.
struct Buffer {
    Buffer(nb::handle from, int flags) {
        if (PyObject_GetBuffer(from.ptr(), &view, flags) != 0) {
            throw nb::python_error();
        }
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { PyBuffer_Release(&view); }
    Py_buffer view{};
};

// Not floats, whose bits would pass as block ids too.
bool is_int64(const Py_buffer& view) {
    const std::string_view format = view.format == nullptr ? "B" : view.format;
    return view.itemsize == sizeof(std::int64_t) && (format == "l" || format == "q");
}

}  // namespace

PagedPlanes::PagedPlanes(nb::handle arrays) {
    try {
        for (const nb::handle array : nb::iter(arrays)) {
            Py_buffer& buffer = buffers_.emplace_back();  // released with the others if this fails
            if (PyObject_GetBuffer(array.ptr(), &buffer, PyBUF_STRIDED) != 0) {
                throw nb::python_error();
            }
            add(buffer);
        }
    } catch (...) {
        for (Py_buffer& buffer : buffers_) {
            PyBuffer_Release(&buffer);
        }
        throw;
    }
}

PagedPlanes::~PagedPlanes() {
    for (Py_buffer& buffer : buffers_) {
        PyBuffer_Release(&buffer);
    }
}

void PagedPlanes::add(const Py_buffer& buffer) {
    if (buffer.ndim < 2) {
        raise_error(ErrorCode::InvalidArgument, "a plane of a paged cache has blocks of tokens");
    }
    cache_.add({.at = static_cast<std::byte*>(buffer.buf),
                .blocks = buffer.shape[0],
                .block_stride = buffer.strides[0],
                .strides = {buffer.strides + 1, buffer.strides + buffer.ndim}},
               {.shape = {buffer.shape + 1, buffer.shape + buffer.ndim},
                .item_bytes = static_cast<std::size_t>(buffer.itemsize)});
}

std::vector<std::int64_t> PagedPlanes::parse_blocks(nb::handle blocks, std::size_t nbytes) const {
    const Buffer given(blocks, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT);
    if (given.view.ndim != 1 || !is_int64(given.view)) {
        raise_error(ErrorCode::InvalidArgument, "blocks are a flat array of int64");
    }
    const auto* const first = static_cast<const std::int64_t*>(given.view.buf);
    std::vector<std::int64_t> ids(first, first + given.view.shape[0]);
    cache_.check_blocks(ids, nbytes);
    return ids;
}

void bind_paged_planes(nb::module_& module) {
    nb::class_<PagedPlanes>(module, "PagedPlanes").def(nb::init<nb::handle>(), nb::arg("arrays"));
}

}  // namespace penstock::py

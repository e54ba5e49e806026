#include "paged_planes.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "errors.hpp"

namespace penstock::py {
namespace {

// A buffer for the length of a scope.
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

}  // namespace

PagedPlanes::PagedPlanes(nb::handle arrays) {
    try {
        for (const nb::handle array : nb::iter(arrays)) {
            Py_buffer buffer{};
            if (PyObject_GetBuffer(array.ptr(), &buffer, PyBUF_STRIDED) != 0) {
                throw nb::python_error();
            }
            buffers_.push_back(buffer);  // before it is looked at: it is released with the others
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
    const std::vector<std::int64_t> shape(buffer.shape + 1, buffer.shape + buffer.ndim);
    const auto item = static_cast<std::size_t>(buffer.itemsize);
    const bool is_first = planes_.empty();
    if (!is_first && (shape != shape_.shape || item != shape_.item_bytes)) {
        raise_error(ErrorCode::InvalidArgument,
                    "the planes of a paged cache differ in their shape");
    }
    if (std::ranges::any_of(shape, [](std::int64_t count) { return count < 1; })) {
        raise_error(ErrorCode::InvalidArgument, "a plane of a paged cache has empty blocks");
    }
    shape_ = {shape, item};
    least_blocks_ =
        is_first ? buffer.shape[0] : std::min(least_blocks_, std::int64_t{buffer.shape[0]});
    planes_.push_back({static_cast<std::byte*>(buffer.buf),
                       buffer.strides[0],
                       {buffer.strides + 1, buffer.strides + buffer.ndim}});
}

std::vector<std::int64_t> PagedPlanes::parse_blocks(nb::handle blocks, std::size_t nbytes) const {
    const Buffer given(blocks, PyBUF_C_CONTIGUOUS);
    if (given.view.ndim != 1 || given.view.itemsize != sizeof(std::int64_t)) {
        raise_error(ErrorCode::InvalidArgument, "blocks are a flat array of int64");
    }
    const auto* const first = static_cast<const std::int64_t*>(given.view.buf);
    std::vector<std::int64_t> ids(first, first + given.view.shape[0]);
    for (const std::int64_t id : ids) {
        if (id < 0 || id >= least_blocks_) {
            raise_error(ErrorCode::InvalidArgument, "block " + std::to_string(id) +
                                                        " of a cache that has " +
                                                        std::to_string(least_blocks_));
        }
    }
    const std::size_t wanted = planes_.size() * ids.size() * shape_.block_bytes();
    if (wanted != nbytes) {
        raise_error(ErrorCode::InvalidArgument,
                    std::to_string(ids.size()) + " blocks of the cache take " +
                        std::to_string(wanted) + " bytes, and the object has " +
                        std::to_string(nbytes));
    }
    return ids;
}

void bind_paged_planes(nb::module_& module) {
    nb::class_<PagedPlanes>(module, "PagedPlanes").def(nb::init<nb::handle>(), nb::arg("arrays"));
}

}  // namespace penstock::py

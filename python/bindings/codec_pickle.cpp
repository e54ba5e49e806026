// Pickling itself is Python's; penstock.codec adds the pickling of PyTorch's tensors.
#include "codec_pickle.hpp"

#include <string>

#include "codec/references.hpp"
#include "codec_fault.hpp"
#include "codec_memory.hpp"
#include "codec_torch.hpp"
#include "errors.hpp"

namespace penstock::py {
namespace {

nb::object memory_view(nb::handle of) {
    nb::object view = nb::steal(PyMemoryView_FromObject(of.ptr()));
    if (!view.is_valid()) {
        nb::raise_python_error();
    }
    return view;
}

std::span<const std::byte> content(nb::handle view) {
    const Py_buffer& buffer = *PyMemoryView_GET_BUFFER(view.ptr());
    return {static_cast<const std::byte*>(buffer.buf), static_cast<std::size_t>(buffer.len)};
}

void add_buffer(nb::handle pickle_buffer, Scratch& scratch) {
    nb::object view = pickle_buffer.attr("raw")();
    const std::span<const std::byte> bytes = content(view);
    const auto size = static_cast<std::int64_t>(bytes.size());
    scratch.message.add({.dtype = codec::DType::UInt8,
                         .source = codec::Source::Bytes,
                         .shape = {&size, 1},
                         .data = bytes.data()});
    scratch.keep(std::move(view));
}

nb::object buffer_of(const codec::TensorView& view, nb::handle owner) {
    if (!owner.is_none()) {
        return memory_view(borrowed_memory(view.data.data(), view.data.size(), owner));
    }
    std::byte* data = nullptr;
    const nb::object memory = new_memory(view.data.size(), data);
    copy_payload(data, view.data.data(), view.data.size());
    return memory_view(memory);
}

}  // namespace

void encode_pickle(nb::handle value, Scratch& scratch) {
    nb::list buffers;
    const nb::object pickled =
        nb::module_::import_("penstock.codec").attr("_dumps")(value, buffers.attr("append"));
    const nb::object view = memory_view(pickled);
    scratch.message.structure().raw(content(view));
    for (const nb::handle buffer : buffers) {
        add_buffer(buffer, scratch);
    }
}

nb::object decode_pickle(const codec::MessageReader& message, std::size_t size, nb::handle owner) {
    nb::list buffers;
    codec::References references(message, size);
    codec::TensorView view;
    for (std::uint32_t i = 0; i < message.tensors(); ++i) {
        codec::Fault fault = message.tensor(i, view);
        if (fault == codec::Fault::None) {
            fault = references.add(view);
        }
        if (fault != codec::Fault::None) {
            raise_fault(fault);
        }
        buffers.append(buffer_of(view, owner));
    }
    const std::span<const std::byte> bytes = message.structure_bytes();
    const nb::bytes pickled(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const nb::module_ pickle = nb::module_::import_("pickle");
    try {
        return pickle.attr("loads")(pickled, nb::arg("buffers") = buffers);
    } catch (const nb::python_error& error) {
        if (error.matches(pickle.attr("UnpicklingError")) || error.matches(PyExc_EOFError)) {
            raise_corrupt(error.what());
        }
        throw;
    }
}

nb::object tensor_over_buffer(nb::handle buffer, const char* dtype, const nb::tuple& shape) {
    const nb::object owner = memory_view(buffer);
    codec::TensorView view;
    view.dtype = codec::dtype_named(dtype);
    if (view.dtype == codec::DType::Described) {
        raise_fault(codec::Fault::UnknownDType);
    }
    view.ndim = static_cast<std::uint8_t>(shape.size());
    view.data = content(owner);
    std::uint64_t bytes = codec::item_size(view.dtype);
    if (shape.size() > codec::kMaxDims) {
        raise_fault(codec::Fault::BadTensor);
    }
    for (std::size_t dim = 0; dim < shape.size(); ++dim) {
        view.dims[dim] = nb::cast<std::int64_t>(shape[dim]);
        bytes *= static_cast<std::uint64_t>(view.dims[dim]);
    }
    if (bytes != view.data.size()) {
        raise_fault(codec::Fault::BadTensor);
    }
    nb::object tensor = decode_tensor(view, owner);
    if (!tensor.is_valid()) {
        raise_incompatible("it holds a PyTorch tensor, and PyTorch is not installed here");
    }
    return tensor;
}

}  // namespace penstock::py

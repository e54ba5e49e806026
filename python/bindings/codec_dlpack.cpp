// DLPack tensors in, by any library's __dlpack__; and out, as an owning struct for PyTorch.
#include "codec_dlpack.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <string>

#include "codec_refusal.hpp"

namespace penstock::py {

using codec::DType;

namespace {

struct Pair {
    DType dtype;
    dlpack::TypeCode code;
};

constexpr std::array<Pair, 23> kPairs{{
    {DType::Bool, dlpack::kDLBool},
    {DType::Int8, dlpack::kDLInt},
    {DType::Int16, dlpack::kDLInt},
    {DType::Int32, dlpack::kDLInt},
    {DType::Int64, dlpack::kDLInt},
    {DType::UInt8, dlpack::kDLUInt},
    {DType::UInt16, dlpack::kDLUInt},
    {DType::UInt32, dlpack::kDLUInt},
    {DType::UInt64, dlpack::kDLUInt},
    {DType::Float16, dlpack::kDLFloat},
    {DType::Float32, dlpack::kDLFloat},
    {DType::Float64, dlpack::kDLFloat},
    {DType::Complex64, dlpack::kDLComplex},
    {DType::Complex128, dlpack::kDLComplex},
    {DType::BFloat16, dlpack::kDLBfloat},
    {DType::Float8E4M3FN, dlpack::kDLFloat8_e4m3fn},
    {DType::Float8E5M2, dlpack::kDLFloat8_e5m2},
    {DType::Float8E4M3FNUZ, dlpack::kDLFloat8_e4m3fnuz},
    {DType::Float8E5M2FNUZ, dlpack::kDLFloat8_e5m2fnuz},
    {DType::Float8E8M0FNU, dlpack::kDLFloat8_e8m0fnu},
    {DType::Float8E4M3, dlpack::kDLFloat8_e4m3},
    {DType::Float8E3M4, dlpack::kDLFloat8_e3m4},
    {DType::Float8E4M3B11FNUZ, dlpack::kDLFloat8_e4m3b11fnuz},
}};

std::uint8_t bits(DType dtype) noexcept {
    return static_cast<std::uint8_t>(8 * codec::item_size(dtype));
}

bool is_host(std::int32_t device) noexcept {
    return device == dlpack::kDLCPU || device == dlpack::kDLCUDAHost ||
           device == dlpack::kDLROCMHost;
}

Refusal not_on_host(nb::handle value) {
    return Refusal(" is a " + type_of(value) +
                   " that does not lie in host memory: move it to the CPU first");
}

// The tensor in a capsule of either name; null for other capsules and unsupported major versions.
const dlpack::Tensor* tensor_in(nb::handle capsule) {
    if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned") != 0) {
        const auto* const managed = static_cast<dlpack::ManagedTensorVersioned*>(
            PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
        return managed->version.major == dlpack::kMajorVersion ? &managed->dl_tensor : nullptr;
    }
    if (PyCapsule_IsValid(capsule.ptr(), "dltensor") != 0) {
        return &static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"))
                    ->dl_tensor;
    }
    return nullptr;
}

// Calls the value's own method. An Exception that it raises becomes the reason of a refusal;
// others, such as KeyboardInterrupt, and MemoryError pass.
nb::object ask(nb::handle value, const char* question, const nb::dict& arguments) {
    try {
        return value.attr(question)(**arguments);
    } catch (const nb::python_error& error) {
        if (!error.matches(PyExc_Exception) || error.matches(PyExc_MemoryError)) {
            throw;
        }
        const nb::object cause = nb::borrow(error.value());
        throw Refusal(" is a " + type_of(value) + " whose " + question + "() raised " +
                          type_of(cause) + ": " + said(cause),
                      cause);
    }
}

// Libraries older than DLPack 1.0 do not know the argument.
nb::object dlpack_capsule(nb::handle value) {
    nb::dict newest;
    newest["max_version"] = nb::make_tuple(dlpack::kMajorVersion, dlpack::kMinorVersion);
    try {
        return ask(value, "__dlpack__", newest);
    } catch (const Refusal& refusal) {
        if (PyErr_GivenExceptionMatches(refusal.cause().ptr(), PyExc_TypeError) == 0) {
            throw;
        }
    }
    return ask(value, "__dlpack__", nb::dict());
}

// (device type, device id): the first of them.
std::int32_t device_of(nb::handle value) {
    const nb::object device = ask(value, "__dlpack_device__", nb::dict());
    std::int32_t type = 0;
    const bool is_pair = PyTuple_Check(device.ptr()) || PyList_Check(device.ptr());
    if (!is_pair || nb::len(device) != 2 || !nb::try_cast(nb::object(device[0]), type)) {
        throw Refusal(" is a " + type_of(value) + " whose __dlpack_device__() gave " +
                      shown(device) + ", and not (device type, device id)");
    }
    return type;
}

// Whether a producer's description of its memory is plausible; if not, the memory is not read.
bool makes_sense(const dlpack::Tensor& tensor, DType dtype) noexcept {
    if (tensor.ndim < 0 || static_cast<std::size_t>(tensor.ndim) > codec::kMaxDims ||
        (tensor.ndim > 0 && tensor.shape == nullptr)) {
        return false;
    }
    auto bytes = static_cast<std::int64_t>(codec::item_size(dtype));
    for (std::int32_t dim = 0; dim < tensor.ndim; ++dim) {
        if (tensor.shape[dim] < 0 || __builtin_mul_overflow(bytes, tensor.shape[dim], &bytes)) {
            return false;
        }
    }
    return bytes == 0 || tensor.data != nullptr;
}

// --- out ----------------------------------------------------------------------------------------

struct Handover {
    dlpack::ManagedTensorVersioned tensor;
    nb::object base;
    std::array<std::int64_t, codec::kMaxDims> shape;
    std::array<std::int64_t, codec::kMaxDims> strides;
};

// Called by the library that owns the tensor, from any thread.
void drop(dlpack::ManagedTensorVersioned* tensor) {
    auto* const handover = static_cast<Handover*>(tensor->manager_ctx);
    if (!nb::is_alive()) {
        handover->base.release();  // the interpreter has ended, and its objects are gone
        delete handover;
        return;
    }
    const nb::gil_scoped_acquire held;
    delete handover;
}

void fill_strides(const codec::TensorView& view, std::int64_t* strides) noexcept {
    std::int64_t step = 1;
    for (std::size_t i = 0; i < view.ndim; ++i) {
        const std::size_t dim = view.order == codec::Order::C ? view.ndim - 1 - i : i;
        strides[dim] = step;
        step *= view.dims[dim] > 0 ? view.dims[dim] : 1;
    }
}

}  // namespace

DType dtype_of(dlpack::DataType type) noexcept {
    for (const Pair& pair : kPairs) {
        if (pair.code == type.code && bits(pair.dtype) == type.bits && type.lanes == 1) {
            return pair.dtype;
        }
    }
    return DType::Described;
}

dlpack::DataType dlpack_type(DType dtype) noexcept {
    for (const Pair& pair : kPairs) {
        if (pair.dtype == dtype) {
            return {pair.code, bits(dtype), 1};
        }
    }
    return {};
}

void add_dlpack(const dlpack::Tensor& tensor, nb::handle value, codec::Source source,
                Scratch& scratch) {
    const DType dtype = dtype_of(tensor.dtype);
    if (!is_host(tensor.device.device_type)) {
        throw not_on_host(value);
    }
    if (dtype == DType::Described) {
        throw Refusal(" is a " + type_of(value) + " of a dtype that the typed codec does not know");
    }
    if (!makes_sense(tensor, dtype)) {
        throw Refusal(" is a " + type_of(value) +
                      " whose __dlpack__() describes memory that there can't be: no address, or a "
                      "shape that is none");
    }
    const auto dims = static_cast<std::size_t>(tensor.ndim);
    const auto item = static_cast<std::int64_t>(codec::item_size(dtype));
    std::array<std::int64_t, codec::kMaxDims> strides;
    if (tensor.strides != nullptr) {
        for (std::size_t dim = 0; dim < dims; ++dim) {
            strides[dim] = tensor.strides[dim] * item;
        }
    }
    scratch.message.tensor({
        .dtype = dtype,
        .source = source,
        .shape = {tensor.shape, dims},
        .strides = {strides.data(), tensor.strides == nullptr ? 0 : dims},
        .data = static_cast<const std::byte*>(tensor.data) + tensor.byte_offset,
    });
}

bool has_dlpack(nb::handle value) {
    return nb::hasattr(value.type(), "__dlpack__");
}

void encode_dlpack(nb::handle value, Scratch& scratch) {
    if (!is_host(device_of(value))) {
        throw not_on_host(value);
    }
    nb::object capsule = dlpack_capsule(value);
    const dlpack::Tensor* const tensor = tensor_in(capsule);
    if (tensor == nullptr) {
        const bool is_capsule = PyCapsule_CheckExact(capsule.ptr());
        throw Refusal(" is a " + type_of(value) + " whose __dlpack__() gave " +
                      (is_capsule ? "a capsule of another version of DLPack, or a used one"
                                  : shown(capsule) + ", and not a capsule"));
    }
    add_dlpack(*tensor, value, codec::Source::DLPack, scratch);
    // The capsule is not renamed: it still owns the tensor, and frees it when it is released.
    scratch.keep(std::move(capsule));
}

dlpack::ManagedTensorVersioned* new_managed_tensor(const codec::TensorView& view, void* data,
                                                   nb::object base) {
    auto handover = std::make_unique<Handover>();
    std::copy_n(view.dims.begin(), view.ndim, handover->shape.begin());
    fill_strides(view, handover->strides.data());
    handover->base = std::move(base);
    handover->tensor = {
        .version = {dlpack::kMajorVersion, dlpack::kMinorVersion},
        .manager_ctx = handover.get(),
        .deleter = &drop,
        .flags = 0,
        .dl_tensor = {.data = data,
                      .device = {dlpack::kDLCPU, 0},
                      .ndim = view.ndim,
                      .dtype = dlpack_type(view.dtype),
                      .shape = handover->shape.data(),
                      .strides = handover->strides.data(),
                      .byte_offset = 0},
    };
    return &handover.release()->tensor;
}

}  // namespace penstock::py

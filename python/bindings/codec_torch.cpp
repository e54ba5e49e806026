// Tensors go through DLPack's C exchange table if PyTorch has one. Reading a tensor's attributes
// one by one, as for older versions, takes seven times as long to send a tensor, and four times to
// receive it.
#include "codec_torch.hpp"

#include <array>
#include <string>

#include "codec_dlpack.hpp"
#include "codec_fault.hpp"
#include "codec_memory.hpp"
#include "codec_refusal.hpp"

namespace penstock::py {

using codec::DType;

namespace {

constexpr std::size_t kDTypes = static_cast<std::size_t>(DType::Float8E4M3B11FNUZ) + 1;

// References into PyTorch; never freed, because tensors may occur while the interpreter ends.
struct Torch {
    nb::object module;
    PyTypeObject* tensor = nullptr;
    PyTypeObject* parameter = nullptr;
    nb::object strided;
    nb::object uint8;
    nb::object from_dlpack;
    nb::object is_conj;  // unbound methods of Tensor, looked up once
    nb::object is_neg;
    std::array<nb::object, kDTypes> dtypes;
    const dlpack::ExchangeApi* exchange = nullptr;
};

Torch* torch = nullptr;
bool torch_is_missing = false;

const dlpack::ExchangeApi* exchange_of(nb::handle type) {
    const nb::object capsule =
        nb::steal(PyObject_GetAttrString(type.ptr(), "__dlpack_c_exchange_api__"));
    if (!capsule.is_valid() || PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api") == 0) {
        PyErr_Clear();
        return nullptr;
    }
    const auto* const api = static_cast<const dlpack::ExchangeApi*>(
        PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    const bool is_ours = api->version.major == dlpack::kMajorVersion &&
                         api->tensor_from_py_object_no_sync != nullptr;
    return is_ours ? api : nullptr;
}

void load_torch(nb::object module) {
    auto loaded = std::make_unique<Torch>();
    const nb::object tensor = module.attr("Tensor");
    loaded->tensor = reinterpret_cast<PyTypeObject*>(nb::object(tensor).release().ptr());
    loaded->parameter = reinterpret_cast<PyTypeObject*>(
        nb::object(module.attr("nn").attr("Parameter")).release().ptr());
    loaded->strided = module.attr("strided");
    loaded->uint8 = module.attr("uint8");
    loaded->from_dlpack = module.attr("utils").attr("dlpack").attr("from_dlpack");
    loaded->is_conj = tensor.attr("is_conj");
    loaded->is_neg = tensor.attr("is_neg");
    for (std::size_t code = 1; code < kDTypes; ++code) {
        const std::string name(codec::name(static_cast<DType>(code)));
        loaded->dtypes[code] = nb::getattr(module, name.c_str(), nb::none());
    }
    loaded->exchange = exchange_of(tensor);
    loaded->module = std::move(module);
    torch = loaded.release();
}

bool is_true(const nb::object& method, nb::handle tensor) {
    const nb::object answer = nb::steal(PyObject_CallOneArg(method.ptr(), tensor.ptr()));
    if (!answer.is_valid()) {
        nb::raise_python_error();
    }
    return answer.ptr() == Py_True;
}

Refusal refused(const std::string& what) {
    return Refusal(" is a PyTorch tensor " + what);
}

// The refusal of a tensor whose memory PyTorch would not describe, with a remedy.
Refusal refused_by_torch(nb::handle tensor) {
    PyErr_Clear();
    const std::string device = said(tensor.attr("device").attr("type"));
    if (device != "cpu") {
        return refused("on device '" + device + "': move it to the CPU first");
    }
    if (!nb::object(tensor.attr("layout")).is(torch->strided)) {
        return refused("that is not strided: send .to_dense() of it");
    }
    if (nb::cast<bool>(nb::object(tensor.attr("is_nested")))) {
        return refused("that is nested: send the list that .unbind() makes of it");
    }
    const nb::object dtype = tensor.attr("dtype");
    return refused("of dtype " + said(dtype) + ", which the typed codec does not know");
}

// --- in -----------------------------------------------------------------------------------------

// A conjugated or negated view shares memory that holds the opposite values; resolving makes a
// copy. Only complex tensors are lazily conjugated, only complex and real ones negated.
nb::object resolved(nb::handle tensor, DType dtype) {
    nb::object plain = nb::borrow(tensor);
    const bool is_complex = dtype == DType::Complex64 || dtype == DType::Complex128;
    if (is_complex && is_true(torch->is_conj, plain)) {
        plain = plain.attr("detach")().attr("resolve_conj")();
    }
    const bool is_real = dtype == DType::Float64 || dtype == DType::Float32 ||
                         dtype == DType::Float16 || dtype == DType::BFloat16;
    if ((is_complex || is_real) && is_true(torch->is_neg, plain)) {
        plain = plain.attr("detach")().attr("resolve_neg")();
    }
    return plain;
}

nb::object encode_by_exchange(nb::handle tensor, Scratch& scratch) {
    dlpack::Tensor view{};
    if (torch->exchange->tensor_from_py_object_no_sync(tensor.ptr(), &view) != 0) {
        throw refused_by_torch(tensor);
    }
    nb::object plain = resolved(tensor, dtype_of(view.dtype));
    if (!plain.is(tensor) &&
        torch->exchange->tensor_from_py_object_no_sync(plain.ptr(), &view) != 0) {
        throw refused_by_torch(plain);
    }
    add_dlpack(view, plain, codec::Source::Torch, scratch);
    return plain;
}

DType dtype_of_tensor(nb::handle tensor) {
    const nb::object dtype = tensor.attr("dtype");
    for (std::size_t code = 1; code < kDTypes; ++code) {
        if (torch->dtypes[code].is(dtype)) {
            return static_cast<DType>(code);
        }
    }
    return DType::Described;
}

std::size_t read_sizes(nb::handle sizes, std::int64_t* to, std::int64_t factor) {
    const auto dims = static_cast<std::size_t>(PyTuple_Size(sizes.ptr()));
    if (dims > codec::kMaxDims) {
        throw refused("of more than 64 dimensions");
    }
    for (std::size_t dim = 0; dim < dims; ++dim) {
        to[dim] = factor * nb::cast<std::int64_t>(nb::handle(
                               PyTuple_GetItem(sizes.ptr(), static_cast<Py_ssize_t>(dim))));
    }
    return dims;
}

nb::object encode_by_attributes(nb::handle tensor, Scratch& scratch) {
    const DType dtype = dtype_of_tensor(tensor);
    if (dtype == DType::Described || !nb::cast<bool>(nb::object(tensor.attr("is_cpu"))) ||
        !nb::object(tensor.attr("layout")).is(torch->strided) ||
        nb::cast<bool>(nb::object(tensor.attr("is_nested")))) {
        throw refused_by_torch(tensor);
    }
    nb::object plain = resolved(tensor, dtype);
    std::array<std::int64_t, codec::kMaxDims> shape;
    std::array<std::int64_t, codec::kMaxDims> strides;
    const auto item = static_cast<std::int64_t>(codec::item_size(dtype));
    const std::size_t dims = read_sizes(nb::object(plain.attr("shape")), shape.data(), 1);
    read_sizes(plain.attr("stride")(), strides.data(), item);
    scratch.message.tensor({
        .dtype = dtype,
        .source = codec::Source::Torch,
        .shape = {shape.data(), dims},
        .strides = {strides.data(), dims},
        .data = PyLong_AsVoidPtr(nb::object(plain.attr("data_ptr")()).ptr()),
    });
    return plain;
}

// --- out ----------------------------------------------------------------------------------------

nb::object by_exchange(const codec::TensorView& view, void* data, nb::object base) {
    void* tensor = nullptr;
    auto* const managed = new_managed_tensor(view, data, std::move(base));
    if (torch->exchange->managed_tensor_to_py_object_no_sync(managed, &tensor) != 0) {
        nb::raise_python_error();
    }
    return nb::steal(static_cast<PyObject*>(tensor));
}

// Capsules that were not consumed still own their tensor.
void free_unused(PyObject* capsule) {
    if (PyCapsule_IsValid(capsule, "dltensor") != 0) {
        auto* const managed =
            static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
        managed->deleter(managed);
    }
}

// PyTorch versions without the exchange table read the older struct, without the float8 dtypes: so
// the bytes travel as uint8, and get dtype and shape afterwards.
struct PlainBytes {
    dlpack::ManagedTensor tensor;
    dlpack::ManagedTensorVersioned* owner;
    std::int64_t size;
};

void drop_plain_bytes(dlpack::ManagedTensor* tensor) {
    auto* const plain = static_cast<PlainBytes*>(tensor->manager_ctx);
    plain->owner->deleter(plain->owner);
    delete plain;
}

nb::object by_capsule(const codec::TensorView& view, void* data, nb::object base) {
    auto* const plain = new PlainBytes;
    plain->owner = new_managed_tensor(view, data, std::move(base));
    plain->size = static_cast<std::int64_t>(view.data.size());
    plain->tensor = {
        .dl_tensor = {.data = data,
                      .device = {dlpack::kDLCPU, 0},
                      .ndim = 1,
                      .dtype = dlpack_type(DType::UInt8),
                      .shape = &plain->size,
                      .strides = nullptr,
                      .byte_offset = 0},
        .manager_ctx = plain,
        .deleter = &drop_plain_bytes,
    };
    const nb::object capsule = nb::steal(PyCapsule_New(&plain->tensor, "dltensor", &free_unused));
    const nb::object bytes = torch->from_dlpack(capsule);
    const dlpack::Tensor& wanted = plain->owner->dl_tensor;
    nb::list shape;
    nb::list strides;
    for (std::size_t dim = 0; dim < view.ndim; ++dim) {
        shape.append(wanted.shape[dim]);
        strides.append(wanted.strides[dim]);
    }
    const nb::object typed =
        bytes.attr("view")(torch->dtypes[static_cast<std::size_t>(view.dtype)]);
    return typed.attr("as_strided")(shape, strides);
}

// False, permanently, if PyTorch is not installed.
bool import_torch() {
    if (torch != nullptr || torch_is_missing) {
        return torch != nullptr;
    }
    nb::object module = nb::steal(PyImport_ImportModule("torch"));
    if (!module.is_valid()) {
        if (PyErr_ExceptionMatches(PyExc_ModuleNotFoundError) == 0) {
            nb::raise_python_error();
        }
        PyErr_Clear();
        torch_is_missing = true;
        return false;
    }
    load_torch(std::move(module));
    return true;
}

}  // namespace

bool torch_is_in_use() {
    if (torch == nullptr) {
        nb::object module = nb::steal(PyImport_GetModule(nb::str("torch").ptr()));
        // During its own import PyTorch has no tensors that could be sent.
        if (module.is_valid() && nb::hasattr(module, "Tensor") && nb::hasattr(module, "nn")) {
            load_torch(std::move(module));
        }
        PyErr_Clear();
    }
    return torch != nullptr;
}

bool is_tensor(nb::handle value) {
    return PyObject_TypeCheck(value.ptr(), torch->tensor) != 0;
}

void encode_tensor(nb::handle tensor, Scratch& scratch) {
    PyTypeObject* const type = Py_TYPE(tensor.ptr());
    if (type != torch->tensor && type != torch->parameter) {
        throw Refusal(" is a " + type_of(tensor) +
                      ", a subclass of torch.Tensor: send .as_subclass(torch.Tensor) of it");
    }
    scratch.keep(torch->exchange != nullptr ? encode_by_exchange(tensor, scratch)
                                            : encode_by_attributes(tensor, scratch));
}

nb::object decode_tensor(const codec::TensorView& view, nb::handle owner) {
    if (!import_torch()) {
        return {};
    }
    if (view.dtype == DType::Described) {
        raise_fault(codec::Fault::BadTensor);
    }
    if (torch->dtypes[static_cast<std::size_t>(view.dtype)].is_none()) {
        raise_incompatible("it holds a PyTorch tensor of dtype " +
                           std::string(codec::name(view.dtype)) +
                           ", which the PyTorch of this process does not have");
    }
    auto* data = const_cast<std::byte*>(view.data.data());
    nb::object base = nb::borrow(owner);
    if (owner.is_none()) {
        base = new_memory(view.data.size(), data);
        copy_payload(data, view.data.data(), view.data.size());
    }
    return torch->exchange != nullptr ? by_exchange(view, data, std::move(base))
                                      : by_capsule(view, data, std::move(base));
}

}  // namespace penstock::py

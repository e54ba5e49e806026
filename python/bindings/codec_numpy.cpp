// The only file that uses NumPy's C API. It reads arrays directly: attribute access through Python
// would cost more than the rest of a small message.
#include "codec_numpy.hpp"

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#include <numpy/arrayobject.h>
#include <numpy/arrayscalars.h>

#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "codec_descr.hpp"
#include "codec_fault.hpp"
#include "codec_memory.hpp"
#include "codec_refusal.hpp"
#include "errors.hpp"

namespace penstock::py {

using codec::DType;

PyTypeObject* ndarray_type = nullptr;

namespace {

constexpr std::size_t kDTypes = static_cast<std::size_t>(DType::Float8E4M3B11FNUZ) + 1;

PyArrayObject* as_array(nb::handle value) {
    return reinterpret_cast<PyArrayObject*>(value.ptr());
}
PyArray_Descr* as_descr(nb::handle value) {
    return reinterpret_cast<PyArray_Descr*>(value.ptr());
}
nb::handle as_handle(PyArray_Descr* descr) {
    return reinterpret_cast<PyObject*>(descr);
}

// np.memmap, the one subclass that is nothing but its contents. Borrowed.
PyObject* memmap_type = nullptr;

void load_numpy() {
    if (ndarray_type != nullptr) {
        return;
    }
    if (PyArray_ImportNumPyAPI() < 0) {
        nb::raise_python_error();
    }
    memmap_type = nb::object(nb::module_::import_("numpy").attr("memmap")).release().ptr();
    ndarray_type = &PyArray_Type;
}

// --- dtypes with a code -------------------------------------------------------------------------

int type_number(DType dtype) {
    static constexpr std::array<int, 15> kNumbers{
        NPY_NOTYPE,  NPY_BOOL,    NPY_INT8,    NPY_INT16,     NPY_INT32,
        NPY_INT64,   NPY_UINT8,   NPY_UINT16,  NPY_UINT32,    NPY_UINT64,
        NPY_FLOAT16, NPY_FLOAT32, NPY_FLOAT64, NPY_COMPLEX64, NPY_COMPLEX128};
    const auto code = static_cast<std::size_t>(dtype);
    return code < kNumbers.size() ? kNumbers[code] : NPY_NOTYPE;
}

DType code_of_integer(char kind, npy_intp size) {
    const bool is_signed = kind == 'i';
    switch (size) {
        case 1:
            return is_signed ? DType::Int8 : DType::UInt8;
        case 2:
            return is_signed ? DType::Int16 : DType::UInt16;
        case 4:
            return is_signed ? DType::Int32 : DType::UInt32;
        default:
            return is_signed ? DType::Int64 : DType::UInt64;
    }
}

// ml_dtypes registers its types under numbers chosen at run time, so they are recognized by name.
DType code_of_user_type(PyArray_Descr* descr) {
    static std::array<std::pair<PyTypeObject*, DType>, 16> known;
    static std::size_t count = 0;
    for (std::size_t i = 0; i < count; ++i) {
        if (known[i].first == descr->typeobj) {
            return known[i].second;
        }
    }
    const nb::handle type(reinterpret_cast<PyObject*>(descr->typeobj));
    if (nb::str(type.attr("__module__")).c_str() != std::string_view("ml_dtypes")) {
        return DType::Described;
    }
    const std::string type_name = nb::str(type.attr("__name__")).c_str();
    for (std::size_t code = 0; code < kDTypes; ++code) {
        const auto dtype = static_cast<DType>(code);
        if (type_number(dtype) == NPY_NOTYPE && codec::name(dtype) == type_name) {
            if (count < known.size()) {
                known[count++] = {descr->typeobj, dtype};
            }
            return dtype;
        }
    }
    return DType::Described;
}

// Described if the dtype has no code.
DType code_of(PyArray_Descr* descr) {
    if (PyDataType_ISBYTESWAPPED(descr)) {
        return DType::Described;
    }
    switch (descr->type_num) {
        case NPY_BOOL:
            return DType::Bool;
        case NPY_BYTE:
        case NPY_SHORT:
        case NPY_INT:
        case NPY_LONG:
        case NPY_LONGLONG:
        case NPY_UBYTE:
        case NPY_USHORT:
        case NPY_UINT:
        case NPY_ULONG:
        case NPY_ULONGLONG:
            return code_of_integer(descr->kind, PyDataType_ELSIZE(descr));
        case NPY_HALF:
            return DType::Float16;
        case NPY_FLOAT:
            return DType::Float32;
        case NPY_DOUBLE:
            return DType::Float64;
        case NPY_CFLOAT:
            return DType::Complex64;
        case NPY_CDOUBLE:
            return DType::Complex128;
        default:
            break;
    }
    return descr->type_num >= NPY_USERDEF ? code_of_user_type(descr) : DType::Described;
}

// The dtype of a code. A new reference, because NumPy's constructors consume one.
PyArray_Descr* new_descr(DType dtype) {
    if (const int number = type_number(dtype); number != NPY_NOTYPE) {
        return PyArray_DescrFromType(number);
    }
    static std::array<PyArray_Descr*, kDTypes> known{};
    const auto code = static_cast<std::size_t>(dtype);
    const std::string type_name(codec::name(dtype));
    if (code >= kDTypes || type_name.empty()) {
        raise_fault(codec::Fault::UnknownDType);
    }
    if (known[code] == nullptr) {
        nb::object module = nb::steal(PyImport_ImportModule("ml_dtypes"));
        nb::object type = module.is_valid() ? nb::getattr(module, type_name.c_str(), nb::none())
                                            : nb::object(nb::none());
        if (type.is_none()) {
            PyErr_Clear();
            raise_incompatible("it holds a NumPy array of dtype " + type_name +
                               ", for which this process needs the package ml_dtypes");
        }
        PyArray_Descr* descr = nullptr;
        if (PyArray_DescrConverter(type.ptr(), &descr) == NPY_FAIL) {
            nb::raise_python_error();
        }
        known[code] = descr;
    }
    Py_INCREF(known[code]);
    return known[code];
}

// --- arrays -------------------------------------------------------------------------------------

// PyArray_NewFromDescr consumes `descr`, even when it fails.
nb::object new_array(PyArray_Descr* descr, const codec::TensorView& view, std::byte* data,
                     int flags, nb::object base) {
    static_assert(sizeof(npy_intp) == sizeof(std::int64_t));
    const auto* const dims = reinterpret_cast<const npy_intp*>(view.dims.data());
    if (view.order == codec::Order::Fortran) {
        flags |= NPY_ARRAY_F_CONTIGUOUS;
    }
    nb::object array = made_of_bytes(PyArray_NewFromDescr(
        &PyArray_Type, descr, view.ndim, dims, nullptr, data, flags | NPY_ARRAY_ALIGNED, nullptr));
    if (PyArray_SetBaseObject(as_array(array), base.release().ptr()) < 0) {
        nb::raise_python_error();
    }
    return array;
}

// Compares the bytes that an array of this dtype and shape needs with those in the message: for a
// Described dtype the wire layer knows no size.
void check_size(PyArray_Descr* descr, const codec::TensorView& view) {
    std::uint64_t left = view.data.size();
    bool is_empty = false;
    for (const std::int64_t size : view.shape()) {
        is_empty = is_empty || size == 0;
    }
    const auto item = static_cast<std::uint64_t>(PyDataType_ELSIZE(descr));
    std::uint64_t items = left / item;
    bool fits = left % item == 0;
    for (const std::int64_t size : view.shape()) {
        if (!is_empty) {
            fits = fits && items % static_cast<std::uint64_t>(size) == 0;
            items /= static_cast<std::uint64_t>(size);
        }
    }
    if (!fits || (is_empty ? left != 0 : items != 1)) {
        raise_fault(codec::Fault::BadTensor);
    }
}

nb::object array_of(PyArray_Descr* descr, const codec::TensorView& view, nb::handle owner) {
    if (!owner.is_none()) {
        auto* const data = const_cast<std::byte*>(view.data.data());
        return new_array(descr, view, data, 0, nb::borrow(owner));
    }
    std::byte* data = nullptr;
    nb::object memory = new_memory(view.data.size(), data);
    copy_payload(data, view.data.data(), view.data.size());
    return new_array(descr, view, data, NPY_ARRAY_WRITEABLE, std::move(memory));
}

// A scalar of bytes at any address.
nb::object scalar_of(PyArray_Descr* descr, std::span<const std::byte> item) {
    constexpr std::size_t kSmall = 64;
    alignas(kSmall) std::byte small[kSmall];
    const nb::object held = nb::steal(reinterpret_cast<PyObject*>(descr));
    std::byte* aligned = small;
    nb::object memory;
    if (item.size() > kSmall) {
        memory = new_memory(item.size(), aligned);
    }
    std::memcpy(aligned, item.data(), item.size());
    return made_of_bytes(PyArray_Scalar(aligned, descr, nullptr));
}

codec::TensorSource source_of(PyArrayObject* array, DType dtype) {
    const auto dims = static_cast<std::size_t>(PyArray_NDIM(array));
    return {
        .dtype = dtype,
        .source = codec::Source::NumPy,
        .shape = {reinterpret_cast<const std::int64_t*>(PyArray_DIMS(array)), dims},
        .strides = {reinterpret_cast<const std::int64_t*>(PyArray_STRIDES(array)), dims},
        .data = PyArray_DATA(array),
        .item_size = static_cast<std::size_t>(PyArray_ITEMSIZE(array)),
    };
}

void encode_described(PyArrayObject* array, Scratch& scratch) {
    codec::Writer& out = scratch.message.structure();
    const std::size_t mark = out.begin_extension(codec::Extension::Tensor);
    out.array(2);
    out.natural(scratch.message.add(source_of(array, DType::Described)));
    write_descr(as_handle(PyArray_DESCR(array)), out);
    out.end_extension(mark);
}

void encode_described_scalar(nb::handle scalar, codec::Writer& out) {
    const nb::object array = nb::steal(PyArray_FromScalar(scalar.ptr(), nullptr));
    if (!array.is_valid()) {
        nb::raise_python_error();
    }
    const auto size = static_cast<std::size_t>(PyArray_ITEMSIZE(as_array(array)));
    const std::size_t mark = out.begin_extension(codec::Extension::DescribedScalar);
    out.array(2);
    write_descr(as_handle(PyArray_DESCR(as_array(array))), out);
    out.bytes({static_cast<const std::byte*>(PyArray_DATA(as_array(array))), size});
    out.end_extension(mark);
}

// Writes the item's bytes behind its code. PyArray_ScalarAsCtype does not know types of ml_dtypes.
std::size_t scalar_bytes(nb::handle scalar, DType code, std::byte* to) {
    const std::size_t size = codec::item_size(code);
    if (type_number(code) != NPY_NOTYPE) {
        PyArray_ScalarAsCtype(scalar.ptr(), to);
        return size;
    }
    const nb::object array = nb::steal(PyArray_FromScalar(scalar.ptr(), nullptr));
    if (!array.is_valid()) {
        nb::raise_python_error();
    }
    std::memcpy(to, PyArray_DATA(as_array(array)), size);
    return size;
}

}  // namespace

bool numpy_is_in_use() {
    if (ndarray_type != nullptr) {
        return true;
    }
    const nb::object numpy = nb::steal(PyImport_GetModule(nb::str("numpy").ptr()));
    if (!numpy.is_valid()) {
        PyErr_Clear();
        return false;
    }
    load_numpy();
    return true;
}

DType dtype_code(nb::handle dtype) {
    load_numpy();  // its version says where a descr stores its size
    return code_of(as_descr(dtype));
}

nb::object dtype_of_code(DType code) {
    load_numpy();
    return nb::steal(reinterpret_cast<PyObject*>(new_descr(code)));
}

nb::object new_row(DType dtype, std::size_t count, std::byte*& data) {
    load_numpy();
    const std::size_t nbytes = count * codec::item_size(dtype);
    codec::TensorView view;
    view.dtype = dtype;
    view.ndim = 1;
    view.dims[0] = static_cast<std::int64_t>(count);
    nb::object memory = new_memory(nbytes, data);
    return new_array(new_descr(dtype), view, data, NPY_ARRAY_WRITEABLE, std::move(memory));
}

bool is_plain_dtype(nb::handle dtype) {
    const int number = as_descr(dtype)->type_num;
    return number < NPY_USERDEF && number != NPY_OBJECT && number != NPY_LONGDOUBLE &&
           number != NPY_CLONGDOUBLE;
}

bool is_array_or_subclass(nb::handle value) noexcept {
    return PyArray_Check(value.ptr());
}

bool is_numpy_scalar(nb::handle value) noexcept {
    return PyObject_TypeCheck(value.ptr(), &PyGenericArrType_Type) != 0;
}

void encode_array(nb::handle value, Scratch& scratch) {
    if (!is_ndarray(value) &&
        Py_TYPE(value.ptr()) != reinterpret_cast<PyTypeObject*>(memmap_type)) {
        throw Refusal(" is a " + type_of(value) +
                      ", a subclass of numpy.ndarray: send numpy.asarray() of it");
    }
    PyArrayObject* const array = as_array(value);
    const DType dtype = code_of(PyArray_DESCR(array));
    if (dtype == DType::Described) {
        encode_described(array, scratch);
    } else {
        scratch.message.tensor(source_of(array, dtype));
    }
    scratch.keep(nb::borrow(value));
}

void encode_numpy_scalar(nb::handle scalar, codec::Writer& out) {
    constexpr std::size_t kLargest = 16;
    const nb::object descr =
        nb::steal(reinterpret_cast<PyObject*>(PyArray_DescrFromScalar(scalar.ptr())));
    if (!descr.is_valid()) {
        nb::raise_python_error();
    }
    if (!as_descr(descr)->typeobj || Py_TYPE(scalar.ptr()) != as_descr(descr)->typeobj) {
        throw Refusal(" is a " + type_of(scalar) + ", a subclass of a NumPy scalar type");
    }
    const DType code = code_of(as_descr(descr));
    if (code == DType::Described) {
        encode_described_scalar(scalar, out);
        return;
    }
    std::byte body[1 + kLargest];
    alignas(kLargest) std::byte item[kLargest];
    const std::size_t size = scalar_bytes(scalar, code, item);
    body[0] = static_cast<std::byte>(code);
    std::memcpy(body + 1, item, size);
    out.extension(codec::Extension::NumPyScalar, {body, 1 + size});
}

nb::object decode_array(const codec::TensorView& view, std::span<const std::byte> descr,
                        nb::handle owner) {
    load_numpy();
    if (view.dtype != DType::Described) {
        return array_of(new_descr(view.dtype), view, owner);
    }
    nb::object dtype = read_descr(descr);
    // A sub-array dtype is for fields only: as the dtype of an array NumPy would fold it into the
    // shape.
    if (!nb::object(dtype.attr("subdtype")).is_none()) {
        raise_corrupt("a dtype's description makes no sense");
    }
    check_size(as_descr(dtype), view);
    return array_of(as_descr(dtype.release()), view, owner);
}

nb::object room_array(const codec::TensorView& view, nb::handle dtype, nb::object base) {
    load_numpy();
    auto* const data = const_cast<std::byte*>(view.data.data());
    nb::object descr = nb::borrow(dtype);
    const nb::object whole =
        new_array(as_descr(descr.release()), view, data, NPY_ARRAY_WRITEABLE, std::move(base));
    // A view, so that views made of it refer to `whole`, and not to what the caller gets.
    return made_of_bytes(PyArray_View(as_array(whole), nullptr, nullptr));
}

void settle_room_array(nb::handle array, nb::object base) {
    // PyArray_SetBaseObject() sets only the first base.
    auto* const fields = reinterpret_cast<PyArrayObject_fields*>(array.ptr());
    PyArray_CLEARFLAGS(as_array(array), NPY_ARRAY_WRITEABLE);
    const nb::object before = nb::steal(std::exchange(fields->base, base.release().ptr()));
}

nb::object decode_numpy_scalar(std::span<const std::byte> body) {
    load_numpy();
    if (body.empty()) {
        raise_fault(codec::Fault::BadExtension);
    }
    const auto code = static_cast<DType>(body[0]);
    const std::size_t size = codec::item_size(code);
    if (size == 0) {
        raise_fault(codec::Fault::UnknownDType);
    }
    if (body.size() != 1 + size) {
        raise_fault(codec::Fault::BadExtension);
    }
    return scalar_of(new_descr(code), body.subspan(1));
}

nb::object decode_described_scalar(std::span<const std::byte> descr,
                                   std::span<const std::byte> item) {
    load_numpy();
    nb::object dtype = read_descr(descr);
    if (static_cast<std::size_t>(PyDataType_ELSIZE(as_descr(dtype))) != item.size() ||
        !nb::object(dtype.attr("subdtype")).is_none()) {
        raise_fault(codec::Fault::BadExtension);
    }
    return scalar_of(as_descr(dtype.release()), item);
}

}  // namespace penstock::py

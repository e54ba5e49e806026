#include "number_lists.hpp"

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>

#include "codec_numpy.hpp"

namespace penstock::py {

namespace nb = nanobind;

namespace {

enum class Filled : std::uint8_t { Yes, TooNarrow, Foreign };

// The items of a list or a tuple, exactly of these types; otherwise nothing, and `known` false. The
// code that follows runs no Python code, so that no item can be freed meanwhile.
std::span<PyObject* const> items_of(nb::handle values, bool& known) noexcept {
    PyObject* const object = values.ptr();
    known = PyList_CheckExact(object) || PyTuple_CheckExact(object);
    if (!known) return {};
    return {PySequence_Fast_ITEMS(object),
            static_cast<std::size_t>(PySequence_Fast_GET_SIZE(object))};
}

template <typename Number>
Filled fill_integers(std::span<PyObject* const> items, Number* to) noexcept {
    for (PyObject* const item : items) {
        if (!PyLong_CheckExact(item)) return Filled::Foreign;
        int overflow = 0;
        const long long number = PyLong_AsLongLongAndOverflow(item, &overflow);
        if (overflow != 0) return Filled::Foreign;
        if (number < std::numeric_limits<Number>::min() ||
            number > std::numeric_limits<Number>::max()) {
            return Filled::TooNarrow;
        }
        *to++ = static_cast<Number>(number);
    }
    return Filled::Yes;
}

Filled fill_reals(std::span<PyObject* const> items, double* to) noexcept {
    constexpr long long kExact = 1LL << 53U;  // larger numbers are left to NumPy
    for (PyObject* const item : items) {
        if (PyFloat_CheckExact(item)) {
            *to++ = PyFloat_AS_DOUBLE(item);
            continue;
        }
        if (!PyLong_CheckExact(item)) return Filled::Foreign;
        int overflow = 0;
        const long long number = PyLong_AsLongLongAndOverflow(item, &overflow);
        if (overflow != 0 || number < -kExact || number > kExact) return Filled::Foreign;
        *to++ = static_cast<double>(number);
    }
    return Filled::Yes;
}

template <typename Number>
nb::object try_integers(std::span<PyObject* const> items, codec::DType dtype, Filled& filled) {
    std::byte* data = nullptr;
    nb::object array = new_row(dtype, items.size(), data);
    filled = fill_integers(items, reinterpret_cast<Number*>(data));
    return array;
}

nb::object integer_array(nb::handle values) {
    bool known = false;
    const auto items = items_of(values, known);
    if (!known) return nb::none();
    Filled filled = Filled::Foreign;
    nb::object array = try_integers<std::int32_t>(items, codec::DType::Int32, filled);
    if (filled == Filled::TooNarrow) {
        array = try_integers<std::int64_t>(items, codec::DType::Int64, filled);
    }
    return filled == Filled::Yes ? std::move(array) : nb::none();
}

nb::object real_array(nb::handle values) {
    bool known = false;
    const auto items = items_of(values, known);
    if (!known) return nb::none();
    std::byte* data = nullptr;
    nb::object array = new_row(codec::DType::Float64, items.size(), data);
    const Filled filled = fill_reals(items, reinterpret_cast<double*>(data));
    return filled == Filled::Yes ? std::move(array) : nb::none();
}

template <typename Number>
PyObject* number_from(Number number) noexcept {
    if constexpr (std::is_floating_point_v<Number>) {
        return PyFloat_FromDouble(number);
    } else {
        return PyLong_FromLongLong(number);
    }
}

template <typename Number>
nb::object list_from(const Py_buffer& buffer) {
    const auto count = buffer.len / static_cast<Py_ssize_t>(sizeof(Number));
    nb::object list = nb::steal(PyList_New(count));
    if (!list.is_valid()) nb::raise_python_error();
    const auto* const numbers = static_cast<const Number*>(buffer.buf);
    for (Py_ssize_t at = 0; at < count; ++at) {
        PyObject* const number = number_from(numbers[at]);
        if (number == nullptr) nb::raise_python_error();
        PyList_SET_ITEM(list.ptr(), at, number);
    }
    return list;
}

// By the buffer's type in struct's notation. Unset for types that NumPy converts as fast.
nb::object list_of_type(const Py_buffer& buffer) {
    const std::string_view type = buffer.format == nullptr ? "B" : buffer.format;
    if (type == "i") return list_from<std::int32_t>(buffer);
    if (type == "l" && buffer.itemsize == sizeof(std::int64_t))
        return list_from<std::int64_t>(buffer);
    if (type == "f") return list_from<float>(buffer);
    if (type == "d") return list_from<double>(buffer);
    return {};
}

nb::object number_list(nb::handle array) {
    Py_buffer buffer;
    if (PyObject_GetBuffer(array.ptr(), &buffer, PyBUF_FORMAT | PyBUF_ND | PyBUF_C_CONTIGUOUS) ==
        0) {
        const std::unique_ptr<Py_buffer, decltype(&PyBuffer_Release)> held(&buffer,
                                                                           &PyBuffer_Release);
        if (buffer.ndim == 1) {
            if (nb::object list = list_of_type(buffer); list.is_valid()) return list;
        }
    } else {
        PyErr_Clear();  // scattered, or of a type without a buffer format: left to NumPy
    }
    return array.attr("tolist")();
}

}  // namespace

void bind_number_lists(nb::module_& module) {
    module.def("integer_array", &integer_array, nb::arg("values").none(),
               "A list or tuple of ints as an array: int32 if all fit, otherwise int64.\n\n"
               "None unless it is a list or tuple of ints of 64 bits.");
    module.def("real_array", &real_array, nb::arg("values").none(),
               "A list or tuple of floats and ints as an array of float64.\n\n"
               "None unless it is a list or tuple of these, with ints up to 2**53.");
    module.def("number_list", &number_list, nb::arg("array").none(),
               "The result of ``array.tolist()``, faster for arrays of one dimension.");
}

}  // namespace penstock::py

// Reading arguments; all of it needs the GIL.
#include "arguments.hpp"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string>

#include "errors.hpp"
#include "penstock/segment.hpp"
#include "wait.hpp"

namespace penstock::py {

namespace {

// A number from 0 up that fits; `type` says what the argument may be.
std::uint64_t parse_natural(nb::handle number, const char* what, const char* type) {
    if (PyBool_Check(number.ptr()) || !PyIndex_Check(number.ptr())) {
        PyErr_Format(PyExc_TypeError, "%s must be %s, not %R", what, type, number.ptr());
        throw nb::python_error();
    }
    const nb::object index = nb::steal(PyNumber_Index(number.ptr()));
    if (!index.is_valid()) {
        throw nb::python_error();
    }
    const unsigned long long value = PyLong_AsUnsignedLongLong(index.ptr());
    if (PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        raise_error(ErrorCode::InvalidArgument, std::string(what) + " is " +
                                                    nb::repr(number).c_str() +
                                                    ": give a number from 0 up to 2**64-1");
    }
    return value;
}

}  // namespace

std::uint64_t parse_bytes(nb::handle size, const char* what) {
    if (PyUnicode_Check(size.ptr())) {
        return parse_size(nb::cast<std::string>(size));
    }
    return parse_natural(size, what, "an int of bytes or a string like '64MiB'");
}

unsigned parse_small(nb::handle number, const char* what) {
    const std::uint64_t value = parse_natural(number, what, "an int");
    if (value > std::numeric_limits<unsigned>::max()) {
        raise_error(ErrorCode::InvalidArgument,
                    std::string(what) + " is " + std::to_string(value) + ": far too many");
    }
    return static_cast<unsigned>(value);
}

std::chrono::nanoseconds parse_seconds(nb::handle seconds, const char* what) {
    const double number = PyBool_Check(seconds.ptr()) ? -1.0 : PyFloat_AsDouble(seconds.ptr());
    if (number == -1.0 && (PyErr_Occurred() != nullptr || PyBool_Check(seconds.ptr()))) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "%s must be seconds as an int or a float, not %R", what,
                     seconds.ptr());
        throw nb::python_error();
    }
    if (std::isnan(number) || number < 0) {
        raise_error(ErrorCode::InvalidArgument,
                    std::string(what) + " is " + nb::repr(seconds).c_str() + ": give seconds");
    }
    constexpr double century = 100.0 * 365 * 24 * 3600;
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::duration<double>(std::min(number, century)));
}

Codec parse_codec(nb::handle codec) {
    if (codec.is_none()) {
        return Codec::Typed;
    }
    if (PyUnicode_Check(codec.ptr()) && nb::cast<std::string>(codec) == "pickle") {
        return Codec::Pickle;
    }
    raise_error(ErrorCode::InvalidArgument,
                std::string("codec is ") + nb::repr(codec).c_str() + ": give None or 'pickle'");
}

std::span<const std::byte> bytes_of(nb::handle bytes) noexcept {
    return {reinterpret_cast<const std::byte*>(PyBytes_AS_STRING(bytes.ptr())),
            static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
}

Pinned::Pinned(nb::handle object, Access access) {
    const int flags = access == Access::Write ? PyBUF_WRITABLE : PyBUF_SIMPLE;
    if (PyObject_GetBuffer(object.ptr(), &buffer_, flags) != 0) {
        throw nb::python_error();
    }
}

void copy_bytes(std::byte* to, const std::byte* from, std::size_t nbytes) {
    if (nbytes == 0) {
        return;
    }
    std::optional<WithoutGil> without_gil;
    if (nbytes >= kLongCopy) {
        without_gil.emplace();
    }
    std::memcpy(to, from, nbytes);
}

}  // namespace penstock::py

// Parses arguments; needs the GIL throughout.
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
#include "segment/text.hpp"
#include "wait.hpp"

namespace penstock::py {

namespace {

// The argument as an error message shows it, truncated.
std::string shown(nb::handle given) {
    constexpr std::size_t most = 80;
    const nb::object text = nb::steal(PyObject_Repr(given.ptr()));
    const char* const repr = text.is_valid() ? PyUnicode_AsUTF8(text.ptr()) : nullptr;
    if (repr == nullptr) {  // the argument's own repr failed
        PyErr_Clear();
        return std::string("a ") + Py_TYPE(given.ptr())->tp_name;
    }
    const std::string_view whole(repr);
    return std::string(detail::cut(whole, most)) + (whole.size() > most ? "..." : "");
}

// The UTF-8 of a str; empty, without an error set, if it has none (lone surrogates).
std::optional<std::string> utf8_of(nb::handle text) {
    Py_ssize_t size = 0;
    const char* const data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (data == nullptr) {
        PyErr_Clear();
        return std::nullopt;
    }
    return std::string(data, static_cast<std::size_t>(size));
}

// The bytes of a file's name, from a str made by to_text() or os.fsdecode(); empty as above.
std::optional<std::string> file_name_of(nb::handle text) {
    const nb::object bytes =
        nb::steal(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "surrogateescape"));
    if (!bytes.is_valid()) {
        PyErr_Clear();
        return std::nullopt;
    }
    return std::string(PyBytes_AS_STRING(bytes.ptr()),
                       static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr())));
}

// "file:" and the absolute path of an os.PathLike.
std::string name_of_path(nb::handle path) {
    const nb::module_ os = nb::module_::import_("os");
    const nb::object text = os.attr("path").attr("abspath")(os.attr("fsdecode")(path));
    const auto bytes = file_name_of(text);
    if (!bytes) {
        raise_error(ErrorCode::InvalidName, "the path " + shown(path) + " is no UTF-8");
    }
    return "file:" + *bytes;
}

}  // namespace

void raise_wrong_type(const char* what, const char* type, nb::handle given) {
    raise_error("InvalidType", std::string(what) + " must be " + type + ", not " + shown(given));
}

std::string parse_name(nb::handle name) {
    if (PyUnicode_Check(name.ptr())) {
        if (auto bytes = file_name_of(name)) {
            return *std::move(bytes);
        }
        raise_error(ErrorCode::InvalidName, "the name " + shown(name) + " is no UTF-8");
    }
    if (nb::hasattr(name, "__fspath__")) {
        return name_of_path(name);
    }
    raise_error("InvalidNameType",
                "a name must be a str, a path, or where one attaches a handle, not " + shown(name));
}

std::string parse_text(nb::handle text, const char* what) {
    if (!PyUnicode_Check(text.ptr())) {
        raise_wrong_type(what, "a str", text);
    }
    if (auto utf8 = utf8_of(text)) {
        return *std::move(utf8);
    }
    raise_error(ErrorCode::InvalidArgument,
                std::string(what) + " is " + shown(text) + ", which is no UTF-8");
}

bool parse_flag(nb::handle flag, const char* what) {
    if (PyBool_Check(flag.ptr())) {
        return flag.is(Py_True);
    }
    const std::string_view type = Py_TYPE(flag.ptr())->tp_name;
    if (type == "numpy.bool" || type == "numpy.bool_") {
        return PyObject_IsTrue(flag.ptr()) == 1;
    }
    raise_wrong_type(what, "True or False", flag);
}

double parse_real(nb::handle number, const char* what) {
    const double value = PyBool_Check(number.ptr()) ? -1.0 : PyFloat_AsDouble(number.ptr());
    if (value == -1.0 && (PyErr_Occurred() != nullptr || PyBool_Check(number.ptr()))) {
        PyErr_Clear();
        raise_wrong_type(what, "an int or a float", number);
    }
    if (std::isnan(value)) {
        raise_error(ErrorCode::InvalidArgument, std::string(what) + " is NaN: give a number");
    }
    return value;
}

std::int64_t parse_integer(nb::handle number, const char* what) {
    if (PyBool_Check(number.ptr()) || !PyIndex_Check(number.ptr())) {
        raise_wrong_type(what, "an int", number);
    }
    const nb::object index = nb::steal(PyNumber_Index(number.ptr()));
    if (!index.is_valid()) {
        throw nb::python_error();
    }
    const long long value = PyLong_AsLongLong(index.ptr());
    if (value == -1 && PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        raise_error(ErrorCode::InvalidArgument,
                    std::string(what) + " is " + shown(number) + ": it has 64 bits at most");
    }
    return value;
}

std::uint64_t parse_natural(nb::handle number, const char* what, const char* type) {
    if (PyBool_Check(number.ptr()) || !PyIndex_Check(number.ptr())) {
        raise_wrong_type(what, type, number);
    }
    const nb::object index = nb::steal(PyNumber_Index(number.ptr()));
    if (!index.is_valid()) {
        throw nb::python_error();
    }
    const unsigned long long value = PyLong_AsUnsignedLongLong(index.ptr());
    if (PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        raise_error(ErrorCode::InvalidArgument, std::string(what) + " is " + shown(number) +
                                                    ": give a number from 0 up to 2**64-1");
    }
    return value;
}

std::uint64_t parse_bytes(nb::handle size, const char* what) {
    if (PyUnicode_Check(size.ptr())) {
        return parse_size(parse_text(size, what));
    }
    return parse_natural(size, what, "an int of bytes or a string like '64MiB'");
}

unsigned parse_small(nb::handle number, const char* what) {
    const std::uint64_t value = parse_natural(number, what);
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
        raise_wrong_type(what, "seconds as an int or a float", seconds);
    }
    if (std::isnan(number) || number < 0) {
        raise_error(ErrorCode::InvalidArgument,
                    std::string(what) + " is " + shown(seconds) + ": give seconds");
    }
    constexpr double century = 100.0 * 365 * 24 * 3600;
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::duration<double>(std::min(number, century)));
}

WaitPolicy parse_waiting(nb::handle waiting) {
    return parse_wait_policy(parse_text(waiting, "waiting"));
}

Codec parse_codec(nb::handle codec) {
    if (codec.is_none()) {
        return Codec::Typed;
    }
    if (PyUnicode_Check(codec.ptr()) && utf8_of(codec) == "pickle") {
        return Codec::Pickle;
    }
    raise_error(ErrorCode::InvalidArgument, "codec is " + shown(codec) + ": give None or 'pickle'");
}

std::optional<std::uint32_t> parse_owner(nb::handle owner) {
    if (owner.is_none()) {
        return std::nullopt;
    }
    if (PyUnicode_Check(owner.ptr())) {
        return parse_user(parse_text(owner, "owner"));
    }
    const std::uint64_t number = parse_natural(owner, "owner", "a user's name or number");
    return parse_user(std::to_string(number));
}

Trust parse_trust(nb::handle owner, Codec codec) {
    return {.owner = parse_owner(owner), .runs_code = codec == Codec::Pickle};
}

std::span<const std::byte> bytes_of(nb::handle bytes) noexcept {
    return {reinterpret_cast<const std::byte*>(PyBytes_AS_STRING(bytes.ptr())),
            static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
}

Pinned::Pinned(nb::handle object, Access access) {
    if (PyObject_CheckBuffer(object.ptr()) == 0) {
        raise_wrong_type("the data",
                         "bytes-like and contiguous (bytes, bytearray, memoryview, NumPy array)",
                         object);
    }
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

// Bytes to str, and str to printable text.
#include "text.hpp"

#include <string>

#include "arguments.hpp"
#include "segment/text.hpp"

namespace penstock::py {
namespace {

nb::str printable(nb::handle text) {
    if (!PyUnicode_Check(text.ptr())) {
        raise_wrong_type("text", "a str", text);
    }
    // Surrogates of a file's name are converted back to bytes, and shown as such.
    nb::object bytes = nb::steal(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "surrogateescape"));
    if (!bytes.is_valid()) {
        PyErr_Clear();
        bytes = nb::steal(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "backslashreplace"));
    }
    if (!bytes.is_valid()) {
        nb::raise_python_error();
    }
    return to_text(detail::printable(
        {PyBytes_AS_STRING(bytes.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr()))}));
}

}  // namespace

nb::str to_text(std::string_view bytes, Text text) {
    const char* const errors = text == Text::FileName ? "surrogateescape" : "replace";
    const nb::object decoded = nb::steal(
        PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), errors));
    if (!decoded.is_valid()) {
        nb::raise_python_error();
    }
    return nb::borrow<nb::str>(decoded);
}

void bind_text(nb::module_& module) {
    module.def(
        "printable", &printable, nb::arg("text").none(),
        "The text without characters that a terminal obeys or does not show: control, format and "
        "bidirectional characters are escaped, as are bytes that are not valid UTF-8.");
}

}  // namespace penstock::py

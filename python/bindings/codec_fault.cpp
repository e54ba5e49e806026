// All error messages of the decoder begin alike, so that their source is recognizable.
#include "codec_fault.hpp"

#include "errors.hpp"

namespace penstock::py {
namespace {

constexpr const char* kPrefix = "cannot decode a message: ";

bool is_refusal_of_content() {
    // SystemError: by PyUnicode_New, for an invalid character.
    return PyErr_ExceptionMatches(PyExc_ValueError) != 0 ||
           PyErr_ExceptionMatches(PyExc_SystemError) != 0 ||
           PyErr_ExceptionMatches(PyExc_TypeError) != 0 ||
           PyErr_ExceptionMatches(PyExc_OverflowError) != 0;
}

}  // namespace

void raise_fault(codec::Fault fault) {
    raise_error(codec::error_code(fault), kPrefix + std::string(codec::sentence(fault)));
}

void raise_corrupt(const std::string& what) {
    raise_error(ErrorCode::Corrupt, kPrefix + what);
}

void raise_incompatible(const std::string& what) {
    raise_error(ErrorCode::Incompatible, kPrefix + what);
}

nb::object made_of_bytes(PyObject* object) {
    if (object != nullptr) {
        return nb::steal(object);
    }
    if (!is_refusal_of_content()) {
        nb::raise_python_error();
    }
    const nb::python_error refused;
    raise_corrupt(refused.what());
}

}  // namespace penstock::py

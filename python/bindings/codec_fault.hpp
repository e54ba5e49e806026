// From what is wrong with received bytes to the exception for it.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "penstock/codec.hpp"

namespace penstock::py {

namespace nb = nanobind;

// "cannot decode a message: a length reaches beyond the end of the message"
[[noreturn]] void raise_fault(codec::Fault fault);
[[noreturn]] void raise_corrupt(const std::string& what);
[[noreturn]] void raise_incompatible(const std::string& what);

// The new reference that CPython or NumPy made out of received bytes. Where they refused the bytes
// (ValueError, TypeError, OverflowError, SystemError) raises Corrupt; other exceptions stay what
// they are.
nb::object made_of_bytes(PyObject* object);

}  // namespace penstock::py

// Maps faults of received bytes to exceptions.
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

// Takes the new reference that CPython or NumPy made of received bytes. If they refused the bytes
// (ValueError, TypeError, OverflowError, SystemError) raises Corrupt; other exceptions pass.
nb::object made_of_bytes(PyObject* object);

}  // namespace penstock::py

// A Python object that is a piece of memory, 64-byte aligned: the base of arrays that the codec
// makes, and the buffers of a pickle.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>

namespace penstock::py {

namespace nb = nanobind;

// Fresh, writable, uninitialised. `data` is where it begins.
nb::object new_memory(std::size_t bytes, std::byte*& data);

// Memory of another owner, read-only; keeps `owner` alive. Exports the buffer protocol.
nb::object borrowed_memory(const std::byte* data, std::size_t bytes, nb::handle owner);

// The same, to write into.
nb::object writable_memory(std::byte* data, std::size_t bytes, nb::handle owner);

// memcpy that lets other threads run Python meanwhile when it is long.
void copy_payload(std::byte* to, const std::byte* from, std::size_t bytes);

}  // namespace penstock::py

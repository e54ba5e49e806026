// A Python object that is a piece of memory, 64-byte aligned: the base of the codec's arrays, and
// the buffers of a pickle.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>

namespace penstock::py {

namespace nb = nanobind;

// Writable memory, which begins at `data` and holds anything: the caller writes all of it. From 128
// KiB on it is the pool's, which gets it back when nothing refers to the object any more.
nb::object new_memory(std::size_t bytes, std::byte*& data);

// `bytes` or a `bytearray` of that size, which begin at `data`, for the caller to fill. Fresh each
// time, because CPython's allocator frees it: from 4 MiB on in huge pages.
nb::object new_bytes(std::size_t size, std::byte*& data);
nb::object new_byte_array(std::size_t size, std::byte*& data);

// Another owner's memory, read-only; keeps `owner` alive. Exports the buffer protocol.
nb::object borrowed_memory(const std::byte* data, std::size_t bytes, nb::handle owner);

// memcpy that releases the GIL for long copies.
void copy_payload(std::byte* to, const std::byte* from, std::size_t bytes);

}  // namespace penstock::py

// NumPy dtypes that have no code of their own, as one MessagePack value (docs/codec.md, "descr").
#pragma once

#include <nanobind/nanobind.h>

#include <span>

#include "penstock/codec.hpp"

namespace penstock::py {

namespace nb = nanobind;

// Throws Refusal for dtypes that can't be sent: objects, longdouble, titles, size 0…
void write_descr(nb::handle dtype, codec::Writer& out);

// The dtype of a received descr. Raises Corrupt; never returns a dtype that holds objects.
nb::object read_descr(std::span<const std::byte> descr);

}  // namespace penstock::py

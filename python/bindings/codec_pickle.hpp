// The other codec: pickle protocol 5, its buffers out of band. Only used where the caller asked for
// it, because to read a pickle is to run what its writer wanted.
#pragma once

#include <nanobind/nanobind.h>

#include "codec_scratch.hpp"
#include "penstock/codec.hpp"

namespace penstock::py {

void encode_pickle(nb::handle value, Scratch& scratch);

// `size`: of the whole message. Owner: see decode() in codec.hpp; with one, buffers are read-only
// and keep it alive.
nb::object decode_pickle(const codec::MessageReader& message, std::size_t size, nb::handle owner);

// A host tensor of PyTorch over a buffer that it keeps alive: how a pickled tensor comes back.
nb::object tensor_over_buffer(nb::handle buffer, const char* dtype, const nb::tuple& shape);

}  // namespace penstock::py

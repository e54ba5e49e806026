// The pickle codec: protocol 5, buffers out of band. Used only if the caller asked for it, because
// reading a pickle runs its writer's code.
#pragma once

#include <nanobind/nanobind.h>

#include "codec_scratch.hpp"
#include "penstock/codec.hpp"

namespace penstock::py {

void encode_pickle(nb::handle value, Scratch& scratch);

// `size`: of the whole message. Owner: see decode() in codec.hpp; with an owner buffers are
// read-only and keep it alive.
nb::object decode_pickle(const codec::MessageReader& message, std::size_t size, nb::handle owner);

// A host tensor of PyTorch over a buffer that it keeps alive: the form in which a pickled tensor
// arrives.
nb::object tensor_over_buffer(nb::handle buffer, const char* dtype, const nb::tuple& shape);

}  // namespace penstock::py

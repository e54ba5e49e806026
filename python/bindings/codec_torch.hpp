// PyTorch's side of the codec: host tensors in and out, without linking to it. PyTorch is imported
// when a message brings a tensor, never with the module.
#pragma once

#include <nanobind/nanobind.h>

#include "codec_scratch.hpp"
#include "penstock/codec.hpp"

namespace penstock::py {

// Whether the program has imported PyTorch.
bool torch_is_in_use();

// torch.Tensor, torch.nn.Parameter, or a subclass. Needs PyTorch in use.
bool is_tensor(nb::handle value);

// Throws Refusal: other devices, sparse, nested or quantized tensors, subclasses.
void encode_tensor(nb::handle tensor, Scratch& scratch);

// A tensor over `view.data` (with an owner: keeps it alive; PyTorch can't mark it read-only) or
// over a copy of it. An invalid object if PyTorch can't be imported.
nb::object decode_tensor(const codec::TensorView& view, nb::handle owner);

}  // namespace penstock::py

// Tensors described by DLPack: what the codec takes from any library that speaks it, and how it
// hands one over.
#pragma once

#include <nanobind/nanobind.h>

#include "codec_scratch.hpp"
#include "dlpack.hpp"
#include "penstock/codec.hpp"

namespace penstock::py {

// Both directions of the dtype; Described, and bits 0, where there is no counterpart.
codec::DType dtype_of(dlpack::DataType type) noexcept;
dlpack::DataType dlpack_type(codec::DType dtype) noexcept;

// Adds the tensor, whose memory must live until the message has been written, and the reference to
// it. Throws Refusal: not in host memory, or of a dtype that we do not know.
void add_dlpack(const dlpack::Tensor& tensor, nb::handle value, codec::Source source,
                Scratch& scratch);

// Any object whose type has __dlpack__.
bool has_dlpack(nb::handle value);
void encode_dlpack(nb::handle value, Scratch& scratch);

// A tensor for another library to take over. It keeps `base`, which owns the data, alive.
// C or Fortran order; data in the message or in a copy of it.
dlpack::ManagedTensorVersioned* new_managed_tensor(const codec::TensorView& view, void* data,
                                                   nb::object base);

}  // namespace penstock::py

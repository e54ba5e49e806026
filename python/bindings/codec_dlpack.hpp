// Tensors described by DLPack: received from any library that supports it, and handed over to one.
#pragma once

#include <nanobind/nanobind.h>

#include "codec_scratch.hpp"
#include "dlpack.hpp"
#include "penstock/codec.hpp"

namespace penstock::py {

// Both directions of the dtype; Described, or bits 0, if there is no counterpart.
codec::DType dtype_of(dlpack::DataType type) noexcept;
dlpack::DataType dlpack_type(codec::DType dtype) noexcept;

// Adds the tensor, whose memory must stay valid until the message was written, and the reference to
// it. Throws Refusal if it is not in host memory or has an unsupported dtype.
void add_dlpack(const dlpack::Tensor& tensor, nb::handle value, codec::Source source,
                Scratch& scratch);

// Whether the object's type has __dlpack__.
bool has_dlpack(nb::handle value);
void encode_dlpack(nb::handle value, Scratch& scratch);

// A tensor for another library to own. It keeps `base`, which owns the data, alive. C or Fortran
// order; data in the message or in a copy of it.
dlpack::ManagedTensorVersioned* new_managed_tensor(const codec::TensorView& view, void* data,
                                                   nb::object base);

}  // namespace penstock::py

// NumPy's side of the codec: arrays and scalars in and out, dtypes to descrs and back. NumPy is
// imported when the first array is seen, not with the module.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <span>

#include "codec_scratch.hpp"
#include "penstock/codec.hpp"

namespace penstock::py {

// Null until NumPy is loaded. Comparing with it is the fast check for an array.
extern PyTypeObject* ndarray_type;

// Loads NumPy's C API if the program has imported NumPy. False if it has not.
bool numpy_is_in_use();

[[nodiscard]] inline bool is_ndarray(nb::handle value) noexcept {
    return Py_TYPE(value.ptr()) == ndarray_type;
}

// Both need NumPy in use, and throw Refusal. Subclasses of arrays other than np.memmap are refused.
bool is_array_or_subclass(nb::handle value) noexcept;
void encode_array(nb::handle array, Scratch& scratch);
bool is_numpy_scalar(nb::handle value) noexcept;
void encode_numpy_scalar(nb::handle scalar, codec::Writer& out);

// A new array over `view.data` (with an owner: read-only, keeps it alive) or over a copy of it.
// `descr` is that of a Described tensor.
nb::object decode_array(const codec::TensorView& view, std::span<const std::byte> descr,
                        nb::handle owner);
// A writable array over `view.data`, in C order and of that dtype; arrays made from it refer to
// `base`, which keeps the data alive, and not to the array itself.
nb::object room_array(const codec::TensorView& view, nb::handle dtype, nb::object base);
// Makes the array refer to `base` instead of the base it was made with, and read-only.
void settle_room_array(nb::handle array, nb::object base);
// The code of a dtype object, or Described; and the dtype object of a code, which raises
// Incompatible if it needs ml_dtypes and that is missing.
codec::DType dtype_code(nb::handle dtype);
nb::object dtype_of_code(codec::DType code);
// A new array of one dimension, to be filled at `data`; the dtype has a code.
nb::object new_row(codec::DType dtype, std::size_t count, std::byte*& data);
// Whether it is one of NumPy's own dtypes, without objects, with the same bytes on every processor
// of this byte order.
bool is_plain_dtype(nb::handle dtype);

// Body of an ext NumPyScalar, and the two parts of an ext DescribedScalar.
nb::object decode_numpy_scalar(std::span<const std::byte> body);
nb::object decode_described_scalar(std::span<const std::byte> descr,
                                   std::span<const std::byte> item);

}  // namespace penstock::py

// Columns of numbers as JSON text, without a Python object for each number. For the HTTP face,
// whose answers are mostly that.
#pragma once

#include <nanobind/nanobind.h>

namespace penstock::py {

namespace nb = nanobind;

void bind_json_numbers(nb::module_& module);

}  // namespace penstock::py

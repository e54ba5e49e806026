// Columns of numbers as JSON: text of lists to flat arrays, and back. For the HTTP face, whose
// groups are mostly that; nothing but the bytes of the arrays is ever allocated.
#pragma once

#include <nanobind/nanobind.h>

namespace penstock::py {

namespace nb = nanobind;

void bind_json_numbers(nb::module_& module);

}  // namespace penstock::py

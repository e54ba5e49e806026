// Columns of numbers in JSON text to flat arrays, without a Python object for each number. For the
// HTTP face, whose bodies are mostly that.
#pragma once

#include <nanobind/nanobind.h>

namespace penstock::py {

namespace nb = nanobind;

void bind_json_columns(nb::module_& module);

}  // namespace penstock::py

// Columns of numbers in JSON text to flat arrays, without a Python object for each number. For the
// HTTP server, whose request bodies consist mostly of such columns.
#pragma once

#include <nanobind/nanobind.h>

namespace penstock::py {

namespace nb = nanobind;

void bind_json_columns(nb::module_& module);

}  // namespace penstock::py

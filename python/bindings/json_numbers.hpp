// Columns of numbers as JSON text, without a Python object for each number. For the HTTP server,
// whose answers consist mostly of such columns.
#pragma once

#include <nanobind/nanobind.h>

namespace penstock::py {

namespace nb = nanobind;

void bind_json_numbers(nb::module_& module);

}  // namespace penstock::py

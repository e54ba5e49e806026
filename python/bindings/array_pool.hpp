// The process's pool of memory for arrays, for Python: buffers from it, and its statistics.
#pragma once

#include <nanobind/nanobind.h>

namespace penstock::py {

namespace nb = nanobind;

void bind_array_pool(nb::module_& module);

}  // namespace penstock::py

// Lists of Python numbers to arrays, and back: engines give tokens and their values as lists. NumPy
// reads each item twice and takes 30 to 40 ns for it, this a tenth.
#pragma once

#include <nanobind/nanobind.h>

namespace penstock::py {

void bind_number_lists(nanobind::module_& module);

}  // namespace penstock::py

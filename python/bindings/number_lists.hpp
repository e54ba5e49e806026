// Lists of Python's numbers as arrays, and back: tokens and what belongs to them come as lists from
// every engine. NumPy looks at each item twice and takes 30 to 40 ns for it, this a tenth.
#pragma once

#include <nanobind/nanobind.h>

namespace penstock::py {

void bind_number_lists(nanobind::module_& module);

}  // namespace penstock::py

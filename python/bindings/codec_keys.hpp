// Cache of dict keys: messages repeat their keys, and finding a str is cheaper than making and
// hashing it. It takes a quarter off the decoding of a dict of eight integers.
#pragma once

#include <nanobind/nanobind.h>

#include <string_view>

namespace penstock::py {

namespace nb = nanobind;

// A str with this content; short ASCII is cached. Needs the GIL.
nb::object key_text(std::string_view utf8);

}  // namespace penstock::py

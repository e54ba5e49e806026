// The keys of dicts that came before: messages repeat theirs, and to find a str is cheaper than to
// make it and to hash it. It takes a quarter off the decoding of a dict of eight integers.
#pragma once

#include <nanobind/nanobind.h>

#include <string_view>

namespace penstock::py {

namespace nb = nanobind;

// A str with this content; kept for the next time if it is short ASCII. The GIL is held.
nb::object key_text(std::string_view utf8);

}  // namespace penstock::py

// Converts bytes from another process, a file's name or a server to str. All such conversions are
// here: the bytes need not be UTF-8, and invalid ones must not end a listing of all others.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string_view>

namespace penstock::py {

namespace nb = nanobind;

enum class Text : std::uint8_t {
    ForPeople,  // invalid UTF-8 becomes U+FFFD
    FileName,   // invalid UTF-8 becomes surrogates, as by os.fsdecode(); parse_name() reverses it
};

nb::str to_text(std::string_view bytes, Text text = Text::ForPeople);

// For bindings: a member that is the name of a segment, as a str.
template <auto kMember, typename Class>
nb::str name_of(const Class& object) {
    return to_text(object.*kMember, Text::FileName);
}

// printable(text).
void bind_text(nb::module_& module);

}  // namespace penstock::py

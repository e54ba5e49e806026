// Bytes that another process, a file's name or a server gave, as str. Nothing else makes a str of
// them: they need not be UTF-8, and one that is not must not end a look at all the others.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string_view>

namespace penstock::py {

namespace nb = nanobind;

enum class Text : std::uint8_t {
    ForPeople,  // a byte that is no UTF-8 becomes U+FFFD
    FileName,   // it becomes a surrogate, as os.fsdecode() does: parse_name() has the bytes back
};

nb::str to_text(std::string_view bytes, Text text = Text::ForPeople);

// For bindings: a member that is the name of a segment, as Python has it.
template <auto kMember, typename Class>
nb::str name_of(const Class& object) {
    return to_text(object.*kMember, Text::FileName);
}

// printable(text).
void bind_text(nb::module_& module);

}  // namespace penstock::py

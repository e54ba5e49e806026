// Text that came from outside, for display: names of processes, files and environments. It may be
// hostile: not UTF-8, or with characters that a terminal obeys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace penstock::detail {

// At most `most` bytes from the start, without an incomplete character at the end.
std::string_view cut(std::string_view utf8, std::size_t most) noexcept;

bool is_utf8(std::string_view text) noexcept;

// UTF-8 without characters that a terminal obeys or does not show: control, format and
// bidirectional characters become \x1b and \u202e, and a byte that is not valid UTF-8 becomes \xff.
// For all output: error sentences, and what the command prints.
std::string printable(std::string_view text);

// The first character that a new name may not contain, as printable() shows it; empty if there is
// none. The same set as above, except characters that words of several languages need, such as the
// joiners U+200C and U+200D; invalid UTF-8 bytes are not looked for.
std::string find_unprintable(std::string_view name);

// The lowest `digits` hexadecimal digits of the number, small letters.
void append_hex(std::string& to, std::uint64_t number, int digits);

}  // namespace penstock::detail

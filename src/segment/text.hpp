// Text that came from outside, for people to read: names of processes, files and environments.
// What writes it may be hostile, so it need not be UTF-8, and may hold what a terminal obeys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace penstock::detail {

// The first `most` bytes at most, without a part of a character at the end.
std::string_view cut(std::string_view utf8, std::size_t most) noexcept;

bool is_utf8(std::string_view text) noexcept;

// UTF-8 without characters that a terminal obeys or does not show: those of control, format and
// bidirectional text come out as \x1b and \u202e, and a byte that is no part of UTF-8 as \xff.
// For whatever is printed: sentences of errors, and what the command shows.
std::string printable(std::string_view text);

// The first character that a new name may not hold, as printable() shows it; empty if there is
// none. The same characters as above, except those that words of several languages need, such as
// the joiners U+200C and U+200D; bytes that are no UTF-8 are none of these.
std::string find_unprintable(std::string_view name);

// The lowest `digits` hexadecimal digits of the number, small letters.
void append_hex(std::string& to, std::uint64_t number, int digits);

}  // namespace penstock::detail

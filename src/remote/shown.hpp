// Text of a server, or of a key, as a sentence quotes it: a stranger chose its bytes and its
// length.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "segment/text.hpp"

namespace penstock::detail {

// Without what a terminal would obey, and cut after `most` bytes.
inline std::string shown_text(std::string_view text, std::size_t most = 200) {
    return printable(cut(text, most)) + (text.size() > most ? "..." : "");
}

}  // namespace penstock::detail

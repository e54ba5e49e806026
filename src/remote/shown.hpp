// Untrusted text in error messages: a server or a user chose its bytes and its length.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "segment/text.hpp"

namespace penstock::detail {

// Printable text without terminal escapes, cut after `most` bytes.
inline std::string shown_text(std::string_view text, std::size_t most = 200) {
    return printable(cut(text, most)) + (text.size() > most ? "..." : "");
}

}  // namespace penstock::detail

// Text of a server, or of a key, as a sentence quotes it: a stranger chose its bytes and its
// length.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace penstock::detail {

// Printable ASCII, with '?' for anything else, and cut after `most` bytes.
inline std::string shown_text(std::string_view text, std::size_t most = 200) {
    std::string shown;
    for (const char letter : text.substr(0, most)) {
        shown += letter >= ' ' && letter <= '~' ? letter : '?';
    }
    return text.size() > most ? shown + "..." : shown;
}

}  // namespace penstock::detail

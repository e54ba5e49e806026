// Finds the members of one JSON object, or of each object in a list, without reading their values.
// Lenient: finds every member of valid JSON; the result for other text is arbitrary.
#pragma once

#include <cstddef>
#include <cstring>
#include <string_view>

#include "json_lists.hpp"

namespace penstock::py::json {

// The position behind the string whose opening quote is at `at`; null: unterminated.
inline const char* skip_string(const char* at, const char* end) noexcept {
    for (++at;; ++at) {
        while (at != end && *at != '"' && *at != '\\') ++at;
        if (at == end) return nullptr;
        if (*at == '"') return at + 1;
        if (++at == end) return nullptr;
    }
}

// The position behind the value at `at`; null: unterminated.
inline const char* skip_value(const char* at, const char* end) noexcept {
    std::size_t depth = 0;
    while (at != end) {
        switch (*at) {
            case '"':
                at = skip_string(at, end);
                if (at == nullptr || depth == 0) return at;
                continue;
            case '[':
            case '{':
                ++depth;
                break;
            case ']':
            case '}':
                if (depth == 0) return at;
                if (--depth == 0) return at + 1;
                break;
            case ',':
                if (depth == 0) return at;
                break;
            default:
                break;
        }
        ++at;
    }
    return nullptr;
}

// Calls `visit(group, key, at)` for each member: the number of its object, the text of its key, and
// the start of its value. It returns where the value ends, or null to have it skipped.
template <typename Visit>
class MemberFinder {
public:
    MemberFinder(std::string_view text, Visit visit) noexcept
        : at_(text.data()), end_(text.data() + text.size()), visit_(visit) {}

    // False: the text is no object, has a key with an escape, or is invalid.
    bool find() { return object(0) && is_at_end(); }
    // The same for a list of objects.
    bool find_in_list() {
        if (!eat('[')) return false;
        if (eat(']')) return is_at_end();
        std::size_t group = 0;
        do {
            if (!object(group++)) return false;
        } while (eat(','));
        return eat(']') && is_at_end();
    }

private:
    bool object(std::size_t group) {
        if (!eat('{')) return false;
        if (eat('}')) return true;
        do {
            if (!member(group)) return false;
        } while (eat(','));
        return eat('}');
    }

    bool member(std::size_t group) {
        at_ = skip_blanks(at_, end_);
        if (at_ == end_ || *at_ != '"') return false;
        const char* const begin = at_ + 1;
        at_ = skip_string(at_, end_);
        if (at_ == nullptr) return false;
        const std::string_view key(begin, static_cast<std::size_t>(at_ - 1 - begin));
        if (key.find('\\') != std::string_view::npos || !eat(':')) return false;
        at_ = skip_blanks(at_, end_);
        const char* const behind = visit_(group, key, at_);
        at_ = behind != nullptr ? behind : skip_value(at_, end_);
        return at_ != nullptr;
    }

    bool eat(char letter) noexcept {
        at_ = skip_blanks(at_, end_);
        if (at_ == end_ || *at_ != letter) return false;
        ++at_;
        return true;
    }
    bool is_at_end() noexcept {
        at_ = skip_blanks(at_, end_);
        return at_ == end_;
    }

    const char* at_;
    const char* end_;
    Visit visit_;
};

}  // namespace penstock::py::json

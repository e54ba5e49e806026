// Parses lists of numbers in JSON text, up to three levels deep, into flat rows of numbers. Strict:
// any other content is a failure. Allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "json_number.hpp"

namespace penstock::py::json {

constexpr bool is_blank(char letter) noexcept {
    return letter == ' ' || letter == '\n' || letter == '\t' || letter == '\r';
}

inline const char* skip_blanks(const char* at, const char* end) noexcept {
    while (at != end && is_blank(*at)) ++at;
    return at;
}

// The end of a list of numbers, or of such lists, and the room that it needs.
struct ListSize {
    const char* end = nullptr;  // null: other content, or unterminated
    std::size_t numbers = 0;    // at most
    std::size_t lists = 0;      // at all levels
};

// Measures a list before it is read, so that room is allocated once and not in excess.
class ListMeasure {
public:
    // `at` is at the '['.
    static ListSize measure(const char* at, const char* end) noexcept {
        ListMeasure list;
        while (list.is_open_ && end - at >= kBlock) {
            list.take_block(at);
            at += kBlock;
        }
        while (list.is_open_ && at != end) list.take(at++);
        return list.size_;
    }

private:
    static constexpr std::ptrdiff_t kBlock = 64;

    // Compiles to vector instructions: most blocks have numbers and commas only.
    void take_block(const char* at) noexcept {
        std::uint8_t commas = 0;
        std::uint8_t others = 0;
        for (std::ptrdiff_t i = 0; i < kBlock; ++i) {
            const char letter = at[i];
            commas = static_cast<std::uint8_t>(commas + static_cast<std::uint8_t>(letter == ','));
            const int is_other =
                (letter == '[') | (letter == ']') | (letter == '"') | (letter == '{');
            others = static_cast<std::uint8_t>(others | is_other);
        }
        if (others == 0) {
            size_.numbers += commas;
            return;
        }
        for (const char* const stop = at + kBlock; is_open_ && at != stop; ++at) take(at);
    }

    void take(const char* at) noexcept {
        switch (*at) {
            case ',':
                ++size_.numbers;
                break;
            case '[':
                ++size_.lists;
                ++depth_;
                break;
            case ']':
                if (--depth_ != 0) break;
                size_.end = at + 1;
                ++size_.numbers;
                is_open_ = false;
                break;
            case '"':
            case '{':  // so that text of many fields is not gone through for each of them
                is_open_ = false;
                break;
            default:
                break;
        }
    }

    ListSize size_;
    std::size_t depth_ = 0;
    bool is_open_ = true;
};

// Room for numbers, filled in order.
template <typename Value>
class Row {
public:
    Row() noexcept = default;
    Row(char* begin, std::size_t room) noexcept : begin_(begin), room_(room) {}

    bool add(Value value) noexcept {
        if (size_ == room_) return false;
        std::memcpy(begin_ + size_ * sizeof value, &value, sizeof value);
        ++size_;
        return true;
    }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

private:
    char* begin_ = nullptr;
    std::size_t room_ = 0;
    std::size_t size_ = 0;
};

// The numbers of all lists, and for nested lists the length of each sequence and the width of each
// token.
template <typename Value>
struct Rows {
    Row<Value> values;
    Row<std::int64_t> lengths;
    Row<std::int32_t> widths;
};

// Reads a list of numbers of 1 to 3 levels. False: `text` is no such list, a number does not fit
// into a Value, or there is no room.
template <typename Value>
class ListReader {
public:
    ListReader(const char* at, const char* end, Rows<Value>& rows) noexcept
        : at_(at), end_(end), rows_(rows) {}

    bool read(unsigned levels) noexcept {
        const bool is_read = levels == 1   ? numbers()
                             : levels == 2 ? list([this] { return sequence(); })
                                           : list([this] { return distilled(); });
        if (!is_read) return false;
        at_ = skip_blanks(at_, end_);
        return at_ == end_;
    }

private:
    bool sequence() noexcept {
        const std::size_t before = rows_.values.size();
        return numbers() &&
               rows_.lengths.add(static_cast<std::int64_t>(rows_.values.size() - before));
    }

    bool distilled() noexcept {
        const std::size_t before = rows_.widths.size();
        return list([this] { return token(); }) &&
               rows_.lengths.add(static_cast<std::int64_t>(rows_.widths.size() - before));
    }

    bool token() noexcept {
        const std::size_t before = rows_.values.size();
        if (!numbers()) return false;
        const std::size_t width = rows_.values.size() - before;
        return width <= std::numeric_limits<std::int32_t>::max() &&
               rows_.widths.add(static_cast<std::int32_t>(width));
    }

    template <typename Item>
    bool list(Item&& item) noexcept {
        if (!eat('[')) return false;
        if (eat(']')) return true;
        do {
            if (!item()) return false;
        } while (eat(','));
        return eat(']');
    }

    // The innermost list. Its state is kept in locals: written values may alias members, which
    // would be reloaded for each number.
    bool numbers() noexcept {
        if (!eat('[')) return false;
        if (eat(']')) return true;
        const char* at = at_;
        const char* const end = end_;
        Row<Value> values = rows_.values;
        while (true) {
            Value value{};
            at = read_number(skip_blanks(at, end), end, value);
            if (at == nullptr || !values.add(value)) return false;
            at = skip_blanks(at, end);
            if (at == end || *at != ',') break;
            ++at;
        }
        at_ = at;
        rows_.values = values;
        return eat(']');
    }

    bool eat(char letter) noexcept {
        at_ = skip_blanks(at_, end_);
        if (at_ == end_ || *at_ != letter) return false;
        ++at_;
        return true;
    }

    const char* at_;
    const char* end_;
    Rows<Value>& rows_;
};

}  // namespace penstock::py::json

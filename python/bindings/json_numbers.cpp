#include "json_numbers.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "arguments.hpp"
#include "errors.hpp"
#include "wait.hpp"

namespace penstock::py {
namespace {

// A growing buffer for text of unknown length.
class TextWriter {
public:
    explicit TextWriter(std::size_t room) { text_.reserve(room); }

    void add(char letter) { text_ += letter; }
    void add(std::string_view text) { text_ += text; }
    template <std::integral Value>
    void number(Value value) {
        add_digits(value);
    }
    // The shortest text that reads back as the same number, and as a real.
    void number(double value) {
        if (std::isnan(value)) return add("NaN");
        if (std::isinf(value)) return add(value < 0 ? "-Infinity" : "Infinity");
        const std::string_view digits = add_digits(value);
        if (digits.find_first_of(".e") == std::string_view::npos) add(".0");
    }
    [[nodiscard]] const std::string& text() const noexcept { return text_; }

private:
    template <typename Value>
    std::string_view add_digits(Value value) {
        std::array<char, 32> digits;
        const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
        const std::size_t begin = text_.size();
        text_.append(digits.data(), end);
        return std::string_view(text_).substr(begin);
    }

    std::string text_;
};

template <typename Value>
Value value_at(std::span<const std::byte> bytes, std::size_t index) noexcept {
    Value value;
    std::memcpy(&value, bytes.data() + index * sizeof value, sizeof value);
    return value;
}

// A list of `count` items, each written by `item`.
template <typename Item>
void write_list(TextWriter& out, std::size_t count, Item&& item) {
    out.add('[');
    for (std::size_t at = 0; at < count; ++at) {
        if (at != 0) out.add(',');
        item();
    }
    out.add(']');
}

// The bytes of values, lengths and widths; the last two may be absent.
struct Parts {
    std::span<const std::byte> values;
    std::optional<std::span<const std::byte>> lengths;
    std::optional<std::span<const std::byte>> widths;
};

template <typename Value>
class ListWriter {
public:
    ListWriter(const Parts& parts, TextWriter& out) noexcept : parts_(parts), out_(out) {}

    // False: lengths or widths do not add up to the number of values. Nothing beyond them is read.
    bool write() {
        const std::size_t all = parts_.values.size() / sizeof(Value);
        if (!parts_.lengths) {
            numbers(all);
            return true;
        }
        write_list(out_, parts_.lengths->size() / sizeof(std::int64_t), [this] { sequence(); });
        return is_sound_;
    }

private:
    void sequence() {
        const auto length = value_at<std::int64_t>(*parts_.lengths, sequence_++);
        const auto count = static_cast<std::size_t>(length);
        if (length < 0 || (parts_.widths && count > widths_left())) {
            is_sound_ = false;
        } else if (parts_.widths) {
            write_list(out_, count, [this] { token(); });
        } else {
            numbers(count);
        }
    }
    [[nodiscard]] std::size_t widths_left() const noexcept {
        return parts_.widths->size() / sizeof(std::int32_t) - token_;
    }
    void token() {
        const auto width = value_at<std::int32_t>(*parts_.widths, token_++);
        if (width < 0) {
            is_sound_ = false;
        } else {
            numbers(static_cast<std::size_t>(width));
        }
    }
    void numbers(std::size_t count) {
        if (count > parts_.values.size() / sizeof(Value) - value_) {
            is_sound_ = false;
            return;
        }
        write_list(out_, count, [this] { out_.number(value_at<Value>(parts_.values, value_++)); });
    }

    const Parts& parts_;
    TextWriter& out_;
    std::size_t sequence_ = 0;
    std::size_t token_ = 0;
    std::size_t value_ = 0;
    bool is_sound_ = true;
};

template <typename Value>
nb::object write_as(const Parts& parts) {
    constexpr std::size_t kUsual = 8;  // characters of a number
    TextWriter out(parts.values.size() / sizeof(Value) * kUsual + 2);
    bool is_sound = false;
    {
        std::optional<WithoutGil> without_gil;
        if (parts.values.size() >= kLongCopy) without_gil.emplace();
        is_sound = ListWriter<Value>(parts, out).write();
    }
    if (!is_sound) raise_error(ErrorCode::InvalidArgument, "lengths and values do not fit");
    return nb::bytes(out.text().data(), out.text().size());
}

nb::object write_json_numbers(nb::handle values, std::string_view dtype, nb::handle lengths,
                              nb::handle widths) {
    const Pinned pinned(values, Pinned::Access::Read);
    Parts parts{pinned.bytes(), std::nullopt, std::nullopt};
    std::optional<Pinned> pinned_lengths;
    std::optional<Pinned> pinned_widths;
    if (!lengths.is_none()) {
        parts.lengths = pinned_lengths.emplace(lengths, Pinned::Access::Read).bytes();
    }
    if (!widths.is_none()) {
        parts.widths = pinned_widths.emplace(widths, Pinned::Access::Read).bytes();
    }
    if (dtype == "int32") return write_as<std::int32_t>(parts);
    if (dtype == "int64") return write_as<std::int64_t>(parts);
    if (dtype == "float64") return write_as<double>(parts);
    raise_error(ErrorCode::InvalidArgument, "give int32, int64 or float64");
}

}  // namespace

void bind_json_numbers(nb::module_& module) {
    module.def(
        "_write_json_numbers",
        [](nb::handle values, const char* dtype, nb::handle lengths, nb::handle widths) {
            return write_json_numbers(values, dtype, lengths, widths);
        },
        nb::arg("values"), nb::arg("dtype"), nb::arg("lengths").none(), nb::arg("widths").none());
}

}  // namespace penstock::py

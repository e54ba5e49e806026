#include "json_numbers.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "arguments.hpp"
#include "errors.hpp"
#include "wait.hpp"

namespace penstock::py {
namespace {

constexpr bool is_digit(char letter) noexcept {
    return letter >= '0' && letter <= '9';
}

// A bytearray that is filled in order, without the GIL, up to the size that it was made with.
template <typename Value>
class Column {
public:
    explicit Column(std::size_t most)
        : bytes_(nb::steal<nb::object>(PyByteArray_FromStringAndSize(
              nullptr, static_cast<Py_ssize_t>(most * sizeof(Value))))),
          most_(most) {
        if (!bytes_.is_valid()) throw nb::python_error();
        begin_ = PyByteArray_AS_STRING(bytes_.ptr());
    }
    bool add(Value value) noexcept {
        if (size_ == most_) return false;
        std::memcpy(begin_ + size_ * sizeof value, &value, sizeof value);
        ++size_;
        return true;
    }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    nb::object take() {
        const auto nbytes = static_cast<Py_ssize_t>(size_ * sizeof(Value));
        if (PyByteArray_Resize(bytes_.ptr(), nbytes) != 0) throw nb::python_error();
        return std::move(bytes_);
    }

private:
    nb::object bytes_;
    char* begin_ = nullptr;
    std::size_t most_;
    std::size_t size_ = 0;
};

// Strict JSON, as far as lists of lists of numbers go. Everything else ends it.
template <typename Value>
class ListReader {
public:
    ListReader(std::string_view text, Column<Value>& values, Column<std::int64_t>* lengths,
               Column<std::int32_t>* widths) noexcept
        : at_(text.data()), end_(text.data() + text.size()), values_(values), lengths_(lengths),
          widths_(widths) {}

    // False: it is no such list, or a number does not fit into a Value.
    bool read() noexcept {
        const bool is_list = lengths_ == nullptr ? list([this] { return number(); })
                                                 : list([this] { return sequence(); });
        skip_blanks();
        return is_list && at_ == end_;
    }

private:
    bool sequence() noexcept {
        if (widths_ == nullptr) {
            const std::size_t before = values_.size();
            return list([this] { return number(); }) &&
                   lengths_->add(static_cast<std::int64_t>(values_.size() - before));
        }
        const std::size_t before = widths_->size();
        return list([this] { return token(); }) &&
               lengths_->add(static_cast<std::int64_t>(widths_->size() - before));
    }

    bool token() noexcept {
        const std::size_t before = values_.size();
        if (!list([this] { return number(); })) return false;
        const std::size_t width = values_.size() - before;
        return width <= std::numeric_limits<std::int32_t>::max() &&
               widths_->add(static_cast<std::int32_t>(width));
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

    bool number() noexcept {
        skip_blanks();
        const char* const begin = at_;
        if (at_ != end_ && *at_ == '-') ++at_;
        if (!whole_part()) return literal(begin);
        if constexpr (!std::integral<Value>) {
            if (!fraction() || !exponent()) return false;
        }
        Value value{};
        const auto [stop, error] = std::from_chars(begin, at_, value);
        return error == std::errc() && stop == at_ && values_.add(value);
    }

    bool whole_part() noexcept {
        if (at_ == end_ || !is_digit(*at_)) return false;
        if (*at_++ != '0') skip_digits();
        return true;
    }
    bool fraction() noexcept {
        if (at_ == end_ || *at_ != '.') return true;
        ++at_;
        return skip_digits();
    }
    bool exponent() noexcept {
        if (at_ == end_ || (*at_ != 'e' && *at_ != 'E')) return true;
        ++at_;
        if (at_ != end_ && (*at_ == '+' || *at_ == '-')) ++at_;
        return skip_digits();
    }
    // Which Python writes, and JSON does not know.
    bool literal(const char* begin) noexcept {
        if constexpr (std::integral<Value>) {
            return false;
        } else {
            constexpr std::string_view kNan = "NaN";
            constexpr std::string_view kInfinity = "Infinity";
            using Limits = std::numeric_limits<Value>;
            const std::string_view left(at_, static_cast<std::size_t>(end_ - at_));
            const bool is_negative = begin != at_;
            if (!is_negative && left.starts_with(kNan)) {
                at_ += kNan.size();
                return values_.add(Limits::quiet_NaN());
            }
            if (!left.starts_with(kInfinity)) return false;
            at_ += kInfinity.size();
            return values_.add(is_negative ? -Limits::infinity() : Limits::infinity());
        }
    }

    bool skip_digits() noexcept {
        const char* const begin = at_;
        while (at_ != end_ && is_digit(*at_)) ++at_;
        return at_ != begin;
    }
    void skip_blanks() noexcept {
        while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
    }
    bool eat(char letter) noexcept {
        skip_blanks();
        if (at_ == end_ || *at_ != letter) return false;
        ++at_;
        return true;
    }

    const char* at_;
    const char* end_;
    Column<Value>& values_;
    Column<std::int64_t>* lengths_;
    Column<std::int32_t>* widths_;
};

std::string_view text_of(const Pinned& pinned) {
    return {reinterpret_cast<const char*>(pinned.bytes().data()), pinned.bytes().size()};
}

// (dtype, values, lengths, widths), or None: the text is something else, or needs a wider dtype.
template <typename Value>
nb::object read_as(std::string_view text, unsigned levels, const char* dtype) {
    const auto count = [text](char letter) {
        return static_cast<std::size_t>(std::ranges::count(text, letter));
    };
    const std::size_t lists = levels > 1 ? count('[') : 0;
    Column<Value> values(count(',') + 1);
    std::optional<Column<std::int64_t>> lengths;
    std::optional<Column<std::int32_t>> widths;
    if (levels > 1) lengths.emplace(lists);
    if (levels > 2) widths.emplace(lists);
    bool is_read = false;
    {
        std::optional<WithoutGil> without_gil;
        if (text.size() >= kLongCopy) without_gil.emplace();
        is_read = ListReader<Value>(text, values, lengths ? &*lengths : nullptr,
                                    widths ? &*widths : nullptr)
                      .read();
    }
    if (!is_read) return nb::none();
    return nb::make_tuple(dtype, values.take(), lengths ? lengths->take() : nb::none(),
                          widths ? widths->take() : nb::none());
}

nb::object read_json_numbers(nb::handle source, unsigned levels, bool integers) {
    const Pinned pinned(source, Pinned::Access::Read);
    const std::string_view text = text_of(pinned);
    if (!integers) return read_as<double>(text, levels, "float64");
    nb::object read = read_as<std::int32_t>(text, levels, "int32");
    return read.is_none() ? read_as<std::int64_t>(text, levels, "int64") : read;
}

// Room for a text whose size is known only at its end.
class TextWriter {
public:
    explicit TextWriter(std::size_t room) { text_.reserve(room); }

    void add(char letter) { text_ += letter; }
    void add(std::string_view text) { text_ += text; }
    template <std::integral Value>
    void number(Value value) {
        add_digits(value);
    }
    // The shortest text that is read as the same number, and as a real one.
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

// The bytes of values, lengths and widths; the last two may be missing.
struct Parts {
    std::span<const std::byte> values;
    std::optional<std::span<const std::byte>> lengths;
    std::optional<std::span<const std::byte>> widths;
};

template <typename Value>
class ListWriter {
public:
    ListWriter(const Parts& parts, TextWriter& out) noexcept : parts_(parts), out_(out) {}

    // False: lengths or widths do not add up to what there is. Nothing beyond it is read.
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
        if (length < 0) {
            is_sound_ = false;
        } else if (!parts_.widths) {
            numbers(static_cast<std::size_t>(length));
        } else if (static_cast<std::size_t>(length) >
                   parts_.widths->size() / sizeof(std::int32_t) - token_) {
            is_sound_ = false;
        } else {
            write_list(out_, static_cast<std::size_t>(length), [this] { token(); });
        }
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
    constexpr std::size_t kUsual = 8;  // letters of a number
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
    module.def("_read_json_numbers", &read_json_numbers, nb::arg("text"), nb::arg("levels"),
               nb::arg("integers"));
    module.def(
        "_write_json_numbers",
        [](nb::handle values, const char* dtype, nb::handle lengths, nb::handle widths) {
            return write_json_numbers(values, dtype, lengths, widths);
        },
        nb::arg("values"), nb::arg("dtype"), nb::arg("lengths").none(), nb::arg("widths").none());
}

}  // namespace penstock::py

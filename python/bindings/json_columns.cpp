#include "json_columns.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "json_lists.hpp"
#include "json_members.hpp"
#include "wait.hpp"

namespace penstock::py {
namespace {

using json::ListMeasure;
using json::ListReader;
using json::ListSize;
using json::MemberFinder;
using json::Row;
using json::Rows;

// Columns below this size stay text: their Python representation is not much smaller.
constexpr std::size_t kMinCut = 1024;

std::string_view text_of(const Pinned& pinned) {
    return {reinterpret_cast<const char*>(pinned.bytes().data()), pinned.bytes().size()};
}

std::size_t size_between(const char* begin, const char* end) noexcept {
    return static_cast<std::size_t>(end - begin);
}

// Releases the GIL for long text.
template <typename Act>
auto unlocked(std::size_t nbytes, Act&& act) {
    std::optional<WithoutGil> without_gil;
    if (nbytes >= kLongCopy) without_gil.emplace();
    return act();
}

// A bytearray with room for numbers, shortened to those that were added.
template <typename Value>
class Buffer {
public:
    explicit Buffer(std::size_t room)
        : room_(room), bytes_(nb::steal<nb::object>(PyByteArray_FromStringAndSize(
                           nullptr, static_cast<Py_ssize_t>(room * sizeof(Value))))) {
        if (!bytes_.is_valid()) throw nb::python_error();
    }
    [[nodiscard]] Row<Value> row() const noexcept {
        return {PyByteArray_AS_STRING(bytes_.ptr()), room_};
    }
    nb::object take(const Row<Value>& filled) {
        const auto nbytes = static_cast<Py_ssize_t>(filled.size() * sizeof(Value));
        if (PyByteArray_Resize(bytes_.ptr(), nbytes) != 0) throw nb::python_error();
        return std::move(bytes_);
    }

private:
    std::size_t room_;
    nb::object bytes_;
};

// (dtype, values, lengths, widths); None if the list at `at` is something else, or needs a wider
// dtype.
template <typename Value>
nb::object read_as(const char* at, const ListSize& size, unsigned levels, const char* dtype) {
    Buffer<Value> values(size.numbers);
    std::optional<Buffer<std::int64_t>> lengths;
    std::optional<Buffer<std::int32_t>> widths;
    if (levels > 1) lengths.emplace(size.lists);
    if (levels > 2) widths.emplace(size.lists);
    Rows<Value> rows{values.row(), {}, {}};
    if (lengths) rows.lengths = lengths->row();
    if (widths) rows.widths = widths->row();
    const bool is_read = unlocked(size_between(at, size.end), [&] {
        return ListReader<Value>(at, size.end, rows).read(levels);
    });
    if (!is_read) return nb::none();
    return nb::make_tuple(dtype, values.take(rows.values),
                          lengths ? lengths->take(rows.lengths) : nb::none(),
                          widths ? widths->take(rows.widths) : nb::none());
}

nb::object read_list(const char* at, const ListSize& size, unsigned levels, bool integers) {
    if (!integers) return read_as<double>(at, size, levels, "float64");
    nb::object read = read_as<std::int32_t>(at, size, levels, "int32");
    return read.is_none() ? read_as<std::int64_t>(at, size, levels, "int64") : read;
}

nb::object read_json_numbers(nb::handle source, unsigned levels, bool integers) {
    const Pinned pinned(source, Pinned::Access::Read);
    const std::string_view text = text_of(pinned);
    const char* const begin = text.data();
    const char* const end = begin + text.size();
    const char* const at = json::skip_blanks(begin, end);
    const ListSize size =
        unlocked(text.size(), [at, end] { return ListMeasure::measure(at, end); });
    if (size.end == nullptr || json::skip_blanks(size.end, end) != end) return nb::none();
    return read_list(at, size, levels, integers);
}

// A field of a group that is a column.
struct Kind {
    std::string name;
    unsigned levels;
    bool integers;
};

std::vector<Kind> kinds_from(nb::handle columns) {
    std::vector<Kind> kinds;
    for (const nb::handle column : nb::iter(columns)) {
        kinds.push_back({nb::cast<const char*>(column[0]), nb::cast<unsigned>(column[1]),
                         nb::cast<bool>(column[2])});
    }
    return kinds;
}

// Where a column was found.
struct Found {
    std::size_t group;
    const Kind* kind;
    const char* at;
    ListSize size;
};

// Finds the long columns of one group, or of a list of groups, before anything is parsed.
class ColumnFinder {
public:
    ColumnFinder(std::string_view text, std::span<const Kind> kinds) noexcept
        : text_(text), kinds_(kinds), seen_(kinds.size()) {}

    // False: the text is left to the other decoder, or cutting does not pay. The rest of the text
    // is copied beside the original: if less than half is cut, that memory exceeds the text's own
    // cost.
    bool find(bool many) {
        const auto visit = [this](std::size_t group, std::string_view key, const char* at) {
            return visit_member(group, key, at);
        };
        MemberFinder finder(text_, visit);
        const bool is_found = many ? finder.find_in_list() : finder.find();
        return is_found && !is_repeated_ && nbytes_ >= text_.size() / 2 && !found_.empty();
    }
    [[nodiscard]] std::span<const Found> found() const noexcept { return found_; }

private:
    const char* visit_member(std::size_t group, std::string_view key, const char* at) {
        const auto kind = std::ranges::find(kinds_, key, &Kind::name);
        if (kind == kinds_.end()) return nullptr;
        std::size_t& seen = seen_[static_cast<std::size_t>(kind - kinds_.begin())];
        is_repeated_ = is_repeated_ || seen == group + 1;  // ambiguous
        seen = group + 1;
        const char* const end = text_.data() + text_.size();
        if (at == end || *at != '[') return nullptr;
        const ListSize size = ListMeasure::measure(at, end);
        if (size.end == nullptr || size_between(at, size.end) < kMinCut) return size.end;
        nbytes_ += size_between(at, size.end);
        found_.push_back({group, &*kind, at, size});
        return size.end;
    }

    std::string_view text_;
    std::span<const Kind> kinds_;
    std::vector<std::size_t> seen_;  // in which group the column was seen last, from 1
    std::vector<Found> found_;
    std::size_t nbytes_ = 0;
    bool is_repeated_ = false;
};

// The text with null in the place of some of its lists.
class Remainder {
public:
    explicit Remainder(std::string_view text) : text_(text), at_(text.data()) {}

    void cut(const char* begin, const char* end) {
        add({at_, size_between(at_, begin)});
        add("null");
        at_ = end;
    }
    nb::object take() {
        add({at_, size_between(at_, text_.data() + text_.size())});
        auto bytes = nb::steal<nb::object>(
            PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(nbytes_)));
        if (!bytes.is_valid()) throw nb::python_error();
        char* to = PyBytes_AS_STRING(bytes.ptr());
        for (const std::string_view part : parts_) to = std::ranges::copy(part, to).out;
        return bytes;
    }

private:
    void add(std::string_view part) {
        parts_.push_back(part);
        nbytes_ += part.size();
    }

    std::string_view text_;
    const char* at_;
    std::vector<std::string_view> parts_;
    std::size_t nbytes_ = 0;
};

// The text without its long columns, and those as (group, name, result of read_list); None if there
// are none, or the text is malformed.
nb::object cut_json_columns(nb::handle source, bool many, nb::handle columns) {
    const Pinned pinned(source, Pinned::Access::Read);
    const std::string_view text = text_of(pinned);
    if (text.size() < kMinCut) return nb::none();
    const std::vector<Kind> kinds = kinds_from(columns);
    ColumnFinder finder(text, kinds);
    if (!unlocked(text.size(), [&finder, many] { return finder.find(many); })) return nb::none();
    Remainder remainder(text);
    nb::list read;
    for (const Found& one : finder.found()) {
        nb::object column = read_list(one.at, one.size, one.kind->levels, one.kind->integers);
        if (column.is_none()) continue;
        remainder.cut(one.at, one.size.end);
        read.append(nb::make_tuple(one.group, one.kind->name.c_str(), std::move(column)));
    }
    return nb::make_tuple(remainder.take(), std::move(read));
}

}  // namespace

void bind_json_columns(nb::module_& module) {
    module.def("_read_json_numbers", &read_json_numbers, nb::arg("text"), nb::arg("levels"),
               nb::arg("integers"));
    module.def("_cut_json_columns", &cut_json_columns, nb::arg("text"), nb::arg("many"),
               nb::arg("columns"));
}

}  // namespace penstock::py

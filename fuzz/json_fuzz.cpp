// Any bytes as a body of the HTTP face: the reader of columns must survive them, stay within the
// measured room, and read each number as strtod does.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "../python/bindings/json_lists.hpp"
#include "../python/bindings/json_members.hpp"

namespace penstock::py::json {
namespace {

void require(bool holds, const char* what) {
    if (!holds) {
        std::fprintf(stderr, "json_fuzz: %s\n", what);
        std::abort();
    }
}

// A copy without a byte behind it, so that AddressSanitizer notices a read there.
std::vector<char> copy_of(std::string_view text) {
    return {text.begin(), text.end()};
}

template <typename Value>
void read_as(const char* at, const ListSize& size, unsigned levels) {
    std::vector<char> values(size.numbers * sizeof(Value));
    std::vector<char> lengths(size.lists * sizeof(std::int64_t));
    std::vector<char> widths(size.lists * sizeof(std::int32_t));
    Rows<Value> rows{
        {values.data(), size.numbers}, {lengths.data(), size.lists}, {widths.data(), size.lists}};
    if (!ListReader<Value>(at, size.end, rows).read(levels)) return;
    require(rows.values.size() <= size.numbers, "more numbers than were counted");
    require(rows.lengths.size() < size.lists + (levels == 1 ? 1 : 0), "a list too many");
}

const char* visit(const char* at, const char* end) {
    if (at == end || *at != '[') return nullptr;
    const ListSize size = ListMeasure::measure(at, end);
    if (size.end == nullptr) return nullptr;
    require(size.end > at && size.end <= end && size.end[-1] == ']', "where the list ends");
    for (unsigned levels = 1; levels <= 3; ++levels) {
        read_as<std::int32_t>(at, size, levels);
        read_as<std::int64_t>(at, size, levels);
        read_as<double>(at, size, levels);
    }
    return size.end;
}

void find_participants(std::string_view text) {
    const std::vector<char> copy = copy_of(text);
    const std::string_view body(copy.data(), copy.size());
    const char* const end = body.data() + body.size();
    const auto each = [end](std::size_t, std::string_view, const char* at) {
        return visit(at, end);
    };
    (void)MemberFinder(body, each).find();
    (void)MemberFinder(body, each).find_in_list();
}

void read_one_number(std::string_view text) {
    const std::vector<char> copy = copy_of(text);
    const char* const begin = copy.data();
    double value = 0;
    const char* const end = read_number(begin, begin + copy.size(), value);
    if (end == nullptr) return;
    const std::string number(begin, end);
    double expected = std::strtod(number.c_str(), nullptr);
    if (expected == 0 && number.find_first_of(".eE") == std::string::npos) expected = 0;
    const bool is_nan = value != value && expected != expected;
    require(is_nan || value == expected, "a number is read as another one");
}

}  // namespace
}  // namespace penstock::py::json

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t nbytes) {
    const std::string_view text(reinterpret_cast<const char*>(data), nbytes);
    penstock::py::json::find_participants(text);
    penstock::py::json::read_one_number(text);
    return 0;
}

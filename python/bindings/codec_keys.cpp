// A direct-mapped table with the newest key for each hash: a flood of different keys costs what it
// would cost without the table.
#include "codec_keys.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "codec_fault.hpp"

namespace penstock::py {
namespace {

constexpr std::size_t kLongest = 32;
constexpr std::size_t kEntries = 512;

std::array<PyObject*, kEntries> known{};  // references for the life of the interpreter

nb::object new_text(std::string_view utf8) {
    return made_of_bytes(
        PyUnicode_DecodeUTF8(utf8.data(), static_cast<Py_ssize_t>(utf8.size()), nullptr));
}

// Multiplicative hashing of eight bytes at a time; the upper bits of a product depend on all of
// them.
std::size_t slot(std::string_view utf8) noexcept {
    constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio
    constexpr unsigned kBits = std::countr_zero(kEntries);
    std::uint64_t hash = utf8.size();
    for (std::size_t at = 0; at < utf8.size(); at += sizeof(std::uint64_t)) {
        std::uint64_t word = 0;
        std::memcpy(&word, utf8.data() + at, std::min(sizeof(word), utf8.size() - at));
        hash = (hash ^ (hash >> 32U) ^ word) * kGolden;
    }
    return hash >> (64 - kBits);
}

bool is_same(PyObject* text, std::string_view utf8) noexcept {
    return static_cast<std::size_t>(PyUnicode_GET_LENGTH(text)) == utf8.size() &&
           std::memcmp(PyUnicode_DATA(text), utf8.data(), utf8.size()) == 0;
}

}  // namespace

nb::object key_text(std::string_view utf8) {
    if (utf8.empty() || utf8.size() > kLongest) {
        return new_text(utf8);
    }
    PyObject*& entry = known[slot(utf8)];
    if (entry != nullptr && is_same(entry, utf8)) {
        return nb::borrow(entry);
    }
    nb::object text = new_text(utf8);
    if (PyUnicode_IS_COMPACT_ASCII(text.ptr()) && PyObject_Hash(text.ptr()) != -1) {
        PyObject* const previous = entry;
        entry = nb::object(text).release().ptr();
        Py_XDECREF(previous);
    }
    return text;
}

}  // namespace penstock::py

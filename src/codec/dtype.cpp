// Names and item sizes of the dtypes.
#include <array>
#include <cstddef>

#include "penstock/codec.hpp"

namespace penstock::codec {
namespace {

struct Facts {
    std::string_view name;
    std::size_t size = 0;
};

// By code.
constexpr std::array<Facts, 24> kFacts{{
    {"", 0},
    {"bool", 1},
    {"int8", 1},
    {"int16", 2},
    {"int32", 4},
    {"int64", 8},
    {"uint8", 1},
    {"uint16", 2},
    {"uint32", 4},
    {"uint64", 8},
    {"float16", 2},
    {"float32", 4},
    {"float64", 8},
    {"complex64", 8},
    {"complex128", 16},
    {"bfloat16", 2},
    {"float8_e4m3fn", 1},
    {"float8_e5m2", 1},
    {"float8_e4m3fnuz", 1},
    {"float8_e5m2fnuz", 1},
    {"float8_e8m0fnu", 1},
    {"float8_e4m3", 1},
    {"float8_e3m4", 1},
    {"float8_e4m3b11fnuz", 1},
}};
static_assert(kFacts.size() == static_cast<std::size_t>(DType::Float8E4M3B11FNUZ) + 1);

Facts facts(DType dtype) noexcept {
    const auto code = static_cast<std::size_t>(dtype);
    return code < kFacts.size() ? kFacts[code] : Facts{};
}

}  // namespace

std::size_t item_size(DType dtype) noexcept {
    return facts(dtype).size;
}

DType dtype_named(std::string_view name) noexcept {
    for (std::size_t code = 1; code < kFacts.size(); ++code) {
        if (kFacts[code].name == name) return static_cast<DType>(code);
    }
    return DType::Described;
}

std::string_view name(DType dtype) noexcept {
    return dtype == DType::Described ? "described" : facts(dtype).name;
}

}  // namespace penstock::codec

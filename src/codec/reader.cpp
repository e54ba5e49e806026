// Reads MessagePack from untrusted bytes. Each number is read once, and a length or count is
// compared with the bytes left before it is used.
#include <bit>

#include "codec/big_endian.hpp"
#include "codec/markers.hpp"
#include "penstock/codec.hpp"

namespace penstock::codec {

bool Reader::fail(Fault fault) noexcept {
    fault_ = fault;
    return false;
}

template <typename T>
bool Reader::number(T& value) noexcept {
    if (remaining() < sizeof(T)) {
        return fail(Fault::Truncated);
    }
    value = load_big<T>(cursor_);
    cursor_ += sizeof(T);
    return true;
}

bool Reader::span(Token& token, Kind kind, std::size_t bytes) noexcept {
    if (remaining() < bytes) {
        return fail(Fault::Truncated);
    }
    token.kind = kind;
    token.bytes = {cursor_, bytes};
    cursor_ += bytes;
    return true;
}

// Every value of a container takes at least one byte, so a count above the bytes left is false:
// rejected here, before a caller reserves memory for it.
bool Reader::counted(Token& token, Kind kind, std::size_t count) noexcept {
    const std::size_t values = kind == Kind::Map ? 2 * count : count;
    if (remaining() < values) {
        return fail(Fault::Truncated);
    }
    token.kind = kind;
    token.count = count;
    return true;
}

bool Reader::extension_body(Token& token, std::size_t bytes) noexcept {
    std::uint8_t type = 0;
    if (!number(type)) {
        return false;
    }
    token.extension = static_cast<Extension>(type);
    return span(token, Kind::Extension, bytes);
}

template <typename T>
bool Reader::sized(Token& token, Kind kind) noexcept {
    T bytes = 0;
    return number(bytes) && span(token, kind, bytes);
}

template <typename T>
bool Reader::container(Token& token, Kind kind) noexcept {
    T count = 0;
    return number(count) && counted(token, kind, count);
}

template <typename T>
bool Reader::extension(Token& token) noexcept {
    T bytes = 0;
    return number(bytes) && extension_body(token, bytes);
}

namespace {

void set_natural(Token& token, std::uint64_t value) noexcept {
    if (std::bit_cast<std::int64_t>(value) >= 0) {
        token.kind = Kind::Integer;
        token.integer = std::bit_cast<std::int64_t>(value);
    } else {
        token.kind = Kind::Natural;
        token.natural = value;
    }
}

void set_integer(Token& token, std::int64_t value) noexcept {
    token.kind = Kind::Integer;
    token.integer = value;
}

void set_real(Token& token, double value) noexcept {
    token.kind = Kind::Real;
    token.real = value;
}

}  // namespace

bool Reader::next(Token& token) noexcept {
    std::uint8_t marker = 0;
    if (fault_ != Fault::None || at_end()) {
        return false;
    }
    number(marker);
    if (marker < marker::kFixMap) {
        set_integer(token, marker);
        return true;
    }
    if (marker >= marker::kNegative) {
        set_integer(token, std::bit_cast<std::int8_t>(marker));
        return true;
    }
    if (marker < marker::kFixArray) {
        return counted(token, Kind::Map, marker - marker::kFixMap);
    }
    if (marker < marker::kFixText) {
        return counted(token, Kind::Array, marker - marker::kFixArray);
    }
    if (marker < marker::kNil) {
        return span(token, Kind::Text, marker - marker::kFixText);
    }
    return wide(token, marker);
}

// Markers 0xc0 to 0xdf: values that are not packed into the marker itself.
bool Reader::wide(Token& token, std::uint8_t marker) noexcept {
    std::uint8_t u8 = 0;
    std::uint16_t u16 = 0;
    std::uint32_t u32 = 0;
    std::uint64_t u64 = 0;
    switch (marker) {
        case marker::kNil:
            token.kind = Kind::Nil;
            return true;
        case marker::kFalse:
        case marker::kTrue:
            token.kind = Kind::Boolean;
            token.boolean = marker == marker::kTrue;
            return true;
        case marker::kUInt8:
            return number(u8) && (set_natural(token, u8), true);
        case marker::kUInt16:
            return number(u16) && (set_natural(token, u16), true);
        case marker::kUInt32:
            return number(u32) && (set_natural(token, u32), true);
        case marker::kUInt64:
            return number(u64) && (set_natural(token, u64), true);
        case marker::kInt8:
            return number(u8) && (set_integer(token, std::bit_cast<std::int8_t>(u8)), true);
        case marker::kInt16:
            return number(u16) && (set_integer(token, std::bit_cast<std::int16_t>(u16)), true);
        case marker::kInt32:
            return number(u32) && (set_integer(token, std::bit_cast<std::int32_t>(u32)), true);
        case marker::kInt64:
            return number(u64) && (set_integer(token, std::bit_cast<std::int64_t>(u64)), true);
        case marker::kFloat32:
            return number(u32) && (set_real(token, double{std::bit_cast<float>(u32)}), true);
        case marker::kFloat64:
            return number(u64) && (set_real(token, std::bit_cast<double>(u64)), true);
        case marker::kText8:
            return sized<std::uint8_t>(token, Kind::Text);
        case marker::kText16:
            return sized<std::uint16_t>(token, Kind::Text);
        case marker::kText32:
            return sized<std::uint32_t>(token, Kind::Text);
        case marker::kBytes8:
            return sized<std::uint8_t>(token, Kind::Bytes);
        case marker::kBytes16:
            return sized<std::uint16_t>(token, Kind::Bytes);
        case marker::kBytes32:
            return sized<std::uint32_t>(token, Kind::Bytes);
        case marker::kArray16:
            return container<std::uint16_t>(token, Kind::Array);
        case marker::kArray32:
            return container<std::uint32_t>(token, Kind::Array);
        case marker::kMap16:
            return container<std::uint16_t>(token, Kind::Map);
        case marker::kMap32:
            return container<std::uint32_t>(token, Kind::Map);
        case marker::kFixExt1:
            return extension_body(token, 1);
        case marker::kFixExt2:
            return extension_body(token, 2);
        case marker::kFixExt4:
            return extension_body(token, 4);
        case marker::kFixExt8:
            return extension_body(token, 8);
        case marker::kFixExt16:
            return extension_body(token, 16);
        case marker::kExt8:
            return extension<std::uint8_t>(token);
        case marker::kExt16:
            return extension<std::uint16_t>(token);
        case marker::kExt32:
            return extension<std::uint32_t>(token);
        default:
            return fail(Fault::BadMarker);
    }
}

// Needs no stack: a container only adds its values to the count still to be skipped.
bool Reader::skip() noexcept {
    Token token;
    for (std::size_t left = 1; left > 0; --left) {
        if (!next(token)) {
            return fault_ == Fault::None ? fail(Fault::Truncated) : false;
        }
        if (token.kind == Kind::Array) {
            left += token.count;
        } else if (token.kind == Kind::Map) {
            left += 2 * token.count;
        }
        if (left - 1 > remaining()) {
            return fail(Fault::Truncated);
        }
    }
    return true;
}

}  // namespace penstock::codec

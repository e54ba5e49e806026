// Writes MessagePack, each value in its shortest form. Every call secures its room first, so that a
// failed one leaves nothing half written.
#include <cstring>
#include <limits>

#include "codec/big_endian.hpp"
#include "codec/markers.hpp"
#include "penstock/codec.hpp"

namespace penstock::codec {
namespace {

constexpr std::size_t kMaxLength = std::numeric_limits<std::uint32_t>::max();
constexpr std::size_t kExt8Head = 3;   // marker, length, type
constexpr std::size_t kExt32Head = 6;  // marker, four bytes of length, type

std::byte marker_byte(std::size_t value) noexcept {
    return static_cast<std::byte>(value);
}

std::uint8_t fixed_extension_marker(std::size_t bytes) noexcept {
    switch (bytes) {
        case 1:
            return marker::kFixExt1;
        case 2:
            return marker::kFixExt2;
        case 4:
            return marker::kFixExt4;
        case 8:
            return marker::kFixExt8;
        case 16:
            return marker::kFixExt16;
        default:
            return 0;
    }
}

}  // namespace

bool Writer::reserve(std::size_t bytes) noexcept {
    if (fault_ != Fault::None) {
        return false;
    }
    if (static_cast<std::size_t>(end_ - cursor_) >= bytes) {
        return true;
    }
    const std::size_t used = size();
    const std::span<std::byte> room =
        grow_ == nullptr ? std::span<std::byte>{} : grow_(context_, used, used + bytes);
    if (room.size() < used + bytes) {
        fault_ = Fault::TooLarge;
        return false;
    }
    begin_ = room.data();
    cursor_ = begin_ + used;
    end_ = begin_ + room.size();
    return true;
}

void Writer::clear() noexcept {
    cursor_ = begin_;
    fault_ = Fault::None;
}

void Writer::raw(std::span<const std::byte> data) noexcept {
    if (!data.empty() && reserve(data.size())) {
        std::memcpy(cursor_, data.data(), data.size());
        cursor_ += data.size();
    }
}

// A marker and a number of 1, 2, 4 or 8 bytes behind it.
void Writer::head(std::uint8_t marker, std::uint64_t value, std::size_t bytes) noexcept {
    constexpr std::size_t kWidest = 1 + sizeof(std::uint64_t);
    if (!reserve(1 + bytes)) {
        return;
    }
    std::byte whole[kWidest];
    whole[0] = marker_byte(marker);
    store_big(whole + 1, value << (8 * (sizeof(value) - bytes)));
    std::memcpy(cursor_, whole, 1 + bytes);
    cursor_ += 1 + bytes;
}

void Writer::nil() noexcept {
    if (reserve(1)) {
        *cursor_++ = marker_byte(marker::kNil);
    }
}

void Writer::boolean(bool value) noexcept {
    if (reserve(1)) {
        *cursor_++ = marker_byte(value ? marker::kTrue : marker::kFalse);
    }
}

void Writer::integer(std::int64_t value) noexcept {
    if (value >= 0) {
        natural(static_cast<std::uint64_t>(value));
        return;
    }
    const auto bits = static_cast<std::uint64_t>(value);
    if (value >= -32) {
        if (reserve(1)) {
            *cursor_++ = marker_byte(bits & 0xffU);
        }
    } else if (value >= std::numeric_limits<std::int8_t>::min()) {
        head(marker::kInt8, bits, 1);
    } else if (value >= std::numeric_limits<std::int16_t>::min()) {
        head(marker::kInt16, bits, 2);
    } else if (value >= std::numeric_limits<std::int32_t>::min()) {
        head(marker::kInt32, bits, 4);
    } else {
        head(marker::kInt64, bits, 8);
    }
}

void Writer::natural(std::uint64_t value) noexcept {
    if (value < marker::kFixMap) {
        if (reserve(1)) {
            *cursor_++ = marker_byte(value);
        }
    } else if (value <= std::numeric_limits<std::uint8_t>::max()) {
        head(marker::kUInt8, value, 1);
    } else if (value <= std::numeric_limits<std::uint16_t>::max()) {
        head(marker::kUInt16, value, 2);
    } else if (value <= std::numeric_limits<std::uint32_t>::max()) {
        head(marker::kUInt32, value, 4);
    } else {
        head(marker::kUInt64, value, 8);
    }
}

void Writer::real(double value) noexcept {
    head(marker::kFloat64, std::bit_cast<std::uint64_t>(value), 8);
}

// The head of text, bytes and containers. `marker8` may be 0: containers have no such form. The
// marker of the 32-bit form follows that of the 16-bit form.
void Writer::length(std::size_t count, std::uint8_t short_marker, std::size_t short_limit,
                    std::uint8_t marker8, std::uint8_t marker16) noexcept {
    if (count < short_limit) {
        if (reserve(1)) {
            *cursor_++ = marker_byte(short_marker + count);
        }
    } else if (marker8 != 0 && count <= std::numeric_limits<std::uint8_t>::max()) {
        head(marker8, count, 1);
    } else if (count <= std::numeric_limits<std::uint16_t>::max()) {
        head(marker16, count, 2);
    } else if (count <= kMaxLength) {
        head(static_cast<std::uint8_t>(marker16 + 1), count, 4);
    } else {
        fault_ = Fault::TooLarge;
    }
}

void Writer::text(std::string_view utf8) noexcept {
    length(utf8.size(), marker::kFixText, 32, marker::kText8, marker::kText16);
    raw(std::as_bytes(std::span(utf8)));
}

void Writer::bytes(std::span<const std::byte> data) noexcept {
    length(data.size(), 0, 0, marker::kBytes8, marker::kBytes16);
    raw(data);
}

void Writer::array(std::size_t count) noexcept {
    length(count, marker::kFixArray, 16, 0, marker::kArray16);
}

void Writer::map(std::size_t count) noexcept {
    length(count, marker::kFixMap, 16, 0, marker::kMap16);
}

void Writer::extension(Extension type, std::span<const std::byte> body) noexcept {
    if (const std::uint8_t fixed = fixed_extension_marker(body.size()); fixed != 0) {
        head(fixed, static_cast<std::uint64_t>(type), 1);
        raw(body);
        return;
    }
    length(body.size(), 0, 0, marker::kExt8, marker::kExt16);
    const auto code = static_cast<std::byte>(type);
    raw({&code, 1});
    raw(body);
}

void Writer::complex(double real, double imaginary) noexcept {
    std::byte body[2 * sizeof(double)];
    store_big(body, std::bit_cast<std::uint64_t>(real));
    store_big(body + sizeof(double), std::bit_cast<std::uint64_t>(imaginary));
    extension(Extension::Complex, body);
}

// Most bodies are short: leaves room for the short head, and moves a long body up at the end.
std::size_t Writer::begin_extension(Extension type) noexcept {
    const std::size_t mark = size();
    if (reserve(kExt8Head)) {
        cursor_[0] = marker_byte(marker::kExt8);
        cursor_[2] = static_cast<std::byte>(type);
        cursor_ += kExt8Head;
    }
    return mark;
}

void Writer::end_extension(std::size_t mark) noexcept {
    if (fault_ != Fault::None) {
        return;
    }
    const std::size_t body = size() - mark - kExt8Head;
    if (body <= std::numeric_limits<std::uint8_t>::max()) {
        begin_[mark + 1] = marker_byte(body);
        return;
    }
    if (body > kMaxLength) {
        fault_ = Fault::TooLarge;
        return;
    }
    if (!reserve(kExt32Head - kExt8Head)) {
        return;
    }
    std::byte* const head = begin_ + mark;
    const std::byte type = head[2];
    std::memmove(head + kExt32Head, head + kExt8Head, body);
    head[0] = marker_byte(marker::kExt32);
    store_big(head + 1, static_cast<std::uint32_t>(body));
    head[5] = type;
    cursor_ += kExt32Head - kExt8Head;
}

}  // namespace penstock::codec

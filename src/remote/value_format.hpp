// Encoding of an object in the second tier, and the checks of its decoder.
//
// Every object has a head, under `<prefix>o:<key>`: 64 bytes of header, the metadata, and the data
// if there are at most 64 KiB of them. More data lies in parts, under
// `<prefix>p:<checksum>:<part_bytes>:<number>:<key>`, written before the head, so that a head
// stands for a whole object. The names contain the checksum of the data: two heads never share
// parts that differ, and a rewrite of the same object leaves no part behind.
//
// The header, little-endian:
//    0   8  magic
//    8   4  version of this layout
//   12   1  format
//   13   3  zero
//   16   8  bytes of data
//   24   8  bytes of each part but the last; 0: the data is in the head
//   32   8  bytes of metadata
//   40  16  XXH3 of the data, 128 bits, low half first
//   56   8  XXH3 of the 56 bytes before this, the metadata and the key, 64 bits
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "penstock/format.hpp"

namespace penstock::detail {

inline constexpr std::uint32_t kValueVersion = 1;
inline constexpr std::size_t kValueHeader = 64;
inline constexpr std::uint64_t kInlineMost = std::uint64_t{64} << 10U;
inline constexpr std::uint64_t kMetaMost = std::uint64_t{16} << 20U;
inline constexpr std::uint64_t kPartLeast = std::uint64_t{4} << 10U;
inline constexpr std::uint64_t kPartMost = std::uint64_t{512} << 20U;
inline constexpr std::uint64_t kPartsMost = std::uint64_t{1} << 20U;
inline constexpr std::uint64_t kHeadMost = kValueHeader + kMetaMost + kInlineMost;

struct Checksum {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    bool operator==(const Checksum&) const noexcept = default;
};
Checksum checksum_of(std::span<const std::byte> data) noexcept;

// Decoded header. A value.
struct ValueHead {
    Format format = Format::Bytes;
    std::uint64_t nbytes = 0;
    std::uint64_t part_bytes = 0;
    Checksum checksum;

    [[nodiscard]] bool is_inline() const noexcept { return part_bytes == 0; }
    [[nodiscard]] std::uint64_t parts() const noexcept {
        return is_inline() ? 0 : (nbytes + part_bytes - 1) / part_bytes;
    }
    // Part `number` of `data`, which has the object's length.
    template <typename Byte>
    [[nodiscard]] std::span<Byte> part(std::span<Byte> data, std::uint64_t number) const noexcept {
        const std::uint64_t start = number * part_bytes;
        const std::uint64_t left = data.size() - start;
        return data.subspan(start, left < part_bytes ? left : part_bytes);
    }
};

std::string head_name(std::string_view prefix, std::string_view key);
std::string part_name(std::string_view prefix, std::string_view key, const ValueHead& head,
                      std::uint64_t number);

// Header and metadata of a head; the caller appends inline data.
std::string encode_head(const ValueHead& head, std::span<const std::byte> meta,
                        std::string_view key);

enum class HeadKind : std::uint8_t {
    Sound,
    Foreign,  // another version or format of Penstock's, not damaged
    Damaged,
};
// Views into the value. decode_head() accepts any bytes; the caller compares the data's checksum.
struct ReadHead {
    HeadKind kind = HeadKind::Damaged;
    ValueHead head;
    std::span<const std::byte> meta;
    std::span<const std::byte> data;  // if inline
};
ReadHead decode_head(std::span<const std::byte> value, std::string_view key) noexcept;

}  // namespace penstock::detail

// Encoder and decoder of heads. xxhash is used header-only: no library is linked for it.
#include "remote/value_format.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstring>

namespace penstock::detail {

namespace {

constexpr std::array<char, 8> kMagic = {'P', 'S', 'T', 'K', 'O', 'B', 'J', '\n'};
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kFormatAt = 12;
constexpr std::size_t kSizeAt = 16;
constexpr std::size_t kPartAt = 24;
constexpr std::size_t kMetaAt = 32;
constexpr std::size_t kChecksumAt = 40;
constexpr std::size_t kCheckAt = 56;

template <typename Number>
void write_little(std::byte* at, Number number) noexcept {
    for (std::size_t i = 0; i < sizeof(Number); ++i) {
        at[i] = static_cast<std::byte>(number >> (8 * i) & 0xFFU);
    }
}

template <typename Number>
Number read_little(const std::byte* at) noexcept {
    Number number = 0;
    for (std::size_t i = 0; i < sizeof(Number); ++i) {
        number |= static_cast<Number>(static_cast<Number>(at[i]) << (8 * i));
    }
    return number;
}

// Covers the key too, so that a value copied to another name is damaged there.
std::uint64_t check_of(const std::byte* header, std::span<const std::byte> meta,
                       std::string_view key) noexcept {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, header, kCheckAt);
    XXH3_64bits_update(&state, meta.data(), meta.size());
    XXH3_64bits_update(&state, key.data(), key.size());
    return XXH3_64bits_digest(&state);
}

// Checks that the sizes fit each other: they come from an untrusted server.
bool is_consistent(const ValueHead& head, std::uint64_t data_bytes) noexcept {
    if (head.is_inline()) return head.nbytes == data_bytes && data_bytes <= kInlineMost;
    return data_bytes == 0 && head.part_bytes >= kPartLeast && head.part_bytes <= kPartMost &&
           head.nbytes > kInlineMost && (head.nbytes - 1) / head.part_bytes < kPartsMost;
}

}  // namespace

Checksum checksum_of(std::span<const std::byte> data) noexcept {
    const XXH128_hash_t hash = XXH3_128bits(data.data(), data.size());
    return {hash.low64, hash.high64};
}

std::string head_name(std::string_view prefix, std::string_view key) {
    return std::string(prefix) + "o:" + std::string(key);
}

std::string part_name(std::string_view prefix, std::string_view key, const ValueHead& head,
                      std::uint64_t number) {
    std::array<char, 96> middle;
    std::snprintf(middle.data(), middle.size(),
                  "p:%016" PRIx64 "%016" PRIx64 ":%" PRIu64 ":%" PRIu64 ":", head.checksum.high,
                  head.checksum.low, head.part_bytes, number);
    return std::string(prefix) + middle.data() + std::string(key);
}

std::string encode_head(const ValueHead& head, std::span<const std::byte> meta,
                        std::string_view key) {
    std::array<std::byte, kValueHeader> header{};
    std::memcpy(header.data(), kMagic.data(), kMagic.size());
    write_little(&header[kVersionAt], kValueVersion);
    header[kFormatAt] = static_cast<std::byte>(head.format);
    write_little(&header[kSizeAt], head.nbytes);
    write_little(&header[kPartAt], head.part_bytes);
    write_little(&header[kMetaAt], static_cast<std::uint64_t>(meta.size()));
    write_little(&header[kChecksumAt], head.checksum.low);
    write_little(&header[kChecksumAt + 8], head.checksum.high);
    write_little(&header[kCheckAt], check_of(header.data(), meta, key));
    std::string value(reinterpret_cast<const char*>(header.data()), header.size());
    value.append(reinterpret_cast<const char*>(meta.data()), meta.size());
    return value;
}

ReadHead decode_head(std::span<const std::byte> value, std::string_view key) noexcept {
    ReadHead read;
    if (value.size() < kValueHeader) return read;
    const std::byte* const header = value.data();
    if (std::memcmp(header, kMagic.data(), kMagic.size()) != 0) return read;
    if (read_little<std::uint32_t>(header + kVersionAt) != kValueVersion) {
        read.kind = HeadKind::Foreign;
        return read;
    }
    const auto meta_bytes = read_little<std::uint64_t>(header + kMetaAt);
    if (meta_bytes > kMetaMost || meta_bytes > value.size() - kValueHeader) return read;
    read.meta = value.subspan(kValueHeader, meta_bytes);
    read.data = value.subspan(kValueHeader + meta_bytes);
    if (read_little<std::uint64_t>(header + kCheckAt) != check_of(header, read.meta, key)) {
        return read;
    }
    const auto format = static_cast<std::uint8_t>(header[kFormatAt]);
    read.head.format = static_cast<Format>(format);
    read.head.nbytes = read_little<std::uint64_t>(header + kSizeAt);
    read.head.part_bytes = read_little<std::uint64_t>(header + kPartAt);
    read.head.checksum = {read_little<std::uint64_t>(header + kChecksumAt),
                          read_little<std::uint64_t>(header + kChecksumAt + 8)};
    if (format > static_cast<std::uint8_t>(kLastFormat)) {
        read.kind = HeadKind::Foreign;  // sound, from a later version with more formats
    } else if (is_consistent(read.head, read.data.size())) {
        read.kind = HeadKind::Sound;
    }
    return read;
}

}  // namespace penstock::detail

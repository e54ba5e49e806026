// Encoder and decoder of heads. xxhash is used header-only: no library is linked for it.
#include "remote/value_format.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
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

// Checks that version, sizes and checksum fit each other: they come from an untrusted server.
bool is_consistent(const ValueHead& head, std::uint32_t version) noexcept {
    const bool is_version_2 = version == kSealedVersion;
    if (head.is_sealed() != is_version_2) return false;
    if (is_version_2) return head.nbytes <= kSealedMost && head.checksum == Checksum{};
    if (head.is_inline()) return true;
    return head.part_bytes >= kPartLeast && head.part_bytes <= kPartMost &&
           head.nbytes > kInlineMost && (head.nbytes - 1) / head.part_bytes < kPartsMost;
}

Checksum read_checksum(const std::byte* at) noexcept {
    return {read_little<std::uint64_t>(at), read_little<std::uint64_t>(at + 8)};
}

}  // namespace

Checksum checksum_of(std::span<const std::byte> data) noexcept {
    const XXH128_hash_t hash = XXH3_128bits(data.data(), data.size());
    return {hash.low64, hash.high64};
}

struct RunningChecksum::States {
    XXH3_state_t now;
    XXH3_state_t marked;
};

RunningChecksum::RunningChecksum() : states_(std::make_unique<States>()) {
    XXH3_128bits_reset(&states_->now);
    mark();
}

RunningChecksum::~RunningChecksum() = default;

void RunningChecksum::add(std::span<const std::byte> piece) noexcept {
    XXH3_128bits_update(&states_->now, piece.data(), piece.size());
}

Checksum RunningChecksum::value() const noexcept {
    const XXH128_hash_t hash = XXH3_128bits_digest(&states_->now);
    return {hash.low64, hash.high64};
}

void RunningChecksum::mark() noexcept {
    XXH3_copyState(&states_->marked, &states_->now);
}

void RunningChecksum::rewind() noexcept {
    XXH3_copyState(&states_->now, &states_->marked);
}

Seal seal_of(const Checksum& checksum) noexcept {
    Seal seal;
    write_little(seal.data(), checksum.low);
    write_little(seal.data() + 8, checksum.high);
    return seal;
}

Checksum read_seal(std::span<const std::byte, kSealBytes> seal) noexcept {
    return read_checksum(seal.data());
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
    const Checksum checksum = head.is_sealed() ? Checksum{} : head.checksum;
    write_little(&header[kVersionAt], head.is_sealed() ? kSealedVersion : kValueVersion);
    header[kFormatAt] = static_cast<std::byte>(head.format);
    write_little(&header[kSizeAt], head.nbytes);
    write_little(&header[kPartAt], head.part_bytes);
    write_little(&header[kMetaAt], static_cast<std::uint64_t>(meta.size()));
    write_little(&header[kChecksumAt], checksum.low);
    write_little(&header[kChecksumAt + 8], checksum.high);
    write_little(&header[kCheckAt], check_of(header.data(), meta, key));
    std::string value(reinterpret_cast<const char*>(header.data()), header.size());
    value.append(reinterpret_cast<const char*>(meta.data()), meta.size());
    return value;
}

ReadHead decode_head(std::span<const std::byte> value, std::string_view key,
                     std::optional<std::uint64_t> value_bytes) noexcept {
    ReadHead read;
    if (value.size() < kValueHeader) return read;
    const std::byte* const header = value.data();
    if (std::memcmp(header, kMagic.data(), kMagic.size()) != 0) return read;
    const auto version = read_little<std::uint32_t>(header + kVersionAt);
    if (version != kValueVersion && version != kSealedVersion) {
        read.kind = HeadKind::Foreign;
        return read;
    }
    const auto meta_bytes = read_little<std::uint64_t>(header + kMetaAt);
    if (meta_bytes > kMetaMost) return read;
    if (meta_bytes > value.size() - kValueHeader) {
        const bool is_all = value_bytes && meta_bytes > *value_bytes - kValueHeader;
        if (!is_all) read.kind = HeadKind::Cut;
        return read;
    }
    read.meta = value.subspan(kValueHeader, meta_bytes);
    if (read_little<std::uint64_t>(header + kCheckAt) != check_of(header, read.meta, key)) {
        return read;
    }
    ValueHead& head = read.head;
    const auto format = static_cast<std::uint8_t>(header[kFormatAt]);
    head.format = static_cast<Format>(format);
    head.nbytes = read_little<std::uint64_t>(header + kSizeAt);
    head.part_bytes = read_little<std::uint64_t>(header + kPartAt);
    head.checksum = read_checksum(header + kChecksumAt);
    if (format > static_cast<std::uint8_t>(kLastFormat)) {
        read.kind = HeadKind::Foreign;  // sound, from a later version with more formats
        return read;
    }
    if (!is_consistent(head, version)) return read;
    const std::span<const std::byte> rest = value.subspan(kValueHeader + meta_bytes);
    const std::uint64_t behind = head.bytes_behind_meta();
    if (value_bytes && *value_bytes - kValueHeader - meta_bytes != behind) return read;
    read.kind = HeadKind::Sound;
    read.data = rest.first(std::min<std::size_t>(rest.size(), head.is_inline() ? head.nbytes : 0));
    if (head.is_sealed() && rest.size() == behind) {
        head.checksum = read_seal(rest.subspan(head.nbytes).first<kSealBytes>());
    }
    return read;
}

}  // namespace penstock::detail

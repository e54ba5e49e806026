// Encoding of an object in the second tier, and the checks of its decoder.
//
// Every object has a head, under `<prefix>o:<key>`: 64 bytes of header, the metadata, and perhaps
// the data:
//   up to 64 KiB (inline)   version 1: the data ends the head.
//   up to 16 MiB (sealed)   version 2: the data, and behind it its checksum (the seal), which the
//                           writer computes while it sends. One request writes or reads the object.
//   more (in parts)         version 1: the data lies in parts, under
//                           `<prefix>p:<checksum>:<part_bytes>:<number>:<key>`, written before the
//                           head, so that a head stands for a whole object. The names contain the
//                           checksum of the data: two heads never share parts that differ, and a
//                           rewrite of the same object leaves no part behind.
// Where a sealed head would be longer than `part_bytes`, the data lies in parts, too.
//
// The header, little-endian:
//    0   8  magic
//    8   4  version: 1, or 2 for a sealed head
//   12   1  format
//   13   3  zero
//   16   8  bytes of data
//   24   8  bytes of each part but the last; 0: the data is in the head
//   32   8  bytes of metadata
//   40  16  XXH3 of the data, 128 bits, low half first; zero in a sealed head
//   56   8  XXH3 of the 56 bytes before this, the metadata and the key, 64 bits
// The seal: 16 bytes, XXH3 of the data, 128 bits, low half first.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "penstock/format.hpp"

namespace penstock::detail {

inline constexpr std::uint32_t kValueVersion = 1;
inline constexpr std::uint32_t kSealedVersion = 2;
inline constexpr std::size_t kValueHeader = 64;
inline constexpr std::size_t kSealBytes = 16;
inline constexpr std::uint64_t kInlineMost = std::uint64_t{64} << 10U;
inline constexpr std::uint64_t kSealedMost = std::uint64_t{16} << 20U;
inline constexpr std::uint64_t kMetaMost = std::uint64_t{16} << 20U;
inline constexpr std::uint64_t kPartLeast = std::uint64_t{4} << 10U;
inline constexpr std::uint64_t kPartMost = std::uint64_t{512} << 20U;
inline constexpr std::uint64_t kPartsMost = std::uint64_t{1} << 20U;
inline constexpr std::uint64_t kHeadMost = kValueHeader + kMetaMost + kSealedMost + kSealBytes;

struct Checksum {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    bool operator==(const Checksum&) const noexcept = default;
};
Checksum checksum_of(std::span<const std::byte> data) noexcept;

// The same checksum of data that comes piece by piece. One thread at a time.
class RunningChecksum {
public:
    RunningChecksum();
    RunningChecksum(const RunningChecksum&) = delete;
    RunningChecksum& operator=(const RunningChecksum&) = delete;
    ~RunningChecksum();

    void add(std::span<const std::byte> piece) noexcept;
    [[nodiscard]] Checksum value() const noexcept;
    // rewind() forgets what was added since mark(): a request that is made again sends or receives
    // its pieces again.
    void mark() noexcept;
    void rewind() noexcept;

private:
    struct States;
    std::unique_ptr<States> states_;
};

using Seal = std::array<std::byte, kSealBytes>;
Seal seal_of(const Checksum& checksum) noexcept;
Checksum read_seal(std::span<const std::byte, kSealBytes> seal) noexcept;

// Decoded header. A value.
struct ValueHead {
    Format format = Format::Bytes;
    std::uint64_t nbytes = 0;
    std::uint64_t part_bytes = 0;
    Checksum checksum;

    // Whether the data is in the head, sealed or not.
    [[nodiscard]] bool is_inline() const noexcept { return part_bytes == 0; }
    [[nodiscard]] bool is_sealed() const noexcept { return is_inline() && nbytes > kInlineMost; }
    // Bytes of a head that follow its metadata.
    [[nodiscard]] std::uint64_t bytes_behind_meta() const noexcept {
        return (is_inline() ? nbytes : 0) + (is_sealed() ? kSealBytes : 0);
    }
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

// Header and metadata of a head; inline data, and a seal, follow them.
std::string encode_head(const ValueHead& head, std::span<const std::byte> meta,
                        std::string_view key);

enum class HeadKind : std::uint8_t {
    Sound,
    Foreign,  // another version or format of Penstock's, not damaged
    Damaged,
    Cut,  // the given bytes end before its metadata does
};
// Views into the value. decode_head() accepts any bytes; the caller compares the data's checksum.
struct ReadHead {
    HeadKind kind = HeadKind::Damaged;
    ValueHead head;  // with the checksum of a seal, if all of the value was given
    std::span<const std::byte> meta;
    std::span<const std::byte> data;  // if inline: as much of it as was given
};
// `value`: all of a value, or its first bytes. `value_bytes`: the length of the whole; nullopt: not
// known, then nothing is compared with it.
ReadHead decode_head(std::span<const std::byte> value, std::string_view key,
                     std::optional<std::uint64_t> value_bytes) noexcept;
inline ReadHead decode_head(std::span<const std::byte> value, std::string_view key) noexcept {
    return decode_head(value, key, value.size());
}

}  // namespace penstock::detail

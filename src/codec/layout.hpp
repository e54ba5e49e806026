// The structs of a message that are not MessagePack: its header and the entries of its tensor
// table. docs/codec.md draws them; this is their only definition.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace penstock::codec::layout {

static_assert(std::endian::native == std::endian::little, "header and table are little-endian");

inline constexpr std::uint16_t kMagic = 0x5350;  // "PS"
inline constexpr std::uint8_t kVersion = 1;
inline constexpr std::uint8_t kFlagPickle = 1;

// The first bytes of every message. Written by the sender before it publishes, never after; readers
// copy it once.
struct Header {
    std::uint16_t magic;
    std::uint8_t version;
    std::uint8_t flags;
    std::uint32_t tensors;    // entries of the table
    std::uint64_t structure;  // bytes, from sizeof(Header) on
};
static_assert(sizeof(Header) == 16);
static_assert(offsetof(Header, version) == 2);
static_assert(offsetof(Header, flags) == 3);
static_assert(offsetof(Header, tensors) == 4);
static_assert(offsetof(Header, structure) == 8);

// One tensor. The table starts at the next multiple of 8 behind the structure; the dims, u64 each,
// follow the table.
struct TensorEntry {
    std::uint64_t offset;  // of the payload, from the message's first byte; a multiple of 64
    std::uint64_t nbytes;
    std::uint32_t first_dim;  // index into dims
    std::uint8_t dtype;
    std::uint8_t ndim;
    std::uint8_t order;
    std::uint8_t source;
};
static_assert(sizeof(TensorEntry) == 24);
static_assert(offsetof(TensorEntry, nbytes) == 8);
static_assert(offsetof(TensorEntry, first_dim) == 16);
static_assert(offsetof(TensorEntry, dtype) == 20);
static_assert(offsetof(TensorEntry, source) == 23);

constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t alignment) noexcept {
    return (value + alignment - 1) & ~(alignment - 1);
}

}  // namespace penstock::codec::layout

// The control block of a Store: participants, index, objects, heap. The only definition of those
// bytes.
//
// control: StoreState | SignalWord committed | StoreParticipant[participants] |
// WordOperation[participants] | IndexBucket[buckets] | StoreEntry[entries], each with its holder
// bits | heap. payload: the heap.
#pragma once

#include <atomic>
#include <cstdint>

#include "segment/layout.hpp"

namespace penstock::layout {

// Words of SegmentHeader::geometry.
enum StoreGeometry : unsigned {
    kStoreGranuleBytes = 0,
    kStoreGranules = 1,
    kStoreBuckets = 2,  // a power of two
    kStoreParticipants = 3,
    kStoreEviction = 4,
    kStorePersistent = 5,
    kStoreReserved = 6,  // 1: all memory is reserved at creation and stays
};

inline constexpr std::uint64_t kMaxStoreParticipants =
    kMaxSlots - 1;  // the last number stands for no owner
inline constexpr std::uint64_t kMaxStoreBytes = std::uint64_t{1} << 42U;
inline constexpr std::uint64_t kMaxBuckets = std::uint64_t{1} << 24U;
inline constexpr unsigned kWays = 8;    // entries of a bucket
inline constexpr unsigned kProbes = 4;  // buckets in a row in which a key may lie
inline constexpr std::uint64_t kMaxKeyBytes = 4096;
inline constexpr std::uint64_t kMaxMetaBytes = std::uint64_t{16} << 20U;

// State of an entry.
//
//   Free        no owner
//   Claimed(m)  participant m fills in the entry; others ignore it
//   Staged(m)   m writes the object; look-ups of the key report that
//   Resident    committed: look-ups find it
//   Evicting(m) m is evicting it; a reader can stop that by making it Resident again
//   Doomed      removed: look-ups miss it, and its last reader frees it
//   Freeing(m)  m frees its block
//   Expired(m)  m's reservation is no longer valid: the key is free, the memory is m's
enum class EntryState : std::uint8_t {
    Free = 0,
    Claimed = 1,
    Staged = 2,
    Resident = 3,
    Evicting = 4,
    Doomed = 5,
    Freeing = 6,
    Expired = 7,
};

// Payload of an entry's word; from the lowest bit: state 4, participant 10.
struct EntryWord {
    EntryState state = EntryState::Free;
    unsigned participant = 0;
};

constexpr std::uint64_t encode_entry(EntryState state, unsigned participant = 0) noexcept {
    return static_cast<std::uint64_t>(state) | std::uint64_t{participant} << 4U;
}
// Damaged words read as Claimed by no participant: a state without a next move.
constexpr EntryWord decode_entry(std::uint64_t value) noexcept {
    const auto state = static_cast<unsigned>(value & 0xFU);
    return {state <= 7 ? static_cast<EntryState>(state) : EntryState::Claimed,
            static_cast<unsigned>(value >> 4U & 0x3FFU)};
}

// One object. All words but `word`, `block` and the links are written by the participant that has
// the entry Claimed or Staged, relaxed: the word's moves carry them. Holder bits follow, one for
// each participant.
struct StoreEntry {
    Word word;                               // EntryWord
    std::atomic<std::uint64_t> hash[2];      // of the key
    std::atomic<std::uint64_t> incarnation;  // how often the entry was claimed
    Word block;                              // the heap's name for its memory
    std::atomic<std::uint64_t> header;       // EntryHeader
    std::atomic<std::uint64_t> nbytes;       // of the data
    Word newer;  // entry + 1 in the order of commits; 0: it is the newest, or not in it
    Word older;
    // From the lowest bit: visits 8, weight 8, retained 16. By all participants, by
    // compare-and-swap.
    std::atomic<std::uint64_t> favour;
    std::atomic<std::int64_t> expires_at;  // monotonic ns; 0: never
    std::uint64_t reserved[4];
    std::atomic<std::uint64_t> holders[1];  // and as many more words as there are participants / 64
};
static_assert(sizeof(StoreEntry) == kApart);

// Sizes of the block's bytes before the data: key, metadata, and both with padding. From the lowest
// bit: key 13, metadata 25, format 2, lead 24 in units of 64 bytes.
struct EntryHeader {
    std::uint64_t key_bytes = 0;
    std::uint64_t meta_bytes = 0;
    std::uint8_t format = 0;
    std::uint64_t lead_bytes = 0;
};

constexpr std::uint64_t encode_header(const EntryHeader& header) noexcept {
    return header.key_bytes | header.meta_bytes << 13U | std::uint64_t{header.format} << 38U |
           header.lead_bytes / 64 << 40U;
}
constexpr EntryHeader decode_header(std::uint64_t word) noexcept {
    return {word & 0x1FFFU, word >> 13U & 0x1FFFFFFU, static_cast<std::uint8_t>(word >> 38U & 3U),
            (word >> 40U) * 64};
}

// Entries number bucket * kWays to bucket * kWays + 7. A tag is 16 bits of the key's hash, never 0;
// 0: no entry. Written by the participant with the entry Claimed or Freeing, before its word moves.
struct alignas(32) IndexBucket {
    Word version;  // changes with every staging of a key that belongs here
    std::atomic<std::uint16_t> tags[kWays];
    std::uint64_t reserved;
};
static_assert(sizeof(IndexBucket) == 32);

struct alignas(kApart) StoreState {
    Word newest;  // entry + 1; 0: none
    Word oldest;
    std::atomic<std::uint64_t> hand;  // of SIEVE: entry + 1, where to go on; a hint
    // The first slot that was never taken: a look at all participants ends there. Raised before the
    // slot is announced; sequentially consistent.
    std::atomic<std::uint64_t> reach;
    // 1: the store is persistent, whatever the geometry says. Set by persist(), never cleared; read
    // by the last participant to leave and by visitors, while none can join. Relaxed: the kernel
    // orders the end of a participant's lock, by unlock or by death, before the look that finds it
    // free, and the name is removed only after such a look at every participant.
    std::atomic<std::uint64_t> stays;
};
static_assert(sizeof(StoreState) == kApart);

// Counters of one participant, added to by its threads, relaxed; for statistics only.
struct alignas(kApart) StoreParticipant {
    std::atomic<std::uint64_t> hits;
    std::atomic<std::uint64_t> misses;
    std::atomic<std::uint64_t> committed;
    std::atomic<std::uint64_t> committed_bytes;
    std::atomic<std::uint64_t> evicted;
    std::atomic<std::uint64_t> evicted_bytes;
    std::atomic<std::uint64_t> deleted;
    std::atomic<std::uint64_t> aborted;
    std::atomic<std::uint64_t> expired;
    std::atomic<std::uint64_t> refused;
};
static_assert(sizeof(StoreParticipant) == kApart);

struct StoreControl {
    StoreState state;
    SignalWord committed;  // waiters for a key sleep on it
};
static_assert(sizeof(StoreControl) == 2 * kApart);

}  // namespace penstock::layout

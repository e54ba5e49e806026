// The control block of a Broadcast and the records in its ring. The only definition of those bytes.
//
// control: WriterLine | WriterCounts | WriterState | RingLine | SignalWord data | SignalWord space
// | ReaderLine[readers] | holder bits. payload: ring[capacity] | blocks.
#pragma once

#include <atomic>
#include <cstdint>

#include "segment/layout.hpp"

namespace penstock::layout {

// Words of SegmentHeader::geometry.
enum BroadcastGeometry : unsigned {
    kReaders = 0,
    kCapacity = 1,      // bytes of the ring, a power of two
    kGranuleBytes = 2,  // of the blocks
    kGranules = 3,
    kOnReaderDeath = 4,
};

inline constexpr unsigned kMaxReaders = 256;
inline constexpr std::uint64_t kMinCapacity = 4096;
inline constexpr std::uint64_t kMaxCapacity = std::uint64_t{1} << 38U;
inline constexpr std::uint64_t kBroadcastGranule = std::uint64_t{64} << 10U;

// Slots of the participant table.
inline constexpr unsigned kWriterSlot = 0;
constexpr unsigned slot_of_rank(unsigned rank) noexcept {
    return rank + 1;
}

// The hot lines: stored by the writer with every message, loaded by a reader that has received all
// it knew of. A waiting reader fetches both at once, so the newest record lies here a second time
// if it is small: a reader that copies it from here need not fetch the ring's lines after them.
//
// The copy is a sequence lock. The writer stores newest_end, a release fence, then header and
// words, all relaxed, then releases the position. A reader that has seen the position compares
// newest_end, copies, and compares it again after an acquire fence: if it names another record the
// copy is void, and the reader takes the record from the ring.
struct alignas(kApart) WriterLine {
    static constexpr std::uint64_t kMaxBytes = 104;  // of payload

    std::atomic<std::uint64_t> position;  // bytes published since the beginning; release / acquire
    std::atomic<std::uint64_t> newest_end;     // end of the record that is copied here
    std::atomic<std::uint64_t> newest_header;  // its RecordHeader
    std::atomic<std::uint64_t> newest_words[kMaxBytes / 8];  // its payload
};
static_assert(sizeof(WriterLine) == kApart);

// Stored by the writer with every message. On lines of their own: a waiting reader would take the
// hot lines away between these stores and that of the position.
struct alignas(kApart) WriterCounts {
    std::atomic<std::uint64_t> messages;  // published; relaxed, stored before position
    std::atomic<std::uint64_t> bytes;     // of payload published; relaxed, for people
};
static_assert(sizeof(WriterCounts) == kApart);

// The cold line: seldom stored by the writer.
struct alignas(kApart) WriterState {
    std::atomic<std::uint64_t> closed;        // 1: closed in good order; release / acquire
    std::atomic<std::uint64_t> wanted;        // reader position that is to wake the writer;
                                              // stored before it announces itself
    std::atomic<std::int64_t> blocked_since;  // monotonic ns, 0: not blocked; relaxed, for people
    std::atomic<std::uint64_t> needed;  // least position it waits for, 0: kept blocks; for people
    std::atomic<std::uint64_t> large_messages;  // relaxed, for people
    std::atomic<std::uint64_t> waits;           // relaxed, for people
    std::atomic<std::uint64_t> sleeps;          // relaxed, for people
    std::atomic<std::uint64_t> held_bytes;      // in blocks that are not free; relaxed, for people
};
static_assert(sizeof(WriterState) == kApart);

// Where the ring begins. On a line of its own, which is seldom stored: readers load it after each
// look that found something.
struct alignas(kApart) RingLine {
    // Position p lies at (p + origin) mod capacity. A multiple of 8. The writer changes it while no
    // gating reader is behind its position, relaxed, before it releases the next position.
    std::atomic<std::uint64_t> origin;
};
static_assert(sizeof(RingLine) == kApart);

// One rank. Written by its reader, and by a janitor that holds the dead reader's lock.
struct alignas(kApart) ReaderLine {
    // Whether the rank gates the writer. Expected: no reader so far; gates at position 0, so that
    // nothing is lost before the first attachment. Expected -> Active: its first reader.
    // Active -> Vacant: its reader in good order, or its janitor. Vacant -> Active: a replacement.
    enum Gate : std::uint64_t { kExpected = 0, kActive = 1, kVacant = 2 };

    std::atomic<std::uint64_t> gate;      // release / acquire, sequentially consistent when joining
    std::atomic<std::uint64_t> position;  // bytes released; release / acquire
    std::atomic<std::uint64_t> messages;  // released; relaxed, stored before position
    std::atomic<std::uint64_t> start;     // message count at which this reader began; for people
    std::atomic<std::uint64_t> waits;     // relaxed, for people
    std::atomic<std::uint64_t> sleeps;    // relaxed, for people
};
static_assert(sizeof(ReaderLine) == kApart);

struct BroadcastControl {
    WriterLine writer;
    WriterCounts counts;
    WriterState state;
    RingLine ring;
    SignalWord data;   // readers sleep on it
    SignalWord space;  // the writer sleeps on it
};
static_assert(sizeof(BroadcastControl) == 6 * kApart);

// The 8 bytes before every payload in the ring, from the lowest bit: length 40, kind 2, skip 3
// (8-byte steps between header and payload), format 3, unused 1, tag 15 (low bits of the message
// count, so that a stray record is noticed).
enum class RecordKind : std::uint8_t { Invalid = 0, Inline = 1, Block = 2, Padding = 3 };

struct RecordHeader {
    std::uint64_t length = 0;  // of the payload; of a Padding: what to pass over after the header
    RecordKind kind = RecordKind::Invalid;
    std::uint8_t skip = 0;
    std::uint8_t format = 0;
    std::uint16_t tag = 0;
};

inline constexpr std::uint64_t kRecordHeaderBytes = 8;
inline constexpr std::uint64_t kLongestPayload = (std::uint64_t{1} << 40U) - 1;
inline constexpr std::uint64_t kTagMask = 0x7FFF;
inline constexpr std::uint64_t kPayloadAlignment = 64;

constexpr std::uint64_t encode_record(const RecordHeader& header) noexcept {
    return header.length | static_cast<std::uint64_t>(header.kind) << 40U |
           std::uint64_t{header.skip} << 42U | std::uint64_t{header.format} << 45U |
           std::uint64_t{header.tag} << 49U;
}

constexpr RecordHeader decode_record(std::uint64_t word) noexcept {
    return {word & kLongestPayload, static_cast<RecordKind>(word >> 40U & 3U),
            static_cast<std::uint8_t>(word >> 42U & 7U),
            static_cast<std::uint8_t>(word >> 45U & 7U),
            static_cast<std::uint16_t>(word >> 49U & kTagMask)};
}

// The payload of a Block record: the block's first granule, and the length of the message in it.
struct BlockRecord {
    std::uint32_t granule;
    std::uint32_t check;  // block_check() of the other two
    std::uint64_t length;
};
static_assert(sizeof(BlockRecord) == 16);

// A hash that exposes a record that was overwritten or belongs to another message.
constexpr std::uint32_t block_check(std::uint32_t granule, std::uint64_t length,
                                    std::uint16_t tag) noexcept {
    const std::uint64_t mixed = length * 0x9E3779B97F4A7C15 + granule * 0xC2B2AE3D27D4EB4F +
                                (std::uint64_t{tag} + 1) * 0x165667B19E3779F9;
    return static_cast<std::uint32_t>(mixed >> 32U);
}

// Bytes of the ring that a record takes: header, skip, payload, rounded up to 8.
constexpr std::uint64_t record_bytes(std::uint64_t length, std::uint64_t skip) noexcept {
    return round_up(kRecordHeaderBytes + skip * 8 + length, 8);
}

}  // namespace penstock::layout

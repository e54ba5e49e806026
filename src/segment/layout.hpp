// The bytes that every segment starts with: header, participant slots, signals, arena words.
// This file is their only definition; docs/layout.md explains it. Change a size or an offset and
// you change the layout: raise kLayoutVersion.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace penstock::layout {

inline constexpr std::uint64_t kMagic = 0x4B434F54534E4550;  // "PENSTOCK", read as little endian
inline constexpr std::uint32_t kLayoutVersion = 6;
inline constexpr std::uint32_t kByteOrder = 0x01020304;
// Words that different processes write lie this far apart: x86 prefetches lines in pairs, and
// some ARM cores have 128-byte lines. Fixed, because it is part of the layout.
inline constexpr std::size_t kApart = 128;
// The smallest page of any supported machine. The parts of a segment begin on pages of the
// creator's machine, which may be larger (os::page_size()).
inline constexpr std::uint64_t kPage = 4096;
inline constexpr std::size_t kNameBytes = 256;
inline constexpr std::size_t kGeometryWords = 8;
inline constexpr std::uint64_t kMaxSlots = 1024;

// Set where every waker uses only the light fence, so that every sleeper must use the heavy one.
inline constexpr std::uint64_t kFeatureAsymmetricFence = 1;
// Set by a creator that asked for huge pages: the payload's offset is a multiple of their size, and
// all that was reserved at creation stays reserved. Read by Segment::populate() and statistics.
inline constexpr std::uint64_t kFeatureHugePages = 2;
inline constexpr std::uint64_t kKnownFeatures = kFeatureAsymmetricFence | kFeatureHugePages;

// Offset 0 of the file. Written by the creator before the segment is published, never after; read
// by each participant, once, with pread. Its first byte carries the life-cycle lock: shared while
// a process joins, exclusive while one removes the segment.
struct SegmentHeader {
    std::uint64_t magic;
    std::uint32_t layout_version;
    std::uint32_t kind;          // penstock::Kind
    std::uint32_t byte_order;    // kByteOrder as the creator stores it
    std::uint32_t pointer_bits;  // 64
    std::uint64_t features;
    std::uint64_t instance[2];  // random; differs between segments of the same name
    std::uint64_t file_size;
    std::uint64_t slots_offset;
    std::uint64_t slot_count;
    std::uint64_t control_offset;
    std::uint64_t control_size;
    std::uint64_t payload_offset;
    std::uint64_t payload_size;              // address range; the reserved part may be smaller
    std::uint64_t geometry[kGeometryWords];  // the concept's own numbers
    std::int64_t created_at;                 // ns since the epoch, for people
    char name[kNameBytes];                   // for people, zero terminated
    std::uint64_t waiting;                   // penstock::WaitPolicy; an unknown one is Balanced
    std::uint64_t checksum;                  // FNV-1a of all bytes before it
};
static_assert(std::is_trivially_copyable_v<SegmentHeader>);
static_assert(offsetof(SegmentHeader, instance) == 32);
static_assert(offsetof(SegmentHeader, file_size) == 48);
static_assert(offsetof(SegmentHeader, geometry) == 104);
static_assert(offsetof(SegmentHeader, name) == 176);
static_assert(offsetof(SegmentHeader, waiting) == 432);
static_assert(offsetof(SegmentHeader, checksum) == 440);
static_assert(sizeof(SegmentHeader) == 448 && sizeof(SegmentHeader) <= kPage);

// What the waits of one kind of one participant have cost, over all participants that were in the
// slot. Written by its waiting threads (WaitMeter), relaxed, for display.
struct WaitCounts {
    std::atomic<std::uint64_t> spun;       // ns
    std::atomic<std::uint64_t> spins_won;  // waits that ended while spinning
    std::atomic<std::uint64_t> slept;      // waits that slept in the kernel
    std::uint64_t reserved[5];
};
static_assert(offsetof(WaitCounts, spins_won) == 8 && offsetof(WaitCounts, slept) == 16);
static_assert(sizeof(WaitCounts) == 64);

// One participant. It is alive while the kernel holds its write lock on the slot's first byte. All
// fields but `found_dead`, `deaths`, `last_death` and the counts of waits are written by the holder
// of that lock alone; `word` last, with release, read by all with acquire. The rest is for display
// and for watchers, relaxed.
struct ParticipantSlot {
    static constexpr std::uint64_t kFree = 0;
    static constexpr std::uint64_t kActive = 1;
    static constexpr std::size_t kTextWords = 8;
    // Parts of `last_death`, from the lowest bit: exit code, signal, or why neither is known, 8
    // bits; which of these, 2 (os::ProcessEnd::How); pid, 22; join number modulo 2^32.
    static constexpr unsigned kDeadHowShift = 8;
    static constexpr unsigned kDeadPidShift = 10;
    static constexpr unsigned kDeadJoinShift = 32;
    static constexpr std::uint32_t kMaxDeadPid = (1U << 22U) - 1;

    std::atomic<std::uint64_t>
        word;  // bit 0: kActive or kFree; bits 1..63: how often it was joined
    std::atomic<std::uint64_t> pid;
    std::atomic<std::uint64_t> pid_namespace;
    std::atomic<std::uint64_t> start_time;
    std::atomic<std::int64_t> attached_at;
    std::atomic<std::uint64_t> text[kTextWords];  // process name, zero padded
    // Join number of the last participant found dead here: from then on the slot's lock, if held,
    // is a janitor's. Written by the finder before it acts on the death; only grows. Read by those
    // that find the lock taken, and by the participant itself, which may be alive and have lost
    // its lock. Release and acquire: see Participants::note_dead().
    std::atomic<std::uint64_t> found_dead;
    // Participants found dead here. Written by the finder that moved `found_dead`, relaxed, for
    // display: a finder that dies between the two leaves a death uncounted.
    std::atomic<std::uint64_t> deaths;
    // The last death found here, for display: which participant and process, and how that ended; 0:
    // none. Written by its finder before `found_dead`, and again by any process that learns how the
    // process ended; read by all. Release and acquire: see Participants::write_death(). One word,
    // because the other fields become a successor's.
    std::atomic<std::uint64_t> last_death;
    // Lines of their own: one thread may receive while another sends, and every receiver reads
    // `found_dead` after every message.
    WaitCounts receiving;  // waits for messages and objects
    WaitCounts sending;    // waits for room and credit
};
static_assert(offsetof(ParticipantSlot, last_death) == 120);
static_assert(offsetof(ParticipantSlot, receiving) == 128);
static_assert(offsetof(ParticipantSlot, sending) == 192);
static_assert(sizeof(ParticipantSlot) == 256);

// The word that waiters sleep on. Bit 0: a waiter has announced itself; bits 1..31: count of
// wake-ups. The count wraps after 2^31: to miss a wake-up a sleeper would have to stay between its
// look and its sleep for that long, and its sleep is bounded anyway. Waiters set bit 0, wakers
// clear it by adding 1. What the last waker notes beside it tells waiters the cost
// of a wake-up; it affects only how long they spin.
struct alignas(kApart) SignalWord {
    std::atomic<std::uint32_t> word;
    std::atomic<std::uint32_t> waker_processor;  // that the last waker ran on
    std::atomic<std::int64_t> woken_at;          // monotonic ns, when it called the kernel
};
static_assert(sizeof(SignalWord) == kApart);

// One granule of an arena. See segment/memory/arena.hpp for the states and their moves.
struct GranuleWord {
    std::atomic<std::uint64_t> owner;
};
static_assert(sizeof(GranuleWord) == 8);

// A word that may change together with others: see segment/words/multi_word.hpp. From the lowest
// bit: payload 40, generation 23, mark 1. The generation grows by one with every change and wraps
// after 8.4 million: a stale compare-and-swap could succeed only if its process were stopped for
// exactly that many changes, and the payload were the same again.
using Word = std::atomic<std::uint64_t>;
inline constexpr unsigned kPayloadBits = 40;
inline constexpr std::uint64_t kPayloadMask = (std::uint64_t{1} << kPayloadBits) - 1;
inline constexpr std::uint64_t kGenerationMask = (std::uint64_t{1} << 23U) - 1;
inline constexpr std::uint64_t kWordMark = std::uint64_t{1} << 63U;
inline constexpr unsigned kMaxWords = 8;  // changed at once

// Description of one participant's multi-word change. Written by that participant alone, while no
// word refers to it; read by participants that meet a reference, which check `status` afterwards. A
// participant's successor continues its sequence.
struct alignas(kApart) WordOperation {
    std::atomic<std::uint64_t> status;  // from the lowest bit: OperationState 2, words 4, sequence
    std::atomic<std::uint64_t> place[kMaxWords];  // number of the word in the control block
    std::atomic<std::uint64_t> expected[kMaxWords];
    std::atomic<std::uint64_t> desired[kMaxWords];
    std::atomic<std::uint64_t> note;  // pending work after the change, see MultiWord::Note; 0: none
    std::uint64_t reserved[6];
};
static_assert(sizeof(WordOperation) == 2 * kApart);

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);
static_assert(sizeof(void*) == 8, "Penstock needs 64-bit processes");

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) noexcept {
    return (value + unit - 1) / unit * unit;
}

}  // namespace penstock::layout

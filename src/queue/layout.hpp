// The control block of a Queue: hints, participants and slots. The only definition of those bytes.
//
// control: tail | head | QueueState | SignalWord data | SignalWord space | SignalWord turn |
// QueueParticipant[participants] | QueueSlot[slots] | arena words | application. payload: a cell
// for every slot | arena.
#pragma once

#include <atomic>
#include <cstdint>

#include "segment/layout.hpp"

namespace penstock::layout {

// Words of SegmentHeader::geometry.
enum QueueGeometry : unsigned {
    kQueueSlots = 0,  // a power of two
    kCellBytes = 1,   // of a slot's cell in the payload, a multiple of 64
    kQueueGranuleBytes = 2,
    kQueueGranules = 3,
    kQueueParticipants = 4,
    kQueueRules = 5,   // QueueRules
    kApplication = 6,  // what the messages are; 0: just messages
    kApplicationBytes = 7,
};

// Granule of blocks: a page of the creator's machine, within these bounds.
inline constexpr std::uint64_t kMinQueueGranule = 4096;
inline constexpr std::uint64_t kMaxQueueGranule = std::uint64_t{1} << 20U;
inline constexpr std::uint64_t kMaxQueueSlots = std::uint64_t{1} << 24U;
inline constexpr std::uint64_t kMaxQueueBytes = std::uint64_t{1} << 38U;
inline constexpr std::uint64_t kMaxQueueParticipants = kMaxSlots;
inline constexpr std::uint64_t kMaxApplicationBytes = std::uint64_t{1} << 30U;
// From the lowest bit: delivery limit 32 (deliveries before a message becomes a dead letter; 0: no
// limit), whose close ends the stream 1 (0: its creator's, 1: its last producer's), when memory is
// reserved 1 (0: as messages need it, and given back when idle, 1: all at creation, for good).
struct QueueRules {
    std::uint64_t max_deliveries = 0;
    bool ends_with_last_producer = false;
    bool is_reserved = false;
};
constexpr std::uint64_t encode_rules(const QueueRules& rules) noexcept {
    return rules.max_deliveries | std::uint64_t{rules.ends_with_last_producer ? 1U : 0U} << 32U |
           std::uint64_t{rules.is_reserved ? 1U : 0U} << 33U;
}
constexpr QueueRules decode_rules(std::uint64_t word) noexcept {
    return {word & 0xFFFFFFFFU, (word >> 32U & 1U) != 0, (word >> 33U & 1U) != 0};
}

// Owns every block that a published message lies in, so that no participant's death frees it.
inline constexpr unsigned kQueueOwner = 0xFFF;
static_assert(kQueueOwner > kMaxQueueParticipants);

// State of a slot. A ticket is a position in the queue's order: lap * slots + index.
//
//   Empty(lap)      no owner; a producer may claim it for this lap
//   Claimed(lap)    its producer writes the message; consumers wait for it briefly
//   Ready(lap)      published
//   Taken(lap)      a consumer has the message
//   Done(lap)       acknowledged; its consumer frees the block
//   Overtaken(lap)  claimed, and passed: its producer must claim another slot
//   Returned(lap)   nacked, or its consumer died, or left waiting by a search: taken before any
//                   Ready slot
//   DeadLetter(lap) reached the delivery limit, or contradicts itself; until an operator requeues
//                   it (Returned, deliveries 0) or drops it (Done, the operator's)
//
// The lap only grows. It says which tickets of this slot are spent: all before it, and its own
// unless the slot is Empty, Claimed or Ready. A producer that passes a held slot on its way to a
// ticket that it can claim stores the later lap there.
enum class SlotState : std::uint8_t {
    Empty = 0,
    Claimed = 1,
    Ready = 2,
    Taken = 3,
    Done = 4,
    Overtaken = 5,
    Returned = 6,
    DeadLetter = 7,
};

// A slot's state and owner; from the lowest bit: state 3, owner 10, deliveries 6, lap 45. The lap
// wraps after 3.5e13 of them: at 20 million messages a second through 64 slots in 3 years.
struct SlotWord {
    SlotState state = SlotState::Empty;
    unsigned owner = 0;       // participant slot, of Claimed, Overtaken, Taken and Done
    unsigned deliveries = 0;  // how often it was taken; stays at kMaxDeliveries
    std::uint64_t lap = 0;
};
inline constexpr unsigned kMaxDeliveries = 63;
inline constexpr std::uint64_t kLapMask = (std::uint64_t{1} << 45U) - 1;

constexpr std::uint64_t encode_slot(const SlotWord& word) noexcept {
    return static_cast<std::uint64_t>(word.state) | std::uint64_t{word.owner} << 3U |
           std::uint64_t{word.deliveries} << 13U | (word.lap & kLapMask) << 19U;
}

constexpr SlotWord decode_slot(std::uint64_t word) noexcept {
    return {static_cast<SlotState>(word & 7U), static_cast<unsigned>(word >> 3U & 0x3FFU),
            static_cast<unsigned>(word >> 13U & 0x3FU), word >> 19U};
}

// A slot's contents; written by its producer while Claimed, `block` also by the participant that
// frees it. Relaxed: carried by the word's moves to Ready and to Taken.
struct alignas(64) QueueSlot {
    std::atomic<std::uint64_t> word;         // compare-and-swap only; acquire and release
    std::atomic<std::uint64_t> description;  // MessageDescription
    std::atomic<std::uint64_t> block;        // 0: none, else granule + 1 (high half), generation
    std::atomic<std::uint64_t> sequence;     // the ticket that it was published with
    std::atomic<std::int64_t> accepted_at;   // monotonic ns, in steps of a few ms; for people
    std::atomic<std::uint64_t> tag;          // the application's, for its accounts
    // encode_alone() of the last delivery that was of this message alone, not in a batch. Written
    // by the consumer that has the slot, before the message is handed out, and cleared by a
    // requeue; read when the message is nacked. Release / acquire.
    std::atomic<std::uint64_t> alone;
    std::atomic<std::uint64_t> order;  // the application's sort key; as tag
};
static_assert(sizeof(QueueSlot) == 64);

// Identifies one delivery of one message; never 0. A sequence beyond 2^58 loses its highest bits.
constexpr std::uint64_t encode_alone(std::uint64_t sequence, unsigned deliveries) noexcept {
    return sequence << 6U | deliveries;
}

// From the lowest bit: length 40, format 3, producer 10.
struct MessageDescription {
    std::uint64_t length = 0;
    std::uint8_t format = 0;
    unsigned producer = 0;
};

constexpr std::uint64_t encode_description(const MessageDescription& message) noexcept {
    return message.length | std::uint64_t{message.format} << 40U |
           std::uint64_t{message.producer} << 43U;
}

constexpr MessageDescription decode_description(std::uint64_t word) noexcept {
    return {word & ((std::uint64_t{1} << 40U) - 1), static_cast<std::uint8_t>(word >> 40U & 7U),
            static_cast<unsigned>(word >> 43U & 0x3FFU)};
}

// Where a search begins: no ticket before it qualifies. Any participant moves it forward; may lag.
struct alignas(kApart) TicketHint {
    std::atomic<std::uint64_t> ticket;  // release / acquire
};
static_assert(sizeof(TicketHint) == kApart);

struct alignas(kApart) QueueState {
    // 1: nothing more is accepted. Set by the participant that ends the stream, cleared by one that
    // reopens it; sequentially consistent.
    std::atomic<std::uint64_t> closed;
    // Bit 0: there may be Returned slots. Above it a count of announcements: see SlotRing.
    std::atomic<std::uint64_t> returned;
    // 1: there is, was, or is about to be a dead letter. Set before the slot's move, never cleared;
    // without it no look at every slot is needed. Relaxed.
    std::atomic<std::uint64_t> had_dead_letters;
    // Bit 0: a request may wait. Above it a count of requests and announcements, from which each
    // request gets its ticket: see WaitingLine. Compare-and-swap; acquire and release.
    std::atomic<std::uint64_t> line;
};
static_assert(sizeof(QueueState) == kApart);

// A request in line; 0: none. From the lowest bit: passed 1, several 1, ticket 62. Requests are
// served by ticket; at equal tickets the request for a single message goes first.
struct RequestWord {
    bool is_passed = false;     // gave no sign of life: ignored until it does
    bool is_several = false;    // for more than one message
    std::uint64_t arrival = 0;  // the count in QueueState::line when it came, plus 1
};

constexpr std::uint64_t encode_request(const RequestWord& word) noexcept {
    return (word.is_passed ? 1U : 0U) | (word.is_several ? 2U : 0U) | word.arrival << 2U;
}

constexpr RequestWord decode_request(std::uint64_t word) noexcept {
    return {(word & 1U) != 0, (word & 2U) != 0, word >> 2U};
}
inline constexpr std::uint64_t kPassedRequest = 1;

// One participant's words. Written by it, relaxed, for people; `role` also by its janitor.
struct alignas(kApart) QueueParticipant {
    std::atomic<std::uint64_t> role;  // 1: a producer; sequentially consistent
    std::atomic<std::uint64_t> accepted;
    std::atomic<std::uint64_t> accepted_bytes;
    std::atomic<std::uint64_t> taken;
    std::atomic<std::uint64_t> acknowledged;  // by any of its threads
    std::atomic<std::uint64_t> got;  // taken and acknowledged at once, by the taking thread
    std::atomic<std::uint64_t> nacked;
    std::atomic<std::uint64_t> dropped;
    std::atomic<std::uint64_t> waits;
    std::atomic<std::uint64_t> sleeps;
    // RequestWord of its waiting request. Written by it, release; a waiter sets is_passed, the
    // janitor stores 0. Read by all waiting requests, acquire.
    std::atomic<std::uint64_t> request;
    std::atomic<std::uint64_t> requested;  // messages, or what the application counts; for people
    std::atomic<std::uint64_t> beats;      // signs of life while it waits; by it, relaxed
};
static_assert(sizeof(QueueParticipant) == kApart);

struct QueueControl {
    TicketHint tail;
    TicketHint head;
    QueueState state;
    SignalWord data;   // consumers sleep on it
    SignalWord space;  // producers sleep on it
    SignalWord turn;   // requests that are not the first in line sleep on it
};
static_assert(sizeof(QueueControl) == 6 * kApart);

}  // namespace penstock::layout

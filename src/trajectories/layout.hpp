// The accounts of a queue of trajectories, in the application's bytes of its Queue. The only
// definition of those bytes.
//
// BoardState | SignalWord credit | BoardParticipant[participants]
#pragma once

#include <atomic>
#include <cstdint>

#include "queue/layout.hpp"

namespace penstock::layout {

// Queue's tag of a group, from the lowest bit: sequences 24, environment 40 (never 0).
struct GroupTag {
    std::uint64_t sequences = 0;
    std::uint64_t environment = 0;
};
inline constexpr std::uint64_t kMaxSequences = (std::uint64_t{1} << 24U) - 1;

constexpr std::uint64_t encode_tag(const GroupTag& tag) noexcept {
    return tag.sequences | tag.environment << 24U;
}
constexpr GroupTag decode_tag(std::uint64_t word) noexcept {
    return {word & kMaxSequences, word >> 24U};
}

// Groups and sequences in one word, so that they change together: sequences 40, groups 24.
struct Load {
    std::uint64_t groups = 0;
    std::uint64_t sequences = 0;
};
constexpr std::uint64_t encode_load(const Load& load) noexcept {
    return load.sequences | load.groups << 40U;
}
constexpr Load decode_load(std::uint64_t word) noexcept {
    return {word >> 40U, word & ((std::uint64_t{1} << 40U) - 1)};
}

inline constexpr std::uint64_t kStuck = 1;

// The trainers' words. `max_staleness` never changes.
struct alignas(kApart) BoardState {
    std::atomic<std::uint64_t> version;  // by any trainer: ack(), set_version(). Acquire / release
    std::atomic<std::uint64_t> batch_sequences;  // 0: no trainer has attached yet
    std::atomic<std::uint64_t> max_staleness;
    std::atomic<std::uint64_t> next_env_id;
    // 0, or kStuck + sequences that don't count against the window; parts by weight don't count
    // then either. Set by a trainer when nothing runs and the waiting groups make no batch, or when
    // another trainer's batch fills the window.
    std::atomic<std::uint64_t> shortage;
    std::atomic<std::uint64_t> batches;  // for people, as are the next ones; relaxed
    std::atomic<std::uint64_t> groups;
    std::atomic<std::uint64_t> sequences;
    std::atomic<std::uint64_t> dropped_stale;
    std::atomic<std::uint64_t> max_tokens;     // of a sequence; 0: no bound. By a trainer; relaxed
    std::atomic<std::uint64_t> dead_lettered;  // groups that no batch could be made of; for people
};
static_assert(sizeof(BoardState) == kApart);

// One environment's writer; valid while the Queue's participant in that slot is a producer. Written
// by that participant alone.
struct alignas(kApart) BoardParticipant {
    static constexpr std::size_t kNameWords = 8;

    std::atomic<std::uint64_t> environment;  // hash of its name; 0: none. Release / acquire
    // Load begun with credit and not put yet; seq_cst, see Board
    std::atomic<std::uint64_t> running;
    std::atomic<std::uint64_t> asking;  // Load for which credit is requested; seq_cst
    std::atomic<std::uint64_t> weight;  // a double's bits, as is the next; relaxed
    std::atomic<std::uint64_t> min_share;
    std::atomic<std::uint64_t> group_size;
    std::atomic<std::uint64_t> name[kNameWords];  // zero padded
};
static_assert(sizeof(BoardParticipant) == kApart);

struct BoardHead {
    BoardState state;
    SignalWord credit;  // environments sleep on it
};
static_assert(sizeof(BoardHead) == 2 * kApart);

}  // namespace penstock::layout

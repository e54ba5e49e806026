// Selection of the waiting groups that make the next batch. No shared memory here: sizes and ages
// only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace penstock::detail {

struct Candidate {
    std::uint64_t sequences = 0;  // 1 at least
    std::uint32_t share = 0;      // index into the minima; 0: no minimum
};

// Largest batch: the tables below grow with candidates times sequences.
inline constexpr std::uint64_t kMaxBatchSequences = 65'536;

// Of all sets of candidates with exactly `sequences` sequences, and at least minima[s] of each
// share s, the first by age: the oldest candidate is in it if any such set contains it, then the
// second oldest if any remaining set contains it, and so on. `candidates` are in order of age,
// minima[0] is 0. Fills `chosen` with their indices; false if there is no such set.
bool form_batch(std::span<const Candidate> candidates, std::uint64_t sequences,
                std::span<const std::uint64_t> minima, std::vector<std::uint32_t>& chosen);

}  // namespace penstock::detail

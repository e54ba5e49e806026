// A trainer's search for a batch: waiting groups are inspected in the queue, in order of age, and
// taken in exact batches.
#pragma once

#include <memory>

#include "trajectories/state.hpp"

namespace penstock::detail {

// Throws InvalidArgument unless a batch can have that many.
void check_sequences(std::uint64_t sequences);

// TrajectoryReader::next_batch(). Throws std::bad_alloc, and Error as check_sequences().
Result<TrajectoryBatch> search_batch(const std::shared_ptr<ReaderState>& state,
                                     const BatchRequest& request, const Wait& wait);
// Whether a search may find more than the last one did; takes nothing.
bool may_find_batch(const std::shared_ptr<ReaderState>& state);
// Copies of the groups that the last search saw in the queue and that still wait there. Throws
// std::bad_alloc.
void copy_left(const std::shared_ptr<ReaderState>& state,
               std::vector<std::vector<std::byte>>& messages);
// Takes all waiting groups and acknowledges them; returns how many. Throws std::bad_alloc.
std::uint64_t drop_waiting(const std::shared_ptr<ReaderState>& state);
// Waits until another search may find more than the last one did. Throws std::bad_alloc.
Status wait_for_more(const std::shared_ptr<ReaderState>& state, const Wait& wait);

}  // namespace penstock::detail

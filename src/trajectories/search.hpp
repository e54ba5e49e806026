// A trainer's search for a batch: what is there is taken, held in order of age, and left in exact
// batches.
#pragma once

#include <memory>

#include "trajectories/state.hpp"

namespace penstock::detail {

// Throws InvalidArgument for a number that no batch has.
void check_sequences(std::uint64_t sequences);

// TrajectoryReader::next_batch(). Throws std::bad_alloc, and Error as check_sequences().
Result<TrajectoryBatch> search_batch(const std::shared_ptr<ReaderState>& state,
                                     const BatchRequest& request, const Wait& wait);
// Until another search may find more than the last one did. Throws std::bad_alloc.
Status wait_for_more(const std::shared_ptr<ReaderState>& state, const Wait& wait);

}  // namespace penstock::detail

// Environments, trainers and batches as Python objects; penstock/trajectories/ is their face.
// Everything here needs the GIL.
#pragma once

#include "handle.hpp"
#include "penstock/trajectories.hpp"

namespace penstock::py {

// A batch of a reader; outlives it: the batch keeps the queue's memory by itself.
void bind_trajectory_batch(nb::module_& module);
void bind_trajectories(nb::module_& module);

}  // namespace penstock::py

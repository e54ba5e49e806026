// Environments, trainers and batches as Python objects, behind penstock/trajectories/. Needs the
// GIL.
#pragma once

#include "handle.hpp"
#include "penstock/trajectories.hpp"

namespace penstock::py {

// A batch may outlive its reader: it keeps the queue's memory by itself.
void bind_trajectory_batch(nb::module_& module);
void bind_trajectories(nb::module_& module);

}  // namespace penstock::py

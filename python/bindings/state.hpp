// The library's structs of participants and statistics, as dicts with the same names;
// penstock/state.py makes its dataclasses of them.
#pragma once

#include <nanobind/nanobind.h>

#include <vector>

#include "penstock/broadcast.hpp"
#include "penstock/queue.hpp"
#include "penstock/segment.hpp"
#include "penstock/store.hpp"
#include "penstock/trajectories.hpp"
#include "statistics.hpp"

namespace penstock::py {

namespace nb = nanobind;

nb::dict to_dict(const BroadcastReaderState& reader);
nb::dict to_dict(const Participant& participant);
nb::dict to_dict(const SegmentSummary& segment);
nb::dict to_dict(const BroadcastInfo& info);
nb::dict to_dict(const QueueRequest& request);
nb::dict to_dict(const QueueInfo& info);
nb::dict to_dict(const StoreInfo& info);
nb::dict to_dict(const TrajectoryInfo& info);
nb::dict to_dict(const Unwritten& unwritten);

template <typename T>
nb::list to_list(const std::vector<T>& items) {
    nb::list list;
    for (const T& item : items) {
        list.append(to_dict(item));
    }
    return list;
}

// list_segments, inspect_*, remove_if_abandoned, parse_size.
void bind_inspect(nb::module_& module);

}  // namespace penstock::py

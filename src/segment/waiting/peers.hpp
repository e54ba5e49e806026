// What may end a wait besides its condition and its Wait: the death of a peer, or the closing of
// its handle.
#pragma once

#include <cstdint>

#include "penstock/wait.hpp"
#include "segment/layout.hpp"

namespace penstock::detail {

// How long a wait may sleep between two looks while the watcher watches all its peers.
enum class Slices : std::uint8_t {
    Short,    // kSlice: the wait gives signs of life, or counts on those of other waits
    Growing,  // kSlice, and later a quarter of the time waited, kLongSlice at most: some of the
              // changes that the wait is for are not notified
    Long,     // kLongSlice: every change is notified
};

// See Participants::peers(). Outlives the wait, as what it refers to does.
struct Peers {
    const layout::ParticipantSlot* slots = nullptr;  // null: the wait looks every kSlice
    unsigned first = 0;                              // the peers are in slots `first` to `end` - 1
    unsigned end = 0;
    const Cancel* closing = nullptr;
    Slices slices = Slices::Short;  // may change in peer_gone()
};

}  // namespace penstock::detail

// What may end a wait besides its condition and its Wait: the death of a peer, or the closing of
// its handle.
#pragma once

#include "penstock/wait.hpp"
#include "segment/layout.hpp"

namespace penstock::detail {

// See Participants::peers(). Outlives the wait, as what it refers to does.
struct Peers {
    const layout::ParticipantSlot* slots = nullptr;  // null: the wait looks every kSlice
    unsigned first = 0;                              // the peers are in slots `first` to `end` - 1
    unsigned end = 0;
    const Cancel* closing = nullptr;
    // Whether each change that the wait needs is notified, so that it may sleep for kLongSlice.
    // Others notice some changes only because they look every kSlice. May change in peer_gone().
    bool is_patient = false;
};

}  // namespace penstock::detail

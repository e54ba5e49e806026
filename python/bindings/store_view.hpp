// Objects of stores on their way to Python and back: the `with` block that reads a pinned one, and
// the memory of one that Python fills in. Everything here needs the GIL.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "codec.hpp"
#include "penstock/store.hpp"

namespace penstock::py {

nb::object make_store_view(Codec codec, StoreObject object);
nb::object copy_of(const StoreObject& object, Codec codec);
// What was stored beside it.
nb::object meta_of(const StoreObject& object);
// Raises what making a value of these would: see check_message(). Of the metadata, what is the
// value's: whatever else a writer in C++ puts there is for callers that ask for it.
void check_object(Format format, std::span<const std::byte> bytes, std::span<const std::byte> meta,
                  Codec codec);
void bind_store_view(nb::module_& module);

// `alignment` is that of its memory: a power of two. `in_place`: see RoomMemory.
nb::object make_store_staged(StoreReservation room, std::size_t alignment, bool in_place);
// Raises why not. With a second tier it waits for that, without the GIL, where the policy says so.
void commit(StoreReservation& room, Deadline deadline);
// The same, and keeps the object pinned; also where it raises because the second tier has not got
// it.
void commit(StoreReservation& room, std::optional<StoreObject>& pinned, Deadline deadline);
// For the end of the process: writes reach none of the rooms that are open any more, and what is
// left over of them reads zeros. False: they may still reach one.
[[nodiscard]] bool cut_off_open_rooms() noexcept;
void bind_store_staged(nb::module_& module);

}  // namespace penstock::py

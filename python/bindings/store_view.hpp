// Objects of stores in Python: the `with` block that reads a pinned object, and the reservation
// that Python fills. Everything here needs the GIL.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "codec.hpp"
#include "penstock/store.hpp"

namespace penstock::py {

nb::object make_store_view(Codec codec, StoreObject object);
nb::object copy_of(const StoreObject& object, Codec codec);
// Metadata of the object; None if it has none.
nb::object meta_of(const StoreObject& object);
// Raises the errors of decoding the value: see check_message(). Of the metadata only a tensor's
// head is checked; the rest, which a writer in C++ may have put there, is decoded by meta_of().
void check_object(Format format, std::span<const std::byte> bytes, std::span<const std::byte> meta,
                  Codec codec);
void bind_store_view(nb::module_& module);

// `alignment` is that of its memory: a power of two. `in_place`: see RoomMemory.
nb::object make_store_staged(StoreReservation room, std::size_t alignment, bool in_place);
// Commits, or raises the error. With a second tier it may wait without the GIL, by policy.
void commit(StoreReservation& room, Deadline deadline);
// As above, and pins the object, even if it raises because the second tier lacks the object.
void commit(StoreReservation& room, std::optional<StoreObject>& pinned, Deadline deadline);
// For the end of the process: cuts all open rooms off from the store; left-over references read
// zeros. False: writes may still reach a room.
[[nodiscard]] bool cut_off_open_rooms() noexcept;
void bind_store_staged(nb::module_& module);

}  // namespace penstock::py

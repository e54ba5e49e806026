// What Python writes into while it fills a reservation: never the store's own mapping, so that what
// is left over of it after the commit can't reach the object.
//
// Small rooms are private memory, copied in at the commit. Large ones are the object's very pages,
// at addresses of their own (os/page_window.hpp), which show a private copy from the commit on.
// Pages that must not be moved are copied in too, unless the caller vouches for what is left over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "os/page_window.hpp"
#include "store_room.hpp"

namespace penstock::py {

// Everything here needs the GIL. In a forked child nothing may be called but the destructor.
class RoomMemory {
public:
    RoomMemory() noexcept = default;
    // Memory for what `room` has, aligned as its object is. `in_place`: pages that must not be
    // moved are written where they are, because the caller makes sure that nothing writes after the
    // commit; a GPU copies into memory that is registered with it. Throws std::bad_alloc.
    RoomMemory(const StoreRoom& room, std::size_t alignment, bool in_place);

    [[nodiscard]] bool is_made() const noexcept { return data() != nullptr; }
    [[nodiscard]] std::byte* data() const noexcept {
        if (in_place_ != nullptr) {
            return in_place_;
        }
        return window_.is_open() ? window_.data() : private_.get();
    }
    // From the commit on what is here is the object itself: it must stay pinned as long.
    [[nodiscard]] bool shows_object() const noexcept {
        return window_.is_open() || in_place_ != nullptr;
    }

    // Before the room is committed: all that was written is in it, and from here on no write
    // reaches it any more. Raises NoSpace, and keeps the room then until the process ends, because
    // it may still be written.
    void cut_off(StoreRoom& room);
    // The room will be another's in a moment: writes don't reach it any more, and what is left over
    // reads zeros. False: they still do.
    [[nodiscard]] bool take_away() noexcept;
    // Whether a room was kept, because it may still be written.
    [[nodiscard]] static bool is_any_kept() noexcept;
    // The object is not there any more: what is left over reads zeros.
    void forget_object() noexcept;
    // Instead of a commit; the room is free then. Raises as cut_off().
    void drop(StoreRoom& room);

private:
    struct Free {
        void operator()(std::byte* memory) const noexcept;
    };
    std::unique_ptr<std::byte, Free> private_;
    os::PageWindow window_;
    std::byte* in_place_ = nullptr;
};

}  // namespace penstock::py

// Memory that Python writes into while it fills a reservation: never the store's own mapping, so
// that references left over after the commit can't reach the object.
//
// Small rooms are private memory, copied in at the commit. Large ones are the object's own pages,
// at addresses of their own (os/page_window.hpp), which show a private copy from the commit on.
// Pages that must not be moved are copied too, unless the caller guarantees that nothing writes
// after the commit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "os/page_window.hpp"
#include "penstock/store.hpp"

namespace penstock::py {

// Needs the GIL. In a forked child only the destructor may be called.
class RoomMemory {
public:
    RoomMemory() noexcept = default;
    // Memory for `room`, aligned as its object is. `in_place`: pages that must not be moved are
    // written in the mapping itself, because the caller guarantees that nothing writes after the
    // commit; a GPU copies into memory that is registered with it. Throws std::bad_alloc.
    RoomMemory(const StoreReservation& room, std::size_t alignment, bool in_place);

    [[nodiscard]] bool is_made() const noexcept { return data() != nullptr; }
    [[nodiscard]] std::byte* data() const noexcept {
        if (in_place_ != nullptr) {
            return in_place_;
        }
        return window_.is_open() ? window_.data() : private_.get();
    }
    // After the commit this memory shows the object itself, which must stay pinned as long.
    [[nodiscard]] bool shows_object() const noexcept {
        return window_.is_open() || in_place_ != nullptr;
    }

    // Before the commit: puts everything that was written into the room, after which no write
    // reaches it. On failure raises NoSpace and keeps the room until the process ends, because it
    // may still be written.
    void cut_off(StoreReservation& room);
    // The room is about to be reused: makes left-over references read zeros, and their writes
    // private. False: writes still reach the room.
    [[nodiscard]] bool take_away() noexcept;
    // Whether a room was kept because it may still be written.
    [[nodiscard]] static bool is_any_kept() noexcept;
    // The object is gone: left-over references read zeros.
    void forget_object() noexcept;
    // Instead of a commit; frees the room. Raises as cut_off().
    void drop(StoreReservation& room);

private:
    struct Free {
        void operator()(std::byte* memory) const noexcept;
    };
    std::unique_ptr<std::byte, Free> private_;
    os::PageWindow window_;
    std::byte* in_place_ = nullptr;
};

}  // namespace penstock::py

#include "room_memory.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <system_error>
#include <utility>

#include "codec_memory.hpp"
#include "errors.hpp"

namespace penstock::py {
namespace {

// Size from which moving the pages (30 us, whatever the size) costs less than copying what was
// written: a copy of 256 KiB out of the cache takes as long.
constexpr std::size_t kLarge = std::size_t{256} << 10U;

// Zeroed: bytes that are not written are published too, and must not be old data of this process.
std::byte* allocate(std::size_t bytes, std::size_t alignment) {
    const std::size_t size = (std::max<std::size_t>(bytes, 1) + alignment - 1) & ~(alignment - 1);
    void* const memory = std::aligned_alloc(alignment, size);
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
    return static_cast<std::byte*>(std::memset(memory, 0, size));
}

bool has_given_up = false;

// Leaks the reservation, so that the room is not reused: its writers can't be stopped.
[[noreturn]] void give_up(StoreReservation& room, const std::error_code& error) {
    [[maybe_unused]] const auto* const kept = new StoreReservation(std::move(room));
    has_given_up = true;
    raise_error(ErrorCode::NoSpace,
                "could not take the reservation's memory from those who write into it (" +
                    error.message() +
                    "): nothing was committed, and the room stays taken until this process ends");
}

}  // namespace

void RoomMemory::Free::operator()(std::byte* memory) const noexcept {
    std::free(memory);
}

RoomMemory::RoomMemory(const StoreReservation& room, std::size_t alignment, bool in_place) {
    const std::span<std::byte> bytes = room.bytes();
    const bool is_fixed = room.is_fixed();
    if (in_place && is_fixed) {
        in_place_ = bytes.data();
        return;
    }
    if (bytes.size() >= kLarge && !is_fixed) {
        std::error_code error;  // ignored: the room is copied instead
        window_ = os::PageWindow::open(bytes.data(), bytes.size(), error);
    }
    if (!window_.is_open()) {
        private_.reset(allocate(bytes.size(), std::max<std::size_t>(alignment, 64)));
    }
}

void RoomMemory::cut_off(StoreReservation& room) {
    // If the store was left, at exit, or lost, the room may be in use by another process.
    if (in_place_ != nullptr || !room.is_usable()) {
        return;
    }
    const std::span<std::byte> bytes = room.bytes();
    if (!window_.is_open()) {
        return copy_payload(bytes.data(), private_.get(), bytes.size());
    }
    // Pages are moved back without the descriptor if the kernel can.
    const StorePlace place = room.place();
    std::error_code error = window_.give_back(place.descriptor, place.offset, !place.is_fixed);
    if (!error) {
        error = window_.show_private(place.descriptor, place.offset);
        if (!error && room.place().descriptor != place.descriptor) {  // closed meanwhile
            error = window_.show_zeros();
        }
    }
    if (error) {
        give_up(room, error);
    }
}

bool RoomMemory::is_any_kept() noexcept {
    return has_given_up;
}

bool RoomMemory::take_away() noexcept {
    return in_place_ == nullptr && (!window_.is_open() || !window_.show_zeros());
}

void RoomMemory::forget_object() noexcept {
    // The range is private already: if it must stay, it is harmless.
    if (window_.is_open()) {
        [[maybe_unused]] const std::error_code error = window_.show_zeros();
    }
}

void RoomMemory::drop(StoreReservation& room) {
    if (!window_.is_open()) {
        return;
    }
    if (const std::error_code error = window_.show_zeros()) {
        give_up(room, error);
    }
}

}  // namespace penstock::py

// Whether the one who waits wants to go on, for waits of this folder, which are not for a word in
// shared memory.
#pragma once

#include <mutex>

#include "penstock/wait.hpp"
#include "segment/waiting/timing.hpp"

namespace penstock::detail {

// May call back into the caller's language: hold nothing meanwhile that it may want.
inline bool has_ended(const Wait& wait, Clock::time_point now) noexcept {
    return wait.deadline.has_passed(now) ||
           (wait.cancel != nullptr && wait.cancel->is_cancelled()) ||
           (wait.interrupted != nullptr && wait.interrupted(wait.context));
}

// The same between requests, which may be short and many: its `interrupted` may cost a lock, and is
// asked now and then.
inline bool has_ended_by_now(const Wait& wait) noexcept {
    thread_local Clock::time_point next_look{};
    const auto now = Clock::now();
    Wait cheap = wait;
    if (now < next_look)
        cheap.interrupted = nullptr;
    else
        next_look = now + kSlice;
    return has_ended(cheap, now);
}

// The same for one who holds a mutex, which is free while he is asked.
inline bool has_ended(const Wait& wait, std::unique_lock<std::mutex>& lock) {
    if (wait.interrupted == nullptr) return has_ended(wait, Clock::now());
    lock.unlock();
    const bool ended = has_ended(wait, Clock::now());
    lock.lock();
    return ended;
}

}  // namespace penstock::detail

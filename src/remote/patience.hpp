// End of a caller's Wait, for waits in this folder, which are not for a word in shared memory.
#pragma once

#include <mutex>

#include "penstock/wait.hpp"
#include "segment/waiting/timing.hpp"

namespace penstock::detail {

// Calls `interrupted`, which may run Python code: hold no lock that such code may take.
inline bool has_ended(const Wait& wait, Clock::time_point now) noexcept {
    return wait.deadline.has_passed(now) ||
           (wait.cancel != nullptr && wait.cancel->is_cancelled()) ||
           (wait.interrupted != nullptr && wait.interrupted(wait.context));
}

// Cheaper variant for many short requests: `interrupted` may take a lock (the GIL), and is called
// only every kSlice.
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

// Variant for a caller with a locked mutex, which is unlocked while `interrupted` runs.
inline bool has_ended(const Wait& wait, std::unique_lock<std::mutex>& lock) {
    if (wait.interrupted == nullptr) return has_ended(wait, Clock::now());
    lock.unlock();
    const bool ended = has_ended(wait, Clock::now());
    lock.lock();
    return ended;
}

}  // namespace penstock::detail

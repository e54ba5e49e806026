// What a forked child must be told: it shares no mapping and owns no lock of its parent.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>

#include "os/descriptor.hpp"

namespace penstock::os {

namespace detail {
inline constinit std::atomic<std::uint64_t> fork_count{0};
}

// Changes in every forked child. A handle remembers the value of its birth and compares.
inline std::uint64_t fork_generation() noexcept {
    return detail::fork_count.load(std::memory_order_relaxed);
}

// Opens a descriptor that will carry locks, so that it is closed at once in every forked child:
// such a lock would outlive its owner there (it belongs to the open file description). No fork can
// come between the opening and the registration. `open` returns a descriptor or -1 with errno set,
// which stays. It comes back marked.
OwnDescriptor open_closed_in_children(const std::function<int()>& open);
// The mutex is taken for the length of every fork, before any of ours: a child finds what it guards
// whole, and unlocked. For one mutex a process, which lives for ever. It may be held by a thread
// that opens or closes such descriptors, not the other way round.
void hold_across_forks(std::mutex& mutex);
// Closes such a descriptor and forgets it in one step, as far as a fork can tell. A number that the
// program has closed under us and given to a file of its own is left alone, here and in children.
void close_descriptor(const OwnDescriptor& descriptor) noexcept;

}  // namespace penstock::os

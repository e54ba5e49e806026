// Effects of fork: a child shares no mapping and owns no lock of its parent.
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

// Changes in every forked child. A handle compares it with the value at its creation.
inline std::uint64_t fork_generation() noexcept {
    return detail::fork_count.load(std::memory_order_relaxed);
}

// Opens a descriptor that will carry locks and is closed at once in every forked child, where such
// a lock would outlive its owner (it belongs to the open file description). No fork can happen
// between opening and registration. `open` returns a descriptor or -1 with errno set, which is
// kept. The result is marked.
OwnDescriptor open_closed_in_children(const std::function<int()>& open);
// Makes every fork hold the mutex, taken before this library's own: a child finds what it guards
// consistent, and unlocked. For one mutex of the process, which is never destroyed. Its holder may
// open or close such descriptors; the other order is forbidden.
void hold_across_forks(std::mutex& mutex);
// Calls `before` ahead of every fork, and then `in_parent` or `in_child`, in the forking thread.
// For good. A mutex that they hold across the fork must be held with no other mutex.
void on_fork(void (*before)(), void (*in_parent)(), void (*in_child)());
// Closes such a descriptor and removes it from the registry, atomically with respect to forks. If
// the program has closed the number and uses it for a file of its own, that file is left alone,
// here and in children.
void close_descriptor(const OwnDescriptor& descriptor) noexcept;

}  // namespace penstock::os

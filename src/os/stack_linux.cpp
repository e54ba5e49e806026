// The bounds of a thread's stack: pthread_getattr_np reads /proc/self/maps in the first thread of a
// process, so each thread calls it once.
#include "os/stack.hpp"

#include <pthread.h>

#include <cstdint>
#include <limits>

namespace penstock::os {
namespace {

struct Bounds {
    std::uintptr_t low = 0;  // of the usable part, behind the guard pages
    std::uintptr_t high = 0;
};

Bounds bounds_of_this_thread() noexcept {
    pthread_attr_t attributes;
    if (::pthread_getattr_np(::pthread_self(), &attributes) != 0) return {};
    void* start = nullptr;
    std::size_t size = 0;
    std::size_t guard = 0;
    const bool is_known = ::pthread_attr_getstack(&attributes, &start, &size) == 0 &&
                          ::pthread_attr_getguardsize(&attributes, &guard) == 0;
    ::pthread_attr_destroy(&attributes);
    if (!is_known) return {};
    // Whether the guard lies inside depends on glibc's version: assume that it does.
    const auto low = reinterpret_cast<std::uintptr_t>(start);
    return {low + guard, low + size};
}

}  // namespace

std::size_t stack_left() noexcept {
    thread_local const Bounds bounds = bounds_of_this_thread();
    const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    if (here < bounds.low || here >= bounds.high) return std::numeric_limits<std::size_t>::max();
    return here - bounds.low;
}

}  // namespace penstock::os

// Processor hints and the asymmetric fence: nothing on the hot side, membarrier(2) on the side
// that is about to sleep anyway. After Linux's membarrier and folly's AsymmetricThreadFence.
#pragma once

#include <atomic>

namespace penstock::os {

// Tells the processor that this is a spin loop.
inline void spin_pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");  // `yield` is a no-op on most cores; isb is not
#endif
}

// Requests a line for writing. Compilers turn __builtin_prefetch into a fetch for reading on plain
// x86-64, after which the store fetches the line again.
inline void prefetch_for_write(const void* at) noexcept {
#if defined(__x86_64__)
    __asm__ __volatile__("prefetchw %0" : : "m"(*static_cast<const char*>(at)));
#else
    __builtin_prefetch(at, 1);
#endif
}

// True if this process could be registered as a target of asymmetric_fence_heavy() of others.
// Idempotent. To be called before the first light fence that must pair with it.
bool register_asymmetric_fence() noexcept;

// The cheap half: orders this thread's earlier stores before its later loads against a heavy
// fence in another registered process. A compiler barrier only.
inline void asymmetric_fence_light() noexcept {
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

// The expensive half: a full barrier in every running thread of every registered process.
void asymmetric_fence_heavy() noexcept;

inline void full_fence() noexcept {
    std::atomic_thread_fence(std::memory_order_seq_cst);
}

}  // namespace penstock::os

// Sleeping in the kernel on a 32-bit word that several processes share.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace penstock::os {

enum class Woken : std::uint8_t { ByWaker, ByTimeout, BySignal };

// Sleeps while *word == seen, for `span` at most, on the monotonic clock. May wake spuriously: the
// caller checks again.
Woken futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen,
                 std::chrono::nanoseconds span) noexcept;

// Wakes all threads that sleep on the word. The system call costs about 0.3 us if there are none.
void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept;
// Wakes all threads of this process that sleep on the word, and few of other processes.
void futex_wake_own(std::atomic<std::uint32_t>& word) noexcept;

}  // namespace penstock::os

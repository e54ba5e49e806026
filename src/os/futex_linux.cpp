// Shared futexes on Linux. Not std::atomic::wait: libstdc++ uses process-private futexes for it.
#include "os/futex.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <ctime>

namespace penstock::os {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;  // ns

// One of 32 bits, by the process's number: most sleepers of other processes have another.
std::uint32_t own_bit() noexcept {
    return std::uint32_t{1} << (static_cast<std::uint32_t>(::getpid()) % 32U);
}

// The time after `span`, by the monotonic clock of this thread's time namespace, which the kernel
// uses too (Linux 5.11).
timespec after(std::chrono::nanoseconds span) noexcept {
    timespec time{};
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    const std::int64_t left = std::max<std::int64_t>(span.count(), 0);
    const std::int64_t nanoseconds = time.tv_nsec + left % kSecond;
    time.tv_sec += static_cast<time_t>(left / kSecond + nanoseconds / kSecond);
    time.tv_nsec = static_cast<long>(nanoseconds % kSecond);
    return time;
}

}  // namespace

// FUTEX_WAIT_BITSET takes the end of the sleep where FUTEX_WAIT takes its length, and ends with
// EINTR after the same signals.
Woken futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen,
                 std::chrono::nanoseconds span) noexcept {
    const timespec end = after(span);
    const long result = ::syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, seen, &end, nullptr,
                                  own_bit());  // shared: no PRIVATE
    if (result == 0 || errno == EAGAIN) return Woken::ByWaker;
    return errno == EINTR ? Woken::BySignal : Woken::ByTimeout;
}

void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept {
    ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);  // of any bit
}

void futex_wake_own(std::atomic<std::uint32_t>& word) noexcept {
    ::syscall(SYS_futex, &word, FUTEX_WAKE_BITSET, INT_MAX, nullptr, nullptr, own_bit());
}

}  // namespace penstock::os

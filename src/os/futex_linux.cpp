// Shared futexes on Linux. Not std::atomic::wait: libstdc++ uses process-private futexes for it.
#include "os/futex.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <ctime>

namespace penstock::os {

Woken futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen,
                 std::chrono::nanoseconds span) noexcept {
    timespec timeout{};
    timeout.tv_sec = static_cast<time_t>(span.count() / 1'000'000'000);
    timeout.tv_nsec = static_cast<long>(span.count() % 1'000'000'000);
    const long result =
        ::syscall(SYS_futex, &word, FUTEX_WAIT, seen, &timeout, nullptr, 0);  // shared: no PRIVATE
    if (result == 0 || errno == EAGAIN) return Woken::ByWaker;
    return errno == EINTR ? Woken::BySignal : Woken::ByTimeout;
}

void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept {
    ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace penstock::os

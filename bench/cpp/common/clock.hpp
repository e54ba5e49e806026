// Time in ticks: the processor's own counter where it is cheap and the same on every core, so that
// one reading per message costs a few nanoseconds and processes may compare theirs.
#pragma once

#include <chrono>
#include <cstdint>
#include <ctime>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace penstock::bench {

using Ticks = std::uint64_t;

inline Ticks ticks() noexcept {
#if defined(__x86_64__)
    return __rdtsc();
#else
    return static_cast<Ticks>(std::chrono::steady_clock::now().time_since_epoch().count());
#endif
}

// Measured once against the system's clock, over 20 ms.
inline double nanoseconds_per_tick() {
    static const double value = [] {
        using Clock = std::chrono::steady_clock;
        const auto time_before = Clock::now();
        const Ticks ticks_before = ticks();
        while (Clock::now() - time_before < std::chrono::milliseconds(20)) {
        }
        const Ticks ticks_after = ticks();
        const std::chrono::duration<double, std::nano> span = Clock::now() - time_before;
        return span.count() / static_cast<double>(ticks_after - ticks_before);
    }();
    return value;
}

inline double to_nanoseconds(Ticks span) {
    return static_cast<double>(span) * nanoseconds_per_tick();
}

// Processor time, in nanoseconds, of the thread or process that `clock` stands for.
inline double processor_nanoseconds(clockid_t clock) {
    timespec at{};
    clock_gettime(clock, &at);
    return static_cast<double>(at.tv_sec) * 1e9 + static_cast<double>(at.tv_nsec);
}

// Bounds the time of all turns of a case: on a busy or slow machine there are fewer turns, for all
// contenders alike.
class Patience {
public:
    explicit Patience(double seconds)
        : end_(ticks() + static_cast<Ticks>(seconds * 1e9 / nanoseconds_per_tick())) {}

    [[nodiscard]] bool is_over(unsigned turns_played) const {
        constexpr unsigned kFewestTurns = 3;
        return turns_played >= kFewestTurns && ticks() > end_;
    }

private:
    Ticks end_;
};

// Keeps the processor busy, so that its core stays awake.
inline void spin_for(double nanoseconds) {
    const Ticks end = ticks() + static_cast<Ticks>(nanoseconds / nanoseconds_per_tick());
    while (ticks() < end) {
    }
}

}  // namespace penstock::bench

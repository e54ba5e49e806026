// Deadlines, cancellation and signals: when a call stops waiting. Every waiting call of Penstock
// takes one Wait; a plain Deadline or duration converts to it.
#pragma once

#include <atomic>
#include <chrono>

namespace penstock {

using Clock = std::chrono::steady_clock;

// A point in time, never, or "try once". Thread-safe: a value.
class Deadline {
public:
    static constexpr Deadline never() noexcept { return Deadline(Clock::time_point::max()); }
    static constexpr Deadline now() noexcept { return Deadline(Clock::time_point::min()); }
    static Deadline after(std::chrono::nanoseconds span) noexcept;
    // Spans in other units: never() if nanoseconds can't count them.
    template <typename Rep, typename Period>
    static Deadline after(std::chrono::duration<Rep, Period> span) noexcept {
        using std::chrono::nanoseconds;
        using Seconds = std::chrono::duration<double>;
        if (span <= span.zero()) return now();
        if (Seconds(span) >= Seconds(nanoseconds::max())) return never();
        return after(std::chrono::duration_cast<nanoseconds>(span));
    }

    [[nodiscard]] constexpr bool is_never() const noexcept {
        return at_ == Clock::time_point::max();
    }
    // True for now(): the call tries once and does not wait.
    [[nodiscard]] constexpr bool is_try() const noexcept { return at_ == Clock::time_point::min(); }
    [[nodiscard]] bool has_passed(Clock::time_point now) const noexcept { return now >= at_; }
    // Time left, at least 0 and at most `most`.
    [[nodiscard]] std::chrono::nanoseconds left(Clock::time_point now,
                                                std::chrono::nanoseconds most) const noexcept;

private:
    constexpr explicit Deadline(Clock::time_point at) noexcept : at_(at) {}
    Clock::time_point at_;
};

// Ends waits from another thread of the same process: they return Cancelled within 80 ms.
// Thread-safe. Must outlive the waits that use it.
class Cancel {
public:
    void cancel() noexcept { cancelled_.store(true, std::memory_order_release); }
    [[nodiscard]] bool is_cancelled() const noexcept {
        return cancelled_.load(std::memory_order_acquire);
    }

private:
    std::atomic<bool> cancelled_{false};
};

// Limits of a waiting call. `interrupted` (may be null) is called on the waiting thread after every
// signal that it receives, and at least every 250 ms; true ends the wait with Cancelled.
struct Wait {
    Wait() noexcept = default;
    Wait(Deadline until) noexcept : deadline(until) {}  // NOLINT(google-explicit-constructor)
    template <typename Rep, typename Period>
    Wait(std::chrono::duration<Rep, Period> span) noexcept  // NOLINT(google-explicit-constructor)
        : deadline(Deadline::after(span)) {}

    Deadline deadline = Deadline::never();
    const Cancel* cancel = nullptr;
    bool (*interrupted)(void* context) = nullptr;
    void* context = nullptr;
};

}  // namespace penstock

// Deadlines, cancellation and signals: when a call stops waiting. Every waiting call of Penstock
// takes one Wait; a plain Deadline or duration converts to it. Also what waiting may cost.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace penstock {

using Clock = std::chrono::steady_clock;

// The processor time that waiting may cost. Chosen when a segment is created, and followed by all
// its participants. A wait first spins, which makes the answer fast, and then sleeps in the kernel;
// a wake-up takes 3 to 90 us. On a machine with one processor no wait spins.
enum class WaitPolicy : std::uint8_t {
    // Spins for 2.5 wake-ups at most (250 us where they are slow), while that pays off.
    Balanced = 0,
    // Spins for 5 ms at most: messages that come more often than that find a waiter that is awake,
    // and each receiver takes up to a whole processor meanwhile. After seven such spins without a
    // message they become shorter, until a message comes that a spin would have caught. Waits for
    // room and for credit are as with Balanced.
    Latency = 1,
    // Never spins: every wait sleeps at once.
    Frugal = 2,
};
// "balanced", "latency" or "frugal".
std::string_view to_string(WaitPolicy policy) noexcept;
// The policy of that name. Throws InvalidArgument, with the names that there are.
WaitPolicy parse_wait_policy(const std::string& name);

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
// Thread-safe, and cancel() may be called in a signal handler. Must outlive the waits that use it.
class Cancel {
public:
    void cancel() noexcept;
    [[nodiscard]] bool is_cancelled() const noexcept {
        return cancelled_.load(std::memory_order_acquire);
    }

private:
    std::atomic<bool> cancelled_{false};
};

// Makes every wait of this process call its `interrupted`, within 250 ms: for changes that
// `interrupted` looks for and no signal to the waiting thread announces. Any thread, also in a
// signal handler.
void ask_all_waits() noexcept;

// Limits of a waiting call. `interrupted` (may be null) is called on the waiting thread after every
// signal that it receives, after ask_all_waits(), and now and then: in the first 250 ms of a wait,
// and about every 2 s at least. true ends the wait with Cancelled. A signal that another thread
// receives is noticed only now and then.
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

// Lets the threads of a process use one handle of the library, which by itself belongs to one
// thread: one that enters is alone with the handle until it leaves. One that has waited for over a
// millisecond goes before newcomers: beside three busy senders on a full ring the longest
// wait for a turn was 15 s without that and 4 ms with it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>

#include "penstock/error.hpp"
#include "penstock/wait.hpp"

namespace penstock::py {

// Any thread may call anything. None of it needs the GIL, and enter() must not hold it.
class Turnstile {
public:
    // Takes the turn if it is free. Never waits.
    bool try_enter() noexcept;
    // Waits for the turn as long as `wait` allows: Timeout, Cancelled.
    Status enter(const Wait& wait);
    void leave() noexcept;

    // This thread has the turn: a signal handler or finalizer ran inside one of its own calls.
    [[nodiscard]] bool is_mine() const noexcept;

private:
    struct Waiter {
        Clock::time_point since;
        std::condition_variable wake{};
        bool admitted = false;
    };

    void take() noexcept;
    void pass_on() noexcept;

    mutable std::mutex mutex_;
    bool taken_ = false;
    std::thread::id owner_;
    std::list<Waiter*> waiters_;
};

}  // namespace penstock::py

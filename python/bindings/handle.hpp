// The base of handles as Python objects: any thread may use them, close() in one thread ends the
// waits of the others, and calls in a forked child raise WrongProcess.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "codec/array_pool.hpp"
#include "errors.hpp"
#include "fair_mutex.hpp"
#include "os/fork.hpp"
#include "wait.hpp"

namespace penstock::py {

// Every call goes through a Turn, except those that the library allows to any thread.
// All members need the GIL, unless they say otherwise.
class Handle {
public:
    explicit Handle(std::string title) : title_(std::move(title)) {}
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    virtual ~Handle() = default;

    // Ends the waits of other threads with Closed, and closes. An open loan is not sent. From a
    // signal handler inside a call of this thread: the handle closes at the end of that call. Does
    // nothing the second time, and in a forked child.
    void close();
    [[nodiscard]] bool is_closed() const noexcept { return closing_.load(); }
    [[nodiscard]] bool is_foreign() const noexcept { return generation_ != os::fork_generation(); }
    // Returns `descriptor`; raises WrongProcess if it is negative: the program has closed it.
    int check_descriptor(int descriptor) const;
    // Raises WrongProcess in a forked child, Closed after close().
    void check_usable() const;
    [[nodiscard]] const std::string& title() const noexcept { return title_; }

    // Keeps the turn beyond the call, for an open loan; false if close() came first.
    bool keep_turn() noexcept;
    // Ends the turn, and closes if close() was called meanwhile. Does not need the GIL.
    void leave() noexcept;

protected:
    // Sets what waits are for. To be called once the handle is attached.
    void awaits(const std::string& instance, detail::Awaited what) { subject_ = {instance, what}; }

    // end_waits(): the library's request_close(), which any thread may call, but not while another
    // is in close(). shut(): its close(), for the thread with the turn, or while a loan is open.
    virtual void end_waits() noexcept = 0;
    virtual void shut() noexcept = 0;

private:
    friend class Turn;
    [[noreturn]] void raise_closed() const;

    std::string title_;  // "writer of 'steps'"
    WaitSubject subject_;
    std::uint64_t generation_ = os::fork_generation();
    FairMutex mutex_;
    std::atomic<bool> closing_{false};
    std::atomic<bool> turn_is_kept_{false};
    bool shut_ = false;  // belongs to the turn
};

// The right to use the library's handle, for as long as the object exists.
class Turn {
public:
    explicit Turn(Handle& handle) : handle_(handle) {
        handle_.check_usable();
        entered_ = handle_.mutex_.try_lock();
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() {
        if (entered_) {
            handle_.leave();
        }
    }

    // Runs `Status call(const Wait&)` and raises its failure. Holds the GIL for a try, and where
    // `bool ready()` says that the call need not wait: getting the GIL back from a busy thread
    // takes longer than a message. Otherwise releases it.
    template <typename Ready, typename Call>
    void run(Deadline deadline, const Cancel* cancel, Ready&& ready, Call&& call) {
        if (!entered_) {
            check_can_wait(deadline);
        } else if (deadline.is_try() || ready()) {
            Status outcome = call(Wait(Deadline::now()));
            if (outcome.code() != ErrorCode::Timeout || deadline.is_try()) {
                if (outcome.code() == ErrorCode::Timeout) {
                    codec::array_pool().trim();  // as at the start of a wait
                }
                check(outcome);
                return;
            }
        }
        Waiting waiting(deadline, cancel, &handle_.subject_);
        Status outcome = enter(waiting.wait());
        if (outcome.is_ok()) {
            outcome = call(waiting.wait());
        }
        finish(waiting, outcome);
    }

    // The value of `Result<Value> call(const Wait&)`, run likewise.
    template <typename Value, typename Ready, typename Call>
    Value get(Deadline deadline, Ready&& ready, Call&& call) {
        std::optional<Value> value;
        run(deadline, nullptr, ready, [&](const Wait& wait) { return store(call(wait), value); });
        return *std::move(value);
    }

    // The turn outlasts this object: the handle's keep_turn() has been called.
    void detach() noexcept { entered_ = false; }

private:
    void check_can_wait(Deadline deadline) const;
    Status enter(const Wait& wait);
    void finish(Waiting& waiting, const Status& outcome);

    Handle& handle_;
    bool entered_ = false;
};

// Runs a call that waits for its turn only, never for another process.
template <typename Call>
auto with_turn(Handle& handle, Call&& call) {
    return Turn(handle).get<decltype(call())>(
        Deadline::never(), [] { return true; },
        [&](const Wait&) { return Result<decltype(call())>(call()); });
}

}  // namespace penstock::py

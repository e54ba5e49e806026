// What a writer and a reader have in common as Python objects: any thread may use them, close()
// from one thread ends the waits of the others, and a forked child is told that they are not its.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

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

    // Ends the waits of other threads with Closed, and closes. A loan that is open is not sent; a
    // call of this very thread, if this is its signal handler, closes at its end. Does nothing
    // the second time, and in a forked child.
    void close();
    [[nodiscard]] bool is_closed() const noexcept { return closing_.load(); }
    [[nodiscard]] bool is_foreign() const noexcept { return generation_ != os::fork_generation(); }
    // The same descriptor; raises WrongProcess where there is none, because the program closed it.
    int check_descriptor(int descriptor) const;
    // Raises WrongProcess in a forked child, Closed after close().
    void check_usable() const;
    [[nodiscard]] const std::string& title() const noexcept { return title_; }

    // Keeps the turn beyond the call, for an open loan; false if close() came first.
    bool keep_turn() noexcept;
    // Ends the turn, and closes if that was asked for meanwhile. The GIL is not needed.
    void leave() noexcept;

protected:
    // What its waits are for. To be said once it is attached.
    void awaits(const std::string& instance, detail::Awaited what) { subject_ = {instance, what}; }

    // The library's request_close(), which any thread may call, but not while another is in
    // close(); and close(), for the thread with the turn, or while a loan is open.
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

    // Runs `Status call(const Wait&)`. With the GIL held where `bool ready()` says that it need not
    // wait, because getting the GIL back from a busy thread takes longer than a message; without
    // it otherwise. Raises what fails.
    template <typename Ready, typename Call>
    void run(Deadline deadline, const Cancel* cancel, Ready&& ready, Call&& call) {
        if (!entered_) {
            check_can_wait(deadline);
        } else if (deadline.is_try() || ready()) {
            Status outcome = call(Wait(Deadline::now()));
            if (outcome.code() != ErrorCode::Timeout || deadline.is_try()) {
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

    // What `Result<Value> call(const Wait&)` gives, in the same way.
    template <typename Value, typename Ready, typename Call>
    Value get(Deadline deadline, Ready&& ready, Call&& call) {
        std::optional<Value> value;
        run(deadline, nullptr, ready, [&](const Wait& wait) { return store(call(wait), value); });
        return *std::move(value);
    }

    // The turn goes on after this object: the handle's keep_turn() has been called.
    void detach() noexcept { entered_ = false; }

private:
    void check_can_wait(Deadline deadline) const;
    Status enter(const Wait& wait);
    void finish(Waiting& waiting, const Status& outcome);

    Handle& handle_;
    bool entered_ = false;
};

// A call that waits for none but other threads of this process.
template <typename Call>
auto with_turn(Handle& handle, Call&& call) {
    return Turn(handle).get<decltype(call())>(
        Deadline::never(), [] { return true; },
        [&](const Wait&) { return Result<decltype(call())>(call()); });
}

}  // namespace penstock::py

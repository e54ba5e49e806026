// Turns and closing. Rules against deadlocks: no thread waits for a turn while it holds the GIL, or
// for a turn that it has itself; close() does not wait for the turn of an open loan.
#include "handle.hpp"

namespace penstock::py {

void Handle::check_usable() const {
    if (is_foreign()) {
        raise_error(ErrorCode::WrongProcess, "the " + title_ +
                                                 " belongs to the parent of this forked process; "
                                                 "attach anew here, or start children with spawn");
    }
    if (is_closed()) {
        raise_closed();
    }
}

int Handle::check_descriptor(int descriptor) const {
    if (descriptor < 0) {
        raise_error(ErrorCode::WrongProcess,
                    "the " + title_ +
                        " is of no more use: its descriptor was closed by this process; close it "
                        "and attach anew, after becoming a daemon");
    }
    return descriptor;
}

void Handle::raise_closed() const {
    raise_error(ErrorCode::Closed, "the " + title_ + " was closed by this process");
}

void Handle::close() {
    if (is_foreign() || is_closed()) {
        return;
    }
    end_waits();  // before the flag: from then on the thread with the turn may close at any moment
    closing_.store(true);
    if (mutex_.try_lock()) {
        leave();
        return;
    }
    if (turn_is_kept_.load()) {
        // An open loan keeps its turn outside of calls, and its thread may never come back to end
        // it. The GIL keeps that thread from using the handle meanwhile.
        if (!shut_) {
            shut_ = true;
            shut();
        }
        return;
    }
    if (mutex_.is_mine()) {
        return;  // this thread has the turn: leave() closes
    }
    const WithoutGil without_gil;
    if (mutex_.lock(Wait()).is_ok()) {
        leave();
    }
}

bool Handle::keep_turn() noexcept {
    turn_is_kept_.store(true);
    // close() sets closing_ before it reads turn_is_kept_: one of the two sees the other's.
    if (closing_.load()) {
        turn_is_kept_.store(false);
        return false;
    }
    return true;
}

void Handle::leave() noexcept {
    turn_is_kept_.store(false);
    if (closing_.load() && !shut_) {
        shut_ = true;
        shut();
    }
    mutex_.unlock();
}

void Turn::check_can_wait(Deadline deadline) const {
    if (handle_.mutex_.is_mine()) {
        raise_error(ErrorCode::Busy, "this thread is using the " + handle_.title() +
                                         " already: a loan is open, or a signal handler ran "
                                         "inside a call on the same handle");
    }
    if (deadline.is_try()) {
        raise_error(ErrorCode::Timeout,
                    "another thread of this process is using the " + handle_.title());
    }
}

Status Turn::enter(const Wait& wait) {
    if (entered_) {
        return Status::ok();
    }
    Status outcome = handle_.mutex_.lock(wait);
    entered_ = outcome.is_ok();
    if (entered_ && handle_.is_closed()) {
        return {ErrorCode::Cancelled, "closed while waiting for the turn"};
    }
    return outcome;
}

void Turn::finish(Waiting& waiting, const Status& outcome) {
    if (entered_ && WithoutGil::is_left_behind()) {
        entered_ = false;
        handle_.leave();  // ~Turn() will not run: reacquire() never returns
    }
    waiting.reacquire();
    if (waiting.has_raised()) {
        throw nb::python_error();
    }
    if (outcome.code() == ErrorCode::Cancelled && handle_.is_closed()) {
        handle_.raise_closed();
    }
    check(outcome);
}

}  // namespace penstock::py

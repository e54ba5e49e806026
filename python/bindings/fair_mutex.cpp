// A mutex with a queue: std::timed_mutex can neither be unlocked by another thread than the one
// that locked it (a loan may be), nor keep a busy thread from overtaking for ever.
#include "fair_mutex.hpp"

namespace penstock::py {
namespace {

constexpr auto patience = std::chrono::milliseconds(1);
// Interval at which a waiting thread checks signals and cancellation.
constexpr auto slice = std::chrono::milliseconds(50);

bool is_ended(const Wait& wait) noexcept {
    return (wait.cancel != nullptr && wait.cancel->is_cancelled()) ||
           (wait.interrupted != nullptr && wait.interrupted(wait.context));
}

}  // namespace

void FairMutex::take() noexcept {
    taken_ = true;
    owner_ = std::this_thread::get_id();
}

bool FairMutex::try_lock() noexcept {
    const std::lock_guard guard(mutex_);
    if (taken_) {
        return false;
    }
    take();
    return true;
}

bool FairMutex::is_mine() const noexcept {
    const std::lock_guard guard(mutex_);
    return taken_ && owner_ == std::this_thread::get_id();
}

Status FairMutex::lock(const Wait& wait) {
    std::unique_lock guard(mutex_);
    Waiter self{.since = Clock::now()};
    const auto place = waiters_.insert(waiters_.end(), &self);
    Status outcome;
    while (!self.admitted && taken_) {
        const auto now = Clock::now();
        if (wait.deadline.has_passed(now)) {
            outcome = Status(ErrorCode::Timeout,
                             "timed out while other threads of this process used the handle");
            break;
        }
        self.wake.wait_for(guard, wait.deadline.left(now, slice));
        guard.unlock();  // the callback takes the GIL, which a thread in try_lock() may hold
        const bool ended = is_ended(wait);
        guard.lock();
        if (ended) {
            outcome = Status(ErrorCode::Cancelled, "the wait was cancelled");
            break;
        }
    }
    waiters_.erase(place);
    if (outcome.is_ok()) {
        take();
    } else if (self.admitted || !taken_) {
        pass_on();  // the turn came together with the end of the wait: pass it on
    }
    return outcome;
}

void FairMutex::unlock() noexcept {
    const std::lock_guard guard(mutex_);
    pass_on();
}

// A thread that has waited for long is handed the turn. Otherwise the leaving thread may overtake a
// newcomer: switching threads for every message would cost far more than a message.
void FairMutex::pass_on() noexcept {
    owner_ = {};
    taken_ = false;
    if (!waiters_.empty()) {
        Waiter& first = *waiters_.front();
        taken_ = Clock::now() - first.since > patience;
        first.admitted = taken_;
        first.wake.notify_one();
    }
}

}  // namespace penstock::py

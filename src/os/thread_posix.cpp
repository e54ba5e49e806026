// Threads that inherit a signal mask with all signals blocked, and mutexes that lend priority.
#include <pthread.h>
#include <signal.h>

#include <utility>

#include "os/thread.hpp"

namespace penstock::os {

namespace {

// Blocks all signals in this thread during this object's life.
class SignalBlock {
public:
    SignalBlock() noexcept {
        sigset_t all;
        sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    SignalBlock(const SignalBlock&) = delete;
    SignalBlock& operator=(const SignalBlock&) = delete;
    ~SignalBlock() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

private:
    sigset_t before_{};
};

}  // namespace

std::thread start_quiet_thread(std::function<void()> body) {
    const SignalBlock block;
    return std::thread(std::move(body));
}

void lend_priority(std::mutex& mutex) noexcept {
    pthread_mutexattr_t attributes;
    if (::pthread_mutexattr_init(&attributes) != 0) return;
    // Tried on another mutex first: a failure would leave this one unusable.
    pthread_mutex_t trial;
    if (::pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0 &&
        ::pthread_mutex_init(&trial, &attributes) == 0) {
        ::pthread_mutex_destroy(&trial);
        ::pthread_mutex_destroy(mutex.native_handle());
        ::pthread_mutex_init(mutex.native_handle(), &attributes);
    }
    ::pthread_mutexattr_destroy(&attributes);
}

}  // namespace penstock::os

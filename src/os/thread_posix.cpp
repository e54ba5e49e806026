// Threads that inherit a signal mask with all signals blocked.
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

}  // namespace penstock::os

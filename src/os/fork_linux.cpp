// Fork handling by pthread_atfork. One registry a process, guarded across the fork itself.
#include "os/fork.hpp"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <vector>

namespace penstock::os {
namespace {

// Never destroyed: handles may be closed by static destructors, and a child may fork at exit.
struct Registry {
    std::mutex mutex;
    std::vector<int> descriptors;
};

Registry& registry() {
    static auto* instance = new Registry;
    return *instance;
}

void before_fork() {
    registry().mutex.lock();
}

void after_fork_in_parent() {
    registry().mutex.unlock();
}

void after_fork_in_child() {
    Registry& own = registry();
    for (const int descriptor : own.descriptors) ::close(descriptor);
    own.descriptors.clear();
    detail::fork_count.fetch_add(1, std::memory_order_relaxed);
    own.mutex.unlock();
}

void install_handlers_once() {
    static const int installed =
        ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    static_cast<void>(installed);
}

}  // namespace

int open_closed_in_children(const std::function<int()>& open) {
    install_handlers_once();
    const std::lock_guard lock(registry().mutex);
    auto& known = registry().descriptors;
    known.reserve(known.size() + 1);  // so that nothing can fail once it is open
    const int descriptor = open();
    if (descriptor >= 0) known.push_back(descriptor);
    return descriptor;
}

void close_descriptor(int descriptor) noexcept {
    const std::lock_guard lock(registry().mutex);
    auto& known = registry().descriptors;
    known.erase(std::remove(known.begin(), known.end(), descriptor), known.end());
    ::close(descriptor);
}

}  // namespace penstock::os

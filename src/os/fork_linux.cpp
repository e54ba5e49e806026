// Fork handling by pthread_atfork. One registry for the process, locked during the fork itself.
#include "os/fork.hpp"

#include <pthread.h>

#include <atomic>
#include <mutex>
#include <vector>

#include "os/found_once.hpp"

namespace penstock::os {
namespace {

// Outlives all statics, whose destructors may close handles; and a child may fork at exit.
struct Registry {
    std::mutex mutex;
    std::vector<OwnDescriptor> descriptors;
    std::atomic<std::mutex*> outer{nullptr};
    std::mutex* held = nullptr;  // held by the current fork; guarded by `mutex`
};

constinit Immortal<Registry> only;

Registry& registry() {
    return only.value;
}

void before_fork() {
    std::mutex* const outer = registry().outer.load();
    if (outer != nullptr) outer->lock();
    registry().mutex.lock();
    registry().held = outer;
}

// After the fork, in parent and child.
void unlock_all() {
    std::mutex* const outer = registry().held;
    registry().mutex.unlock();
    if (outer != nullptr) outer->unlock();
}

void after_fork_in_parent() {
    unlock_all();
}

void after_fork_in_child() {
    Registry& own = registry();
    for (const OwnDescriptor& descriptor : own.descriptors) close_if_ours(descriptor);
    own.descriptors.clear();
    detail::fork_count.fetch_add(1, std::memory_order_relaxed);
    unlock_all();
}

// Initialized while the program or the library is loaded.
[[maybe_unused]] const int installed =
    ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);

}  // namespace

void hold_across_forks(std::mutex& mutex) {
    registry().outer.store(&mutex);
}

void on_fork(void (*before)(), void (*in_parent)(), void (*in_child)()) {
    ::pthread_atfork(before, in_parent, in_child);
}

OwnDescriptor open_closed_in_children(const std::function<int()>& open) {
    const std::lock_guard lock(registry().mutex);
    auto& known = registry().descriptors;
    known.reserve(known.size() + 1);  // so that nothing can fail after the opening
    const int number = open();
    if (number < 0) return {};
    // An older entry with this number was closed by the program.
    std::erase_if(known, [number](const OwnDescriptor& one) { return one.number == number; });
    return known.emplace_back(mark_descriptor(number));
}

void close_descriptor(const OwnDescriptor& descriptor) noexcept {
    const std::lock_guard lock(registry().mutex);
    std::erase(registry().descriptors, descriptor);
    close_if_ours(descriptor);
}

}  // namespace penstock::os

// Crash points on Linux: their effect in a test build.
#include "os/crash_point.hpp"

#ifdef PENSTOCK_CRASH_POINTS

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "os/found_once.hpp"

namespace penstock::os {
namespace {

struct Trap {
    std::string name;
    long passes_left = 0;
    int signal = 0;
};

std::mutex trap_mutex;
Trap trap;  // guarded by trap_mutex
std::atomic<bool> is_armed{false};
std::atomic<bool> is_tracing{false};
std::vector<std::string> trace;  // guarded by trap_mutex

void arm(std::string_view specification) {
    const std::lock_guard lock(trap_mutex);
    trap = {};
    const auto first = specification.find(':');
    const auto second = specification.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) {
        is_armed = false;
        return;
    }
    trap.name = specification.substr(0, first);
    // NOLINTNEXTLINE(bugprone-unchecked-string-to-number-conversion): only tests write it
    trap.passes_left = std::atol(std::string(specification.substr(first + 1)).c_str());
    trap.signal = specification.substr(second + 1) == "stop" ? SIGSTOP : SIGKILL;
    is_armed = true;
}

void arm_from_environment() {
    if (const char* specification = std::getenv("PENSTOCK_CRASH_AT")) arm(specification);
}

void list_once(const char* path, const char* name) {
    static constinit std::mutex seen_mutex;
    static constinit Immortal<std::vector<std::string>> seen;
    const std::lock_guard lock(seen_mutex);
    if (std::ranges::find(seen.value, name) != seen.value.end()) return;
    seen.value.emplace_back(name);
    const int file = ::open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0) return;
    const std::string line = std::string(name) + "\n";
    [[maybe_unused]] const auto written = ::write(file, line.data(), line.size());
    ::close(file);
}

}  // namespace

void arm_crash_point(const char* specification) noexcept {
    arm(specification == nullptr ? "" : specification);
}

void start_crash_trace() {
    const std::lock_guard lock(trap_mutex);
    trace.clear();
    is_tracing = true;
}

std::vector<std::string> take_crash_trace() {
    const std::lock_guard lock(trap_mutex);
    is_tracing = false;
    return std::exchange(trace, {});
}

void pass_crash_point(const char* name) noexcept {
    static constinit std::atomic<bool> has_looked{false};
    static constinit std::atomic<const char*> list{nullptr};
    if (!has_looked.load(std::memory_order_relaxed) && !has_looked.exchange(true)) {
        list = std::getenv("PENSTOCK_CRASH_LIST");
        arm_from_environment();
    }
    if (list != nullptr) list_once(list, name);
    if (is_tracing.load(std::memory_order_relaxed)) {
        const std::lock_guard lock(trap_mutex);
        trace.emplace_back(name);
    }
    if (!is_armed.load(std::memory_order_relaxed)) return;
    int signal = 0;
    {
        const std::lock_guard lock(trap_mutex);
        if (trap.name != name || --trap.passes_left > 0) return;
        signal = trap.signal;
        is_armed = false;
    }
    // A signal to this thread: one to the process could stop another thread first.
    ::pthread_kill(::pthread_self(), signal);
}

}  // namespace penstock::os

#endif

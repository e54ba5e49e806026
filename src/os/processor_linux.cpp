// Processors on Linux: sysconf(3), getcpu(2), sched_setaffinity(2), and sysfs for memory nodes.
#include "os/processor.hpp"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>
#include <system_error>

namespace penstock::os {
namespace {

struct Place {
    unsigned processor = 0;
    unsigned node = 0;
};

// A number, or a range such as 4-7, at the start of the text, which loses it. False: neither.
bool take_range(std::string_view& text, unsigned& first, unsigned& last) noexcept {
    const char* const begin = std::to_address(text.begin());
    const char* const end = begin + text.size();
    auto parsed = std::from_chars(begin, end, first);
    if (parsed.ec != std::errc()) return false;
    last = first;
    if (parsed.ptr != end && *parsed.ptr == '-') {
        parsed = std::from_chars(parsed.ptr + 1, end, last);
        if (parsed.ec != std::errc()) return false;
    }
    text.remove_prefix(static_cast<std::size_t>(parsed.ptr - begin));
    return true;
}

// Removes processors of other memory nodes, unless none would be left, or /sys does not list them.
// Moving cache lines between nodes would cost more than parting saves.
void keep_near(unsigned node, cpu_set_t& processors) noexcept {
    std::array<char, 64> path{};
    std::snprintf(path.data(), path.size(), "/sys/devices/system/node/node%u/cpulist", node);
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> list(std::fopen(path.data(), "re"),
                                                               &std::fclose);
    if (list == nullptr) return;
    std::array<char, 4096> buffer{};
    std::string_view ranges(buffer.data(), std::fread(buffer.data(), 1, buffer.size(), list.get()));
    cpu_set_t near;
    CPU_ZERO(&near);
    unsigned first = 0;
    unsigned last = 0;
    while (take_range(ranges, first, last)) {
        for (unsigned one = first; one <= last && one < CPU_SETSIZE; ++one) {
            if (CPU_ISSET(one, &processors)) CPU_SET(one, &near);
        }
        if (ranges.empty() || ranges.front() != ',') break;
        ranges.remove_prefix(1);
    }
    if (CPU_COUNT(&near) > 0) processors = near;
}

// An unpinned thread is restored by allowing every processor, so that it still follows its cpuset
// when that grows; `allowed` would pin it.
void restore_affinity(const cpu_set_t& allowed) noexcept {
    cpu_set_t every;
    std::memset(&every, 0xFF, sizeof every);
    cpu_set_t granted;
    if (::sched_setaffinity(0, sizeof every, &every) == 0 &&
        ::sched_getaffinity(0, sizeof granted, &granted) == 0 && CPU_EQUAL(&granted, &allowed)) {
        return;
    }
    ::sched_setaffinity(0, sizeof allowed, &allowed);
}

// The processors of the thread that loads this library: those of the process, before its threads
// choose theirs. None where the kernel refuses to tell.
cpu_set_t affinity_at_start() noexcept {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) CPU_ZERO(&allowed);
    return allowed;
}

const cpu_set_t initial_affinity = affinity_at_start();

}  // namespace

unsigned online_processors() noexcept {
    return static_cast<unsigned>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
}

std::uint32_t current_processor() noexcept {
    return static_cast<std::uint32_t>(::sched_getcpu());
}

bool step_aside() noexcept {
    cpu_set_t allowed;
    // The kernel refuses on machines with more processors than a cpu_set_t holds (1024).
    if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return false;
    Place here;
    if (::syscall(SYS_getcpu, &here.processor, &here.node, nullptr) != 0 ||
        here.processor >= CPU_SETSIZE) {
        return false;
    }
    cpu_set_t others = allowed;
    CPU_CLR(here.processor, &others);
    if (CPU_COUNT(&others) == 0) return false;
    keep_near(here.node, others);
    if (::sched_setaffinity(0, sizeof others, &others) != 0) return false;
    restore_affinity(allowed);
    return true;
}

void leave_inherited_schedule() noexcept {
    const sched_param ordinary{};
    ::sched_setscheduler(0, SCHED_OTHER, &ordinary);
    if (CPU_COUNT(&initial_affinity) > 0) restore_affinity(initial_affinity);
}

}  // namespace penstock::os

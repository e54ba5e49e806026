// Processors on Linux: sysconf(3), getcpu(2), sched_setaffinity(2), and sysfs for memory nodes.
#include "os/processor.hpp"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <memory>

namespace penstock::os {
namespace {

struct Place {
    unsigned processor = 0;
    unsigned node = 0;
};

// Removes processors of other memory nodes, unless none would be left, or /sys does not list them.
// Moving cache lines between nodes would cost more than parting saves.
void keep_near(unsigned node, cpu_set_t& processors) noexcept {
    std::array<char, 64> path{};
    std::snprintf(path.data(), path.size(), "/sys/devices/system/node/node%u/cpulist", node);
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> list(std::fopen(path.data(), "re"),
                                                               &std::fclose);
    if (list == nullptr) return;
    cpu_set_t near;
    CPU_ZERO(&near);
    unsigned first = 0;
    while (std::fscanf(list.get(), "%u", &first) == 1) {
        unsigned last = first;
        if (std::fscanf(list.get(), "-%u", &last) < 0) last = first;
        for (unsigned one = first; one <= last && one < CPU_SETSIZE; ++one) {
            if (CPU_ISSET(one, &processors)) CPU_SET(one, &near);
        }
        if (std::fgetc(list.get()) != ',') break;
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

}  // namespace penstock::os

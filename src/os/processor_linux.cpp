// Processors on Linux: sysconf(3), sched_getcpu(3), sched_setaffinity(2).
#include "os/processor.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>

namespace penstock::os {

unsigned online_processors() noexcept {
    return static_cast<unsigned>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
}

std::uint32_t current_processor() noexcept {
    return static_cast<std::uint32_t>(::sched_getcpu());
}

bool step_aside() noexcept {
    cpu_set_t allowed;
    // Refused on machines with more processors than a cpu_set_t holds (1024): no move there.
    if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return false;
    const std::uint32_t here = current_processor();
    if (here >= CPU_SETSIZE) return false;
    cpu_set_t others = allowed;
    CPU_CLR(here, &others);
    if (CPU_COUNT(&others) == 0 || ::sched_setaffinity(0, sizeof others, &others) != 0) {
        return false;
    }
    // It was allowed before and is again; a cpuset that shrank meanwhile trims it by itself.
    return ::sched_setaffinity(0, sizeof allowed, &allowed) == 0;
}

}  // namespace penstock::os

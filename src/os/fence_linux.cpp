// The asymmetric fence on Linux: membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED), since Linux 4.16.
#include "os/fence.hpp"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace penstock::os {

bool register_asymmetric_fence() noexcept {
    // Registration outlives fork but not exec; asking again is cheap and idempotent.
    return ::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
}

void asymmetric_fence_heavy() noexcept {
    // Both are needed: the call orders other threads, the fence orders this one, even if the kernel
    // finds no thread to interrupt.
    full_fence();
    ::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
}

}  // namespace penstock::os

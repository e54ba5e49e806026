// A file system of a size that a test sets, for one file in a child: reservations that do not fit
// into it fail with ENOSPC, what is given back has room again.
#pragma once

#include <signal.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "tests/unit/support/refused_calls.hpp"

#ifdef __x86_64__  // for the registers of a system call

namespace penstock::test {

struct SmallFileSystem {
    static inline std::atomic<std::int64_t> size{0};  // bytes of memory that the file may take

    // From here on, for this thread and those that it starts. False: no seccomp here.
    static bool begin() {
        struct sigaction action{};
        action.sa_sigaction = &SmallFileSystem::answer;
        action.sa_flags = SA_SIGINFO;
        return ::sigaction(SIGSYS, &action, nullptr) == 0 &&
               trap_call({SYS_fallocate, 0, 1, ~0U, FALLOC_FL_KEEP_SIZE});
    }

private:
    // In the kernel's place: takes memory by writing zeros, for granules that have none.
    static void answer(int /*signal*/, siginfo_t* /*info*/, void* context) {
        static constexpr std::byte kZeros[4096]{};
        auto* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
        const int file = static_cast<int>(registers[REG_RDI]);
        const std::int64_t offset = registers[REG_RDX];
        const std::int64_t bytes = registers[REG_R10];
        struct stat state{};
        ::fstat(file, &state);
        registers[REG_RAX] = -ENOSPC;
        if (state.st_blocks * 512 + bytes > size.load()) return;
        for (std::int64_t done = 0; done < bytes; done += sizeof kZeros) {
            if (::pwrite(file, kZeros, sizeof kZeros, offset + done) < 0) return;
        }
        registers[REG_RAX] = 0;
    }
};

}  // namespace penstock::test

#endif

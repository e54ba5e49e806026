// Makes system calls fail as on other machines: without O_TMPFILE, without membarrier(2), with a
// full file system. Seccomp filters are permanent, so this is for children only.
#pragma once

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/falloc.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

namespace penstock::test {

// "Call `number` fails with `error` if the bits of `mask` in argument `argument` are `value`."
struct Refusal {
    long number = 0;
    int error = 0;
    unsigned argument = 0;
    std::uint32_t mask = 0;
    std::uint32_t value = 0;
};

inline constexpr std::uint32_t kTemporaryFile = O_TMPFILE & ~O_DIRECTORY;
inline constexpr Refusal kNoTemporaryFiles{SYS_openat, EOPNOTSUPP, 2, kTemporaryFile,
                                           kTemporaryFile};
inline constexpr Refusal kNoMembarrier{SYS_membarrier, EPERM, 0, 0, 0};
// Reservations fail; punching holes still works.
inline constexpr Refusal kNoSpaceLeft{SYS_fallocate, ENOSPC, 1, ~0U, FALLOC_FL_KEEP_SIZE};

// False where seccomp is not available: the test is then skipped.
inline bool filter_calls(std::initializer_list<Refusal> refusals, std::uint32_t outcome) {
    std::vector<sock_filter> filter;
    const auto load = [&](std::size_t offset) {
        filter.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset)));
    };
    for (const Refusal& refusal : refusals) {
        load(offsetof(seccomp_data, nr));
        filter.push_back(
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(refusal.number), 0, 4));
        load(offsetof(seccomp_data, args) + refusal.argument * sizeof(std::uint64_t));
        filter.push_back(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, refusal.mask));
        filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refusal.value, 0, 1));
        filter.push_back(
            BPF_STMT(BPF_RET | BPF_K, outcome | static_cast<std::uint32_t>(refusal.error)));
    }
    filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

inline bool refuse_calls(std::initializer_list<Refusal> refusals) {
    return filter_calls(refusals, SECCOMP_RET_ERRNO);
}

// Turns the call into a SIGSYS, whose handler may answer in the kernel's place.
inline bool trap_call(const Refusal& call) {
    return filter_calls({call}, SECCOMP_RET_TRAP);
}

// The exit code of a child in which refuse_calls() failed.
inline constexpr int kCannotRefuse = 77;

}  // namespace penstock::test

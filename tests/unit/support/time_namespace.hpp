// Processes in a time namespace of their own, as by `unshare -T --monotonic SECONDS`.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <string>

#include "tests/unit/support/child.hpp"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace penstock::test {

inline constexpr int kNoTimeNamespaces = 77;

// Runs `body` in a process whose clocks are so many seconds ahead: 0 if it returned, 1 if it threw,
// kNoTimeNamespaces where the kernel or the sandbox forbids it.
template <typename Body>
int run_ahead(long long seconds, Body&& body) {
    Child maker([&] {
        if (::unshare(CLONE_NEWTIME) != 0) ::_exit(kNoTimeNamespaces);
        const std::string text = "monotonic " + std::to_string(seconds) + " 0\nboottime " +
                                 std::to_string(seconds) + " 0\n";
        const int file = ::open("/proc/self/timens_offsets", O_WRONLY);
        const bool is_set = file >= 0 && ::write(file, text.data(), text.size()) ==
                                             static_cast<ssize_t>(text.size());
        if (!is_set) ::_exit(kNoTimeNamespaces);
        ::close(file);
        Child inside(body);  // in the new namespace; this process is still in the old one
        require(inside.wait() == 0);
    });
    return maker.wait();
}

}  // namespace penstock::test

// Facts about processes from the operating system: for display, never evidence of death.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace penstock::os {

struct ProcessIdentity {
    std::uint32_t pid = 0;            // in this process's PID namespace
    std::uint64_t pid_namespace = 0;  // inode of the namespace, 0 if unknown
    std::uint64_t start_time = 0;     // clock ticks since the machine's boot, 0 if unknown
    std::string name;                 // script or program, without its path
};

// This process. Reads /proc; not for hot paths.
ProcessIdentity identify_self();

// True if the kernel shows process `pid` as stopped or traced, and that process started at
// `start_time` in this process's own PID namespace. False where that is unknown.
bool is_stopped(std::uint32_t pid, std::uint64_t pid_namespace, std::uint64_t start_time) noexcept;

// The inode of this process's PID namespace; 0: unknown.
std::uint64_t own_pid_namespace() noexcept;

// The text of /proc/<pid>/stat, at the start of `buffer`; empty if it can't be read. By direct
// system calls, for threads with a descriptor table of their own. Allocates nothing, like the next
// two.
std::string_view read_stat(std::uint32_t pid, std::span<char> buffer) noexcept;
// The start time in such a text, as in ProcessIdentity; 0: unknown.
std::uint64_t start_time_in(std::string_view stat) noexcept;
// The exit status in such a text, as from wait(2), 0 also where the kernel hides it; nullopt: the
// process has not ended, or not with all its threads.
std::optional<int> zombie_status_in(std::string_view stat) noexcept;

}  // namespace penstock::os

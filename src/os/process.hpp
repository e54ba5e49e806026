// Facts about processes from the operating system: for display, never evidence of death.
#pragma once

#include <cstdint>
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

// The start time in the text of a /proc/<pid>/stat, as in ProcessIdentity. Allocates nothing.
std::uint64_t start_time_in(std::string_view stat) noexcept;

}  // namespace penstock::os

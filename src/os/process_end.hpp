// How a process ended, as far as the kernel tells processes that are not its parent. For people and
// for error messages, never evidence of death.
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

namespace penstock::os {

struct ProcessEnd {
    enum class How : std::uint8_t { Unknown, Exited, Killed };
    enum class Why : std::uint8_t {
        Gone,         // its exit status was collected before this process looked
        Elsewhere,    // it ran in another PID namespace, or in one that is not known
        Hidden,       // the kernel does not show its exit status to this process
        Running,      // it had not ended
        Unsupported,  // the operating system does not tell
    };

    How how = How::Unknown;
    std::uint8_t number = 0;  // the exit code if it exited, the signal if it was killed
    Why why = Why::Gone;      // only if unknown

    [[nodiscard]] bool is_known() const noexcept { return how != How::Unknown; }
    friend bool operator==(const ProcessEnd&, const ProcessEnd&) noexcept = default;
};

// Which system calls may be made. Files: on files only, for filters that kill on others.
enum class Calls : std::uint8_t { All, Files };

// The end of process `pid` of that PID namespace that started at `start_time`; another process with
// its pid is never mistaken for it. Waits for `patience` while the process is ending, if all calls
// may be made. Leaves the exit status to the parent, also if that is this process. Any thread.
[[nodiscard]] ProcessEnd end_of(std::uint32_t pid, std::uint64_t pid_namespace,
                                std::uint64_t start_time, std::chrono::milliseconds patience,
                                Calls calls = Calls::All) noexcept;

// The end of the process behind a readable pidfd, which its parent may have reaped. `pid` is its
// number in this process's PID namespace. Works in any descriptor table.
[[nodiscard]] ProcessEnd end_by(int pidfd, std::uint32_t pid) noexcept;

// "SIGKILL"; empty for a number without a name.
[[nodiscard]] std::string_view signal_name(int signal) noexcept;

}  // namespace penstock::os

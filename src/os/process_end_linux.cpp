// Ends of processes on Linux: pidfds, waitid(2), /proc. A pidfd that was opened in time tells the
// exit status once the process is reaped (Linux 6.15); before that, waitid(2) tells it of a child
// and /proc of any process that this one may trace. System calls are made directly, because the
// watcher's descriptors are in a table of its own: see process_watch_linux.cpp.
#include "os/process_end.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <utility>

#include "os/process.hpp"

namespace penstock::os {
namespace {

using How = ProcessEnd::How;
using Why = ProcessEnd::Why;

// Constants that are the same on every architecture; older headers lack them.
constexpr long kPidfdSendSignal = 424;
constexpr long kPidfdOpen = 434;
constexpr int kPidfd = 3;  // P_PIDFD of waitid(2)

// struct pidfd_info of <linux/pidfd.h> in its first size, which every kernel with the call accepts.
struct PidfdInfo {
    std::uint64_t mask;
    std::uint64_t cgroup;
    std::uint32_t pid;
    std::uint32_t thread_group;
    std::uint32_t parent;
    std::uint32_t credentials[8];
    std::int32_t exit_status;  // as from wait(2)
};
static_assert(offsetof(PidfdInfo, exit_status) == 60 && sizeof(PidfdInfo) == 64);
constexpr unsigned long kGetInfo = _IOWR(0xFF, 11, PidfdInfo);
constexpr std::uint64_t kInfoExit = 1U << 3U;

using StatText = std::array<char, 2048>;

ProcessEnd unknown(Why why) noexcept {
    return {How::Unknown, 0, why};
}

ProcessEnd end_in_status(int status) noexcept {
    if (WIFSIGNALED(status)) {
        return {How::Killed, static_cast<std::uint8_t>(WTERMSIG(status)), Why::Gone};
    }
    return {How::Exited, static_cast<std::uint8_t>(WEXITSTATUS(status)), Why::Gone};
}

// nullopt: the process is not reaped yet, or the kernel is too old.
std::optional<ProcessEnd> end_of_reaped(int pidfd) noexcept {
    PidfdInfo info{};
    info.mask = kInfoExit;
    if (::syscall(SYS_ioctl, pidfd, kGetInfo, &info) != 0 || (info.mask & kInfoExit) == 0) {
        return std::nullopt;
    }
    return end_in_status(info.exit_status);
}

// nullopt: the process is no child of this one, or is reaped.
std::optional<ProcessEnd> end_of_child(int pidfd) noexcept {
    siginfo_t info{};
    if (::syscall(SYS_waitid, kPidfd, pidfd, &info, WEXITED | WNOHANG | WNOWAIT, nullptr) != 0 ||
        info.si_pid == 0) {
        return std::nullopt;
    }
    const auto number = static_cast<std::uint8_t>(info.si_status);
    return ProcessEnd{info.si_code == CLD_EXITED ? How::Exited : How::Killed, number, Why::Gone};
}

// Whether this process may trace that one, which opening this file needs as well. Otherwise /proc
// shows 0 as the exit status.
bool is_shown(std::uint32_t pid) noexcept {
    std::array<char, 64> path{};
    std::snprintf(path.data(), path.size(), "/proc/%u/ns/pid", pid);
    const long file = ::syscall(SYS_openat, AT_FDCWD, path.data(), O_RDONLY | O_CLOEXEC);
    if (file >= 0) ::syscall(SYS_close, file);
    return file >= 0;
}

ProcessEnd end_of_zombie(std::string_view stat, std::uint32_t pid) noexcept {
    if (stat.empty()) return unknown(Why::Hidden);
    const std::optional<int> status = zombie_status_in(stat);
    if (!status) return unknown(Why::Running);
    if (*status == 0 && !is_shown(pid)) return unknown(Why::Hidden);
    return end_in_status(*status);
}

// The pid of an ended process stays its own until it is reaped.
bool is_reaped(int pidfd) noexcept {
    return ::syscall(kPidfdSendSignal, pidfd, 0, nullptr, 0) != 0 && errno == ESRCH;
}

bool ends_within(int pidfd, std::chrono::milliseconds patience) noexcept {
    pollfd ended{pidfd, POLLIN, 0};
    int found = 0;
    do {
        found = ::poll(&ended, 1, static_cast<int>(patience.count()));
    } while (found < 0 && errno == EINTR);
    return found == 1;
}

int open_pidfd(std::uint32_t pid, Calls calls) noexcept {
    if (calls == Calls::All) return static_cast<int>(::syscall(kPidfdOpen, pid, 0));
    errno = ENOSYS;
    return -1;
}

// A pidfd of this thread's table; -1: errno says why there is none.
class Pidfd {
public:
    Pidfd(std::uint32_t pid, Calls calls) noexcept : number_(open_pidfd(pid, calls)) {}
    Pidfd(const Pidfd&) = delete;
    Pidfd& operator=(const Pidfd&) = delete;
    ~Pidfd() {
        if (number_ >= 0) ::syscall(SYS_close, number_);
    }
    [[nodiscard]] int number() const noexcept { return number_; }

private:
    const int number_;
};

}  // namespace

ProcessEnd end_by(int pidfd, std::uint32_t pid) noexcept {
    if (const auto end = end_of_reaped(pidfd)) return *end;
    if (const auto end = end_of_child(pidfd)) return *end;
    StatText text{};
    const ProcessEnd end = end_of_zombie(read_stat(pid, text), pid);
    if (!is_reaped(pidfd)) return end;
    return end_of_reaped(pidfd).value_or(unknown(Why::Gone));
}

// The start time is read while the pidfd is held: if it matches, so does the process.
ProcessEnd end_of(std::uint32_t pid, std::uint64_t pid_namespace, std::uint64_t start_time,
                  std::chrono::milliseconds patience, Calls calls) noexcept {
    if (pid_namespace == 0 || start_time == 0 || pid_namespace != own_pid_namespace()) {
        return unknown(Why::Elsewhere);
    }
    const Pidfd process(pid, calls);
    if (process.number() < 0 && errno == ESRCH) return unknown(Why::Gone);
    StatText text{};
    const std::string_view stat = read_stat(pid, text);
    if (stat.empty()) {
        const bool is_gone =
            process.number() >= 0 ? is_reaped(process.number()) : errno == ENOENT || errno == ESRCH;
        return unknown(is_gone ? Why::Gone : Why::Hidden);
    }
    if (start_time_in(stat) != start_time) return unknown(Why::Gone);
    if (pid == static_cast<std::uint32_t>(::getpid())) return unknown(Why::Running);
    if (process.number() < 0) return end_of_zombie(stat, pid);  // without pidfds
    if (!ends_within(process.number(), patience)) return unknown(Why::Running);
    return end_by(process.number(), pid);
}

std::string_view signal_name(int signal) noexcept {
    static constexpr std::pair<int, std::string_view> kNames[] = {
        {SIGHUP, "SIGHUP"},   {SIGINT, "SIGINT"},       {SIGQUIT, "SIGQUIT"},
        {SIGILL, "SIGILL"},   {SIGTRAP, "SIGTRAP"},     {SIGABRT, "SIGABRT"},
        {SIGBUS, "SIGBUS"},   {SIGFPE, "SIGFPE"},       {SIGKILL, "SIGKILL"},
        {SIGUSR1, "SIGUSR1"}, {SIGSEGV, "SIGSEGV"},     {SIGUSR2, "SIGUSR2"},
        {SIGPIPE, "SIGPIPE"}, {SIGALRM, "SIGALRM"},     {SIGTERM, "SIGTERM"},
        {SIGXCPU, "SIGXCPU"}, {SIGXFSZ, "SIGXFSZ"},     {SIGVTALRM, "SIGVTALRM"},
        {SIGPROF, "SIGPROF"}, {SIGIO, "SIGIO"},         {SIGPWR, "SIGPWR"},
        {SIGSYS, "SIGSYS"},   {SIGSTKFLT, "SIGSTKFLT"},
    };
    for (const auto& [number, name] : kNames) {
        if (number == signal) return name;
    }
    return {};
}

}  // namespace penstock::os

// Process watches on Linux: pidfds in an epoll set, in a descriptor table that close_range(2) has
// unshared and emptied. System calls are made directly: a sanitizer that follows descriptors by
// their number would mix up the two tables.
#include "os/process_watch.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <new>
#include <system_error>

#include "os/fork.hpp"
#include "os/process.hpp"

namespace penstock::os {
namespace {

// Constants that are the same on every architecture; older headers lack them.
constexpr long kPidfdOpen = 434;
constexpr long kCloseRange = 436;
constexpr unsigned kUnshare = 2;  // CLOSE_RANGE_UNSHARE

constexpr std::uint32_t kNoProcess = 0;  // marks the pipe in the epoll set

long close_range(unsigned first, unsigned last, unsigned flags) noexcept {
    return ::syscall(kCloseRange, first, last, flags);
}

int open_raw(const char* path, int flags) noexcept {
    return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC));
}

void close_raw(int descriptor) noexcept {
    ::syscall(SYS_close, descriptor);
}

// 0: unknown.
std::uint64_t start_time_of(std::uint32_t pid) noexcept {
    std::array<char, 2048> text{};
    return start_time_in(read_stat(pid, text));
}

// Opens anew the pipe that `descriptor` refers to in this thread's table, with another direction.
int reopen(int descriptor, int flags) noexcept {
    std::array<char, 64> path{};
    std::snprintf(path.data(), path.size(), "/proc/thread-self/fd/%d", descriptor);
    return open_raw(path.data(), flags | O_NONBLOCK);
}

int open_pipe() noexcept {
    int ends[2] = {-1, -1};
    if (::syscall(SYS_pipe2, ends, O_CLOEXEC | O_NONBLOCK) != 0) return -1;
    const int both = reopen(ends[0], O_RDWR);
    const int error = errno;
    close_raw(ends[0]);
    close_raw(ends[1]);
    errno = error;
    return both;
}

// Opens nothing: a child that is forked by another thread meanwhile would keep it.
bool has_calls() noexcept {
    constexpr pid_t kImpossible = 0;
    if (::syscall(kPidfdOpen, kImpossible, 0) >= 0 || errno != EINVAL) return false;
    return close_range(~0U, ~0U, 0) == 0;  // an empty range
}

// The code of a thread that never ends must stay mapped after dlclose(). Nothing to do for code in
// the program itself, whose link map has no name.
void stay_loaded() noexcept {
    static const char here = 0;
    Dl_info info{};
    void* map = nullptr;
    if (::dladdr1(&here, &info, &map, RTLD_DL_LINKMAP) == 0 || map == nullptr) return;
    const char* const name = static_cast<const link_map*>(map)->l_name;
    if (name == nullptr || *name == '\0') return;
    static_cast<void>(::dlopen(name, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE));
}

bool watch_for(int events, int descriptor, std::uint32_t pid) noexcept {
    epoll_event event{};
    event.events = EPOLLIN;
    if (pid != kNoProcess) event.events |= EPOLLONESHOT;  // a process ends once
    event.data.u64 = std::uint64_t{pid} << 32U | static_cast<std::uint32_t>(descriptor);
    return ::syscall(SYS_epoll_ctl, events, EPOLL_CTL_ADD, descriptor, &event) == 0;
}

// False: the pipe has no writer left, or can't be read.
bool drain(int read_end) noexcept {
    std::array<char, 512> taken{};
    long size = 0;
    do {
        size = ::syscall(SYS_read, read_end, taken.data(), taken.size());
    } while (size > 0 || (size < 0 && errno == EINTR));
    return size < 0 && errno == EAGAIN;
}

}  // namespace

bool ProcessWatch::prepare() noexcept {
    static constinit std::atomic<bool> stays{false};
    if (!has_calls()) return false;
    if (!stays.load()) stay_loaded();  // two threads may both do it
    stays.store(true);
    return true;
}

ProcessWatch::ProcessWatch() {
    if (has_calls()) pipe_ = open_closed_in_children(open_pipe);
    if (!pipe_.is_open()) throw std::system_error(errno, std::generic_category(), "pidfd");
}

ProcessWatch::~ProcessWatch() {
    close_descriptor(pipe_);
}

void ProcessWatch::raise() noexcept {
    const int error = errno;
    const char one = 1;
    raising_.fetch_add(1);
    if (!is_closed_.load() && pipe_.is_ours()) {
        ::syscall(SYS_write, pipe_.number, &one, sizeof one);
    }
    raising_.fetch_sub(1);
    errno = error;
}

// Of close() and a raise() at the same time, one sees the other: no number that the program has
// reused meanwhile is written to.
void ProcessWatch::close() noexcept {
    if (!is_closed_.exchange(true) && raising_.load() == 0) close_descriptor(pipe_);
}

bool ProcessWatch::begin() noexcept {
    ::prctl(PR_SET_NAME, "penstock-watch");
    const auto pipe = static_cast<unsigned>(pipe_.number);
    if (close_range(pipe + 1, ~0U, kUnshare) != 0) return false;
    if (!pipe_.is_ours()) return false;  // from here on it can't change: the table is private
    if (pipe > 0 && close_range(0, pipe - 1, 0) != 0) return false;
    read_end_ = reopen(pipe_.number, O_RDONLY);
    close_raw(pipe_.number);
    events_ = static_cast<int>(::syscall(SYS_epoll_create1, EPOLL_CLOEXEC));
    return read_end_ >= 0 && events_ >= 0 && watch_for(events_, read_end_, kNoProcess);
}

// The start time is read while the descriptor is held: if it matches, so does the process.
bool ProcessWatch::add(std::uint32_t pid, std::uint64_t start_time) noexcept {
    errno = 0;
    const int process = static_cast<int>(::syscall(kPidfdOpen, pid, 0));
    const bool is_watched = process >= 0 && start_time_of(pid) == start_time &&
                            note_start_time(process, start_time) &&
                            watch_for(events_, process, pid);
    is_short_ =
        !is_watched && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOSPC);
    if (process >= 0 && !is_watched) close_raw(process);
    return is_watched;
}

bool ProcessWatch::note_start_time(int process, std::uint64_t start_time) noexcept {
    const auto at = static_cast<std::size_t>(process);
    try {
        if (start_times_.size() <= at) start_times_.resize(at + 1);
    } catch (const std::bad_alloc&) {
        return false;
    }
    start_times_[at] = start_time;
    return true;
}

bool ProcessWatch::wait(std::vector<EndedProcess>& ended) {
    ended.clear();
    std::array<epoll_event, 64> events{};
    ended.reserve(events.size());
    const long count = ::syscall(SYS_epoll_pwait, events_, events.data(), events.size(), -1,
                                 nullptr, std::size_t{8});
    if (count < 0) return errno == EINTR;
    bool is_open = true;
    for (long i = 0; i < count; ++i) {
        const std::uint64_t mark = events[static_cast<std::size_t>(i)].data.u64;
        const auto pid = static_cast<std::uint32_t>(mark >> 32U);
        if (pid == kNoProcess) {
            is_open = drain(read_end_);
        } else {
            const auto process = static_cast<std::uint32_t>(mark);
            const int descriptor = static_cast<int>(process);
            ended.push_back({pid, start_times_[process], end_by(descriptor, pid)});
            close_raw(descriptor);
        }
    }
    return is_open;
}

}  // namespace penstock::os

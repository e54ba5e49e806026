// Waiting until processes end, in a thread that has descriptors of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "os/descriptor.hpp"
#include "os/process_end.hpp"

namespace penstock::os {

struct EndedProcess {
    std::uint32_t pid = 0;
    std::uint64_t start_time = 0;
    ProcessEnd end;
};

// Watches any number of processes for one thread, which calls begin(), add() and wait().
//
// That thread leaves the process's descriptor table: a program that closes every descriptor does
// not close those of the watch, a forked child inherits none of them, and they take no number of
// the program's. Only the pipe of raise() is in the program's table. If the program closes it, the
// watch ends.
class ProcessWatch {
public:
    // To be called before a watch is made: keeps this library's code mapped for good, because the
    // watching thread may run until the process ends. Waits for the dynamic loader's lock, once.
    // False: the kernel or a filter of system calls refuses watches.
    [[nodiscard]] static bool prepare() noexcept;

    // Throws std::system_error where the kernel, a filter of system calls or a limit refuses the
    // watch. It needs Linux 5.9 and /proc. Takes no lock of the dynamic loader.
    ProcessWatch();
    ProcessWatch(const ProcessWatch&) = delete;
    ProcessWatch& operator=(const ProcessWatch&) = delete;
    // Only for a watch that no thread has begun.
    ~ProcessWatch();

    // Makes wait() return. Any other thread, also in a signal handler, any number of times; not in
    // a forked child.
    void raise() noexcept;

    // Closes the pipe of a watch whose thread has ended or never began, unless a raise() is under
    // way. Any other thread.
    void close() noexcept;

    // The calling thread is the watching one from here on, and named "penstock-watch". False:
    // refused; the thread is good for nothing that needs descriptors.
    [[nodiscard]] bool begin() noexcept;
    // Watches the process with that pid in this process's PID namespace. False: it has ended, or
    // another process has its pid, or it can't be watched.
    [[nodiscard]] bool add(std::uint32_t pid, std::uint64_t start_time) noexcept;
    // Whether the last add() failed for want of descriptors or memory.
    [[nodiscard]] bool is_short() const noexcept { return is_short_; }
    // Sleeps until raise() or the end of a process, and returns those that have ended; they are no
    // longer watched. By then the kernel has closed their descriptors. False: the program has
    // closed the pipe, and nothing can be watched any more. Throws std::bad_alloc.
    [[nodiscard]] bool wait(std::vector<EndedProcess>& ended);

private:
    // Kept for wait(), when another process may have the pid already. False: no memory.
    [[nodiscard]] bool note_start_time(int process, std::uint64_t start_time) noexcept;

    OwnDescriptor pipe_;  // open for reading, too: writing to it never raises SIGPIPE
    std::atomic<unsigned> raising_{0};
    std::atomic<bool> is_closed_{false};
    bool is_short_ = false;
    // In the watching thread's table.
    int read_end_ = -1;
    int events_ = -1;
    std::vector<std::uint64_t> start_times_;  // by descriptor, of the watched processes
};

}  // namespace penstock::os

// Real processes for tests: started, stopped, killed, awaited with a deadline, and never left
// behind. Every child dies with the thread that started it, and with its Process object.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "tests/support/roles.hpp"

namespace penstock::trust {

using SteadyClock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

[[noreturn]] inline void throw_errno(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

// The timeout for poll(2) until `end`: at least 0.
inline int poll_span(SteadyClock::time_point end) {
    const auto left = std::chrono::ceil<Milliseconds>(end - SteadyClock::now()).count();
    return left > 0 ? static_cast<int>(left) : 0;
}

// Owns one descriptor.
class Descriptor {
public:
    Descriptor() = default;
    explicit Descriptor(int number) : number_(number) {}
    Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        std::swap(number_, other.number_);
        return *this;
    }
    ~Descriptor() { close(); }

    [[nodiscard]] int get() const { return number_; }
    void close() {
        if (number_ >= 0) ::close(std::exchange(number_, -1));
    }

private:
    int number_ = -1;
};

struct Pipe {
    Descriptor reading;
    Descriptor writing;

    static Pipe make() {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) throw_errno("pipe2");
        return {Descriptor(ends[0]), Descriptor(ends[1])};
    }
};

// How a process ended.
struct Ending {
    bool was_killed = false;
    int code = 0;  // exit code, or the signal

    [[nodiscard]] bool is_success() const { return !was_killed && code == 0; }
    [[nodiscard]] std::string describe() const {
        return (was_killed ? "ended by signal " : "exited with ") + std::to_string(code);
    }
};

struct StartOptions {
    int namespaces = 0;            // CLONE_NEWPID...: the child is born in new ones
    std::function<bool()> before;  // in the child before exec: system calls only; false: exit 126
};

// A child that runs this program in a role. Its standard input and output are pipes to the parent.
// Not thread-safe. The destructor kills and reaps the child.
class Process {
public:
    Process() = default;

    static Process start(const std::string& role, const Words& arguments = {},
                         const StartOptions& options = {}) {
        Process child;
        Pipe to_child = Pipe::make();
        Pipe from_child = Pipe::make();
        Words words{"/proc/self/exe", std::string(kRoleFlag), role};
        words.insert(words.end(), arguments.begin(), arguments.end());
        std::vector<char*> argv;
        for (std::string& word : words) argv.push_back(word.data());
        argv.push_back(nullptr);
        const pid_t parent = ::getpid();
        child.pid_ = options.namespaces == 0
                         ? ::fork()
                         : static_cast<pid_t>(
                               ::syscall(SYS_clone, options.namespaces | SIGCHLD, 0, 0, 0, 0));
        if (child.pid_ < 0) throw_errno("fork");
        if (child.pid_ == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            // Has the parent died already? (In a new PID namespace, every parent is 0.)
            if (options.namespaces == 0 && ::getppid() != parent) ::_exit(125);
            ::dup2(to_child.reading.get(), STDIN_FILENO);
            ::dup2(from_child.writing.get(), STDOUT_FILENO);
            if (options.before && !options.before()) ::_exit(126);
            ::execv(argv[0], argv.data());
            ::_exit(127);
        }
        child.input_ = std::move(to_child.writing);
        child.output_ = std::move(from_child.reading);
        child.watch_ = Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, child.pid_, 0)));
        if (child.watch_.get() < 0) throw_errno("pidfd_open");
        return child;
    }

    Process(Process&& other) noexcept { *this = std::move(other); }
    Process& operator=(Process&& other) noexcept {
        end();
        pid_ = std::exchange(other.pid_, -1);
        ending_ = std::exchange(other.ending_, std::nullopt);
        input_ = std::move(other.input_);
        output_ = std::move(other.output_);
        watch_ = std::move(other.watch_);
        return *this;
    }
    ~Process() { end(); }

    [[nodiscard]] pid_t pid() const { return pid_; }
    [[nodiscard]] bool is_started() const { return pid_ > 0; }
    [[nodiscard]] int input() const { return input_.get(); }
    [[nodiscard]] int output() const { return output_.get(); }
    void close_input() { input_.close(); }
    void close_output() { output_.close(); }

    void send_signal(int signal) const {
        if (pid_ > 0 && !ending_) ::kill(pid_, signal);
    }
    void kill() const { send_signal(SIGKILL); }
    void stop() const { send_signal(SIGSTOP); }
    void resume() const { send_signal(SIGCONT); }

    // Waits for the end and reaps it.
    std::optional<Ending> wait(Milliseconds patience) {
        if (ending_ || pid_ <= 0) return ending_;
        if (!is_over(patience)) return std::nullopt;
        int status = 0;
        if (::waitpid(pid_, &status, 0) != pid_) return std::nullopt;
        ending_ = Ending{WIFSIGNALED(status),
                         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)};
        return ending_;
    }

    // True once the process has ended; it stays a zombie until wait().
    [[nodiscard]] bool is_over(Milliseconds patience = Milliseconds(0)) const {
        if (ending_) return true;
        pollfd event{watch_.get(), POLLIN, 0};
        const auto end = SteadyClock::now() + patience;
        while (::poll(&event, 1, poll_span(end)) < 0 && errno == EINTR) {
        }
        return (event.revents & POLLIN) != 0;
    }

    // 'R', 'S', 'T', 'Z'... as in /proc; '?' if it is gone.
    [[nodiscard]] char state() const {
        std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
        std::string text;
        std::getline(file, text);
        const auto end_of_name = text.rfind(')');
        return end_of_name == std::string::npos || text.size() < end_of_name + 3
                   ? '?'
                   : text[end_of_name + 2];
    }
    [[nodiscard]] bool is_stopped() const { return state() == 'T'; }

    // Whether its main thread sleeps in futex(2). A parent may read that.
    [[nodiscard]] bool is_in_futex() const {
        std::ifstream file("/proc/" + std::to_string(pid_) + "/syscall");
        long number = -1;
        return (file >> number) && number == SYS_futex;
    }

private:
    void end() {
        if (pid_ <= 0) return;
        kill();
        wait(Milliseconds(10'000));
        pid_ = -1;
    }

    pid_t pid_ = -1;
    std::optional<Ending> ending_;
    Descriptor input_;
    Descriptor output_;
    Descriptor watch_;
};

// Polls until `look` is true; false if it is not in time.
template <typename Look>
bool await(Milliseconds patience, Look&& look) {
    const auto end = SteadyClock::now() + patience;
    for (;;) {
        if (look()) return true;
        if (SteadyClock::now() >= end) return false;
        constexpr timespec kPause{0, 300'000};
        ::nanosleep(&kPause, nullptr);
    }
}

}  // namespace penstock::trust

// Real processes for tests: forked, judged by how they ended, never left behind. Processes
// synchronize by gates (pipes) and shared memory.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <new>
#include <source_location>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

namespace penstock::test {

// For code in children, where GoogleTest's EXPECT would not be reported: throws.
inline void require(bool holds,
                    const std::source_location& where = std::source_location::current()) {
    if (holds) return;
    throw std::runtime_error(std::string(where.file_name()) + ":" + std::to_string(where.line()) +
                             ": does not hold");
}

// Polls until `look` is true; throws after half a minute.
template <typename Look>
void await(Look&& look, const std::source_location& where = std::source_location::current()) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!look()) {
        require(std::chrono::steady_clock::now() < end, where);
        std::this_thread::yield();
    }
}

// The result of wait() for a process that a signal ended.
constexpr int killed_by(int signal) noexcept {
    return 128 + signal;
}

// A forked process that runs `body` without GoogleTest: it exits with 0 if the body returned, with
// 1 and the message on stderr if it threw. It dies with the test, and after a minute at the latest.
class Child {
public:
    template <typename Body>
    explicit Child(Body&& body) {
        std::fflush(nullptr);
        const pid_t parent = ::getpid();
        pid_ = ::fork();
        if (pid_ == 0) run(parent, std::forward<Body>(body));
        require(pid_ > 0);
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() {
        if (pid_ <= 0) return;
        send(SIGKILL);
        wait();
    }

    [[nodiscard]] pid_t pid() const noexcept { return pid_; }

    // Waits; returns its exit code or killed_by(signal).
    int wait() {
        int status = 0;
        while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
        }
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : killed_by(WTERMSIG(status));
    }

    void send(int signal) const { ::kill(pid_, signal); }

    // Kills it; returns when it is dead but not reaped: a zombie.
    void kill_unreaped() const {
        send(SIGKILL);
        await_end();
    }
    // Returns when it has ended by itself and is not reaped.
    void await_end() const { await_event(WEXITED | WNOWAIT); }
    // Stops it; returns when it stands still.
    void stop() const {
        send(SIGSTOP);
        await_event(WSTOPPED);
    }
    void resume() const {
        send(SIGCONT);
        await_event(WCONTINUED);
    }
    // Returns when it has stopped by itself.
    void await_stop() const { await_event(WSTOPPED); }
    // Returns when the kernel shows it asleep, as a waiter is.
    void await_sleep() const {
        test::await([this] {
            std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
            std::string text;
            std::getline(file, text);
            const auto at = text.rfind(')');
            return at != std::string::npos && text.compare(at, 3, ") S") == 0;
        });
    }

private:
    template <typename Body>
    [[noreturn]] static void run(pid_t parent, Body&& body) {
        constexpr unsigned kLongest = 60;  // seconds
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != parent) ::_exit(1);
        ::alarm(kLongest);
        int outcome = 1;
        try {
            body();
            outcome = 0;
        } catch (const std::exception& error) {
            std::fprintf(stderr, "in a child: %s\n", error.what());
        }
        ::_exit(outcome);
    }

    void await_event(int events) const {
        siginfo_t info{};
        while (::waitid(P_PID, static_cast<id_t>(pid_), &info, events) < 0 && errno == EINTR) {
        }
    }

    pid_t pid_ = -1;
};

// A gate that is opened once for each that passes; works between processes and threads.
class Gate {
public:
    Gate() { require(::pipe(ends_) == 0); }
    Gate(const Gate&) = delete;
    Gate& operator=(const Gate&) = delete;
    ~Gate() {
        ::close(ends_[0]);
        ::close(ends_[1]);
    }

    void open() const { require(::write(ends_[1], "", 1) == 1); }
    // Throws when it stays closed for half a minute.
    void pass() const {
        constexpr int kLongest = 30'000;  // ms
        pollfd gate{ends_[0], POLLIN, 0};
        require(::poll(&gate, 1, kLongest) == 1);
        char token = 0;
        require(::read(ends_[0], &token, 1) == 1);
    }

private:
    int ends_[2] = {-1, -1};
};

// A T that forked children share with their parent.
template <typename T>
class Shared {
public:
    Shared() {
        void* memory =
            ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        require(memory != MAP_FAILED);
        value_ = new (memory) T{};
    }
    Shared(const Shared&) = delete;
    Shared& operator=(const Shared&) = delete;
    ~Shared() { ::munmap(value_, sizeof(T)); }

    T& operator*() const noexcept { return *value_; }
    T* operator->() const noexcept { return value_; }

private:
    T* value_ = nullptr;
};

}  // namespace penstock::test

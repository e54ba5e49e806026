// Clocks on Linux: clock_gettime through the vDSO, without a system call. The offset of a time
// namespace is read from /proc when the library is loaded, and in every forked child.
#include "os/clock.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <ctime>

namespace penstock::os {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;  // ns

std::int64_t read_clock(clockid_t clock) noexcept {
    timespec now{};
    ::clock_gettime(clock, &now);
    return std::int64_t{now.tv_sec} * kSecond + now.tv_nsec;
}

ino_t namespace_at(const char* path) noexcept {
    struct stat status{};
    return ::stat(path, &status) == 0 ? status.st_ino : 0;
}

// The line "NAME SECONDS NANOSECONDS".
std::int64_t offset_in(const char* text, const char* name) noexcept {
    const char* const line = std::strstr(text, name);
    if (line == nullptr) return 0;
    char* end = nullptr;
    const long long seconds = std::strtoll(line + std::strlen(name), &end, 10);
    return seconds * kSecond + std::strtoll(end, nullptr, 10);
}

// Calls only functions that are allowed in a forked child.
ClockOffsets read_offsets() noexcept {
    constexpr ino_t kInitial = 0xEFFFFFFA;  // PROC_TIME_INIT_INO, the same on every machine
    const ino_t own = namespace_at("/proc/self/ns/time");
    // A kernel without time namespaces still shows other namespaces.
    if (own == 0) return {0, 0, namespace_at("/proc/self/ns/pid") != 0};
    if (own == kInitial) return {};
    // The file is about the namespace of future children: this process's own, unless the process
    // has made a new one for them by a call that did not move itself.
    if (namespace_at("/proc/self/ns/time_for_children") != own) return {0, 0, false};
    const int file = ::open("/proc/self/timens_offsets", O_RDONLY | O_CLOEXEC);
    if (file < 0) return {0, 0, false};
    char text[256];
    const ssize_t size = ::read(file, text, sizeof text - 1);
    ::close(file);
    text[size > 0 ? size : 0] = '\0';
    return {offset_in(text, "monotonic"), offset_in(text, "boottime"), size > 0};
}

// A process enters another time namespace only by fork, exec or setns(); setns() is not noticed.
class Offsets {
public:
    Offsets() noexcept {
        adopt();
        ::pthread_atfork(nullptr, nullptr, &Offsets::adopt);
    }
    static ClockOffsets own;  // written while there is one thread only

private:
    static void adopt() noexcept { own = read_offsets(); }
};
ClockOffsets Offsets::own;
const Offsets offsets;

}  // namespace

std::int64_t monotonic_ns() noexcept {
    return read_clock(CLOCK_MONOTONIC) - Offsets::own.monotonic;
}

std::int64_t coarse_ns() noexcept {
    return read_clock(CLOCK_MONOTONIC_COARSE) - Offsets::own.monotonic;
}

std::int64_t wall_ns() noexcept {
    return read_clock(CLOCK_REALTIME);
}

ClockOffsets clock_offsets() noexcept {
    return Offsets::own;
}

void pause_between_tries() noexcept {
    const timespec span{0, 200'000};
    ::nanosleep(&span, nullptr);
}

}  // namespace penstock::os

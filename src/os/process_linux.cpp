// Processes on Linux: /proc.
#include "os/process.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "os/clock.hpp"

namespace penstock::os {
namespace {

std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Ticks since the machine's boot: subtracts the offset of the reader's time namespace, which /proc
// adds.
std::uint64_t since_boot(std::uint64_t ticks) noexcept {
    const long rate = ::sysconf(_SC_CLK_TCK);
    if (rate <= 0) return ticks;
    const std::int64_t tick = 1'000'000'000 / rate;
    const std::int64_t offset = clock_offsets().boot;
    return ticks - static_cast<std::uint64_t>((offset - (offset % tick + tick) % tick) / tick);
}

// Field `number` of a /proc/<pid>/stat, from the third on; empty if there is none. Field 2, the
// program's name in parentheses, may contain anything, so fields are counted from its end.
std::string_view field_of(std::string_view stat, unsigned number) noexcept {
    const auto end_of_name = stat.rfind(')');
    if (end_of_name == std::string_view::npos || end_of_name + 2 >= stat.size()) return {};
    std::string_view rest = stat.substr(end_of_name + 2);
    for (unsigned field = 3; field < number; ++field) {
        const auto blank = rest.find(' ');
        if (blank == std::string_view::npos) return {};
        rest.remove_prefix(blank + 1);
    }
    return rest.substr(0, rest.find_first_of(" \n"));
}

constexpr unsigned kState = 3;
constexpr unsigned kThreads = 20;
constexpr unsigned kStartTime = 22;
constexpr unsigned kExitStatus = 52;

template <typename Number>
Number number_in(std::string_view field) noexcept {
    Number number{};
    std::from_chars(field.data(), field.data() + field.size(), number);
    return number;
}

std::string base_name(std::string_view path) {
    const auto slash = path.rfind('/');
    return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

// "worker.py" for `python3 worker.py`, "engine.worker" for `python3 -m engine.worker`.
std::string process_name() {
    const std::string line = read_file("/proc/self/cmdline");
    std::vector<std::string> words;
    for (std::size_t at = 0; at < line.size();) {
        const auto end = std::min(line.find('\0', at), line.size());
        words.emplace_back(line.substr(at, end - at));
        at = end + 1;
    }
    if (words.empty()) return "?";
    std::string program = base_name(words[0]);
    if (!program.starts_with("python") || words.size() < 2) return program;
    if (words[1] == "-m" && words.size() > 2) return words[2];
    return words[1].starts_with('-') ? program : base_name(words[1]);
}

}  // namespace

ProcessIdentity identify_self() {
    ProcessIdentity self;
    self.pid = static_cast<std::uint32_t>(::getpid());
    self.pid_namespace = own_pid_namespace();
    self.start_time = start_time_in(read_file("/proc/self/stat"));
    self.name = process_name();
    return self;
}

bool is_stopped(std::uint32_t pid, std::uint64_t pid_namespace, std::uint64_t start_time) noexcept {
    try {
        if (pid_namespace != own_pid_namespace()) return false;
        const std::string stat = read_file("/proc/" + std::to_string(pid) + "/stat");
        const std::string_view state = field_of(stat, kState);
        return start_time_in(stat) == start_time && (state == "T" || state == "t");
    } catch (...) {
        return false;
    }
}

std::uint64_t own_pid_namespace() noexcept {
    struct stat status{};
    return ::stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}

std::string_view read_stat(std::uint32_t pid, std::span<char> buffer) noexcept {
    std::array<char, 64> path{};
    std::snprintf(path.data(), path.size(), "/proc/%u/stat", pid);
    const long file = ::syscall(SYS_openat, AT_FDCWD, path.data(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return {};
    const long size = ::syscall(SYS_read, file, buffer.data(), buffer.size());
    ::syscall(SYS_close, file);
    return {buffer.data(), size > 0 ? static_cast<std::size_t>(size) : 0};
}

std::uint64_t start_time_in(std::string_view stat) noexcept {
    const std::string_view field = field_of(stat, kStartTime);
    return field.empty() ? 0 : since_boot(number_in<std::uint64_t>(field));
}

// A process whose first thread has ended is shown as a zombie while others run.
std::optional<int> zombie_status_in(std::string_view stat) noexcept {
    const std::string_view status = field_of(stat, kExitStatus);
    if (field_of(stat, kState) != "Z" || field_of(stat, kThreads) != "1" || status.empty()) {
        return std::nullopt;
    }
    return number_in<int>(status);
}

}  // namespace penstock::os

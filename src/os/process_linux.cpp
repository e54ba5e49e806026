// Processes on Linux: /proc.
#include "os/process.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
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

struct Stat {
    char state = '?';
    std::uint64_t start_time = 0;
};

// Ticks since the machine's boot: subtracts the offset of the reader's time namespace, which /proc
// adds.
std::uint64_t since_boot(std::uint64_t ticks) noexcept {
    const long rate = ::sysconf(_SC_CLK_TCK);
    if (rate <= 0) return ticks;
    const std::int64_t tick = 1'000'000'000 / rate;
    const std::int64_t offset = clock_offsets().boot;
    return ticks - static_cast<std::uint64_t>((offset - (offset % tick + tick) % tick) / tick);
}

// Field 2, the program's name in parentheses, may contain anything, so fields are counted from its
// end.
Stat parse_stat(std::string_view text) noexcept {
    const auto end_of_name = text.rfind(')');
    if (end_of_name == std::string_view::npos || end_of_name + 2 >= text.size()) return {};
    std::string_view rest = text.substr(end_of_name + 2);
    Stat stat;
    stat.state = rest.front();
    constexpr unsigned kStartTime = 22;
    for (unsigned field = 3; field < kStartTime; ++field) {
        const auto blank = rest.find(' ');
        if (blank == std::string_view::npos) return {};
        rest.remove_prefix(blank + 1);
    }
    std::uint64_t ticks = 0;
    std::from_chars(rest.data(), rest.data() + rest.size(), ticks);
    stat.start_time = since_boot(ticks);
    return stat;
}

std::uint64_t own_pid_namespace() {
    struct stat status{};
    return ::stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
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
    self.start_time = parse_stat(read_file("/proc/self/stat")).start_time;
    self.name = process_name();
    return self;
}

bool is_stopped(std::uint32_t pid, std::uint64_t pid_namespace, std::uint64_t start_time) noexcept {
    try {
        if (pid_namespace != own_pid_namespace()) return false;
        const Stat stat = parse_stat(read_file("/proc/" + std::to_string(pid) + "/stat"));
        return stat.start_time == start_time && (stat.state == 'T' || stat.state == 't');
    } catch (...) {
        return false;
    }
}

std::uint64_t start_time_in(std::string_view stat) noexcept {
    return parse_stat(stat).start_time;
}

}  // namespace penstock::os

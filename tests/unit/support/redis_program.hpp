// The command that starts a Redis-protocol server without files, for tests and benchmarks.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::test {

using Words = std::vector<std::string>;

// The path of a program in $PATH; empty if there is none.
inline std::string find_program(const std::string& name) {
    const char* path = std::getenv("PATH");
    std::string_view folders = path == nullptr ? "/usr/bin:/bin" : path;
    while (!folders.empty()) {
        const std::size_t end = folders.find(':');
        const std::string candidate = std::string(folders.substr(0, end)) + "/" + name;
        if (::access(candidate.c_str(), X_OK) == 0) return candidate;
        folders.remove_prefix(end == std::string_view::npos ? folders.size() : end + 1);
    }
    return {};
}

inline std::string find_server() {
    const std::string redis = find_program("redis-server");
    return redis.empty() ? find_program("valkey-server") : redis;
}

// `more`: its address, and other arguments.
inline Words server_command(const std::string& folder, const std::string& log, const Words& more) {
    Words words{find_server(), "--save",    "", "--appendonly", "no", "--dir",
                folder,        "--logfile", log};
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

// Replaces the process by the program; returns only if that fails.
inline void become(Words words) {
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
}

}  // namespace penstock::test

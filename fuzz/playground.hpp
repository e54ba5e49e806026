// The directory of a fuzzer's files, one per process, removed at exit. Those of killed fuzzers are
// removed by the next.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>

namespace penstock::fuzzing {

inline constexpr const char* kPlaygroundPrefix = "penstock-fuzz-";

// In memory, as segments are: a disk would take most of the time.
inline std::filesystem::path playground_root() {
    std::error_code ignored;
    const std::filesystem::path memory = "/dev/shm";
    return std::filesystem::is_directory(memory, ignored) ? memory
                                                          : std::filesystem::temp_directory_path();
}

// Removes directories of fuzzers that were killed.
inline void sweep_playgrounds() {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(playground_root(), ignored)) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with(kPlaygroundPrefix)) continue;
        const int owner = std::atoi(name.c_str() + std::strlen(kPlaygroundPrefix));
        if (owner > 0 && ::kill(owner, 0) != 0 && errno == ESRCH) {
            std::filesystem::remove_all(entry.path(), ignored);
        }
    }
}

// A directory of this process; removed at exit.
inline const std::filesystem::path& playground() {
    static const auto* directory = [] {  // never destroyed: used at exit
        sweep_playgrounds();
        const auto* own = new std::filesystem::path(
            playground_root() / (kPlaygroundPrefix + std::to_string(::getpid())));
        std::filesystem::create_directories(*own);
        std::atexit([] {
            std::error_code ignored;
            std::filesystem::remove_all(playground(), ignored);
        });
        return own;
    }();
    return *directory;
}

inline std::string path_of(const std::string& name) {
    return (playground() / name).string();
}

}  // namespace penstock::fuzzing

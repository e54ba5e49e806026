// Waiting for a name to appear in a directory.
#pragma once

#include <chrono>
#include <string>

#include "os/descriptor.hpp"

namespace penstock::os {

// Watches one directory from construction on. Without a working watch (none left, or a file system
// that has none) wait() just takes its time. Not thread-safe.
class DirectoryWatch {
public:
    explicit DirectoryWatch(const std::string& directory) noexcept;
    DirectoryWatch(const DirectoryWatch&) = delete;
    DirectoryWatch& operator=(const DirectoryWatch&) = delete;
    ~DirectoryWatch();

    // Returns when a name has been added since the last call, at a signal, after `span` at most.
    void wait(std::chrono::nanoseconds span) noexcept;

private:
    OwnDescriptor own_;
};

}  // namespace penstock::os

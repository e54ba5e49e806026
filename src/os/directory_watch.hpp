// Waiting for a name to appear in a directory.
#pragma once

#include <chrono>
#include <string>

#include "os/descriptor.hpp"

namespace penstock::os {

// Watches one directory from construction on. Without a working watch (none left, or not supported
// by the file system) wait() sleeps for its whole span. Not thread-safe.
class DirectoryWatch {
public:
    explicit DirectoryWatch(const std::string& directory) noexcept;
    DirectoryWatch(const DirectoryWatch&) = delete;
    DirectoryWatch& operator=(const DirectoryWatch&) = delete;
    ~DirectoryWatch();

    // Returns when a name was added since the last call, at a signal, or after `span`.
    void wait(std::chrono::nanoseconds span) noexcept;

private:
    OwnDescriptor own_;
};

}  // namespace penstock::os

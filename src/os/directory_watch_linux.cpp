// Directory watches on Linux: inotify.
#include "os/directory_watch.hpp"

#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

namespace penstock::os {

DirectoryWatch::DirectoryWatch(const std::string& directory) noexcept
    : descriptor_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    if (descriptor_ < 0) return;
    ::inotify_add_watch(descriptor_, directory.c_str(), IN_CREATE | IN_MOVED_TO);
}

DirectoryWatch::~DirectoryWatch() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

void DirectoryWatch::wait(std::chrono::nanoseconds span) noexcept {
    pollfd watch{descriptor_, POLLIN, 0};  // poll ignores a negative descriptor
    const auto milliseconds =
        std::chrono::duration_cast<std::chrono::milliseconds>(span).count() + 1;
    if (::poll(&watch, 1, static_cast<int>(milliseconds)) < 0) return;
    alignas(inotify_event) char events[4096];
    while (::read(descriptor_, events, sizeof events) > 0) {
    }
}

}  // namespace penstock::os

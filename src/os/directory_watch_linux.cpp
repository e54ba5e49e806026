// Directory watches on Linux: inotify.
#include "os/directory_watch.hpp"

#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

namespace penstock::os {

DirectoryWatch::DirectoryWatch(const std::string& directory) noexcept
    : own_(remember_descriptor(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK))) {
    if (!own_.is_open()) return;
    ::inotify_add_watch(own_.number, directory.c_str(), IN_CREATE | IN_MOVED_TO);
}

DirectoryWatch::~DirectoryWatch() {
    close_if_ours(own_);
}

void DirectoryWatch::wait(std::chrono::nanoseconds span) noexcept {
    pollfd watch{own_.is_ours() ? own_.number : -1, POLLIN,
                 0};  // poll ignores a negative descriptor
    const auto milliseconds =
        std::chrono::duration_cast<std::chrono::milliseconds>(span).count() + 1;
    if (::poll(&watch, 1, static_cast<int>(milliseconds)) < 0) return;
    if (!own_.is_ours()) return;
    alignas(inotify_event) char events[4096];
    while (::read(own_.number, events, sizeof events) > 0) {
    }
}

}  // namespace penstock::os

// Directory watches on Linux: inotify.
#include "os/directory_watch.hpp"

#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace penstock::os {
namespace {

// All descriptors without a file share one inode. Of those, only inotify's answer FIONREAD; an
// eventfd or epoll descriptor of the program under this number does not.
bool is_watch(const OwnDescriptor& own) noexcept {
    int readable = 0;
    return own.is_ours() && ::ioctl(own.number, FIONREAD, &readable) == 0;
}

}  // namespace

DirectoryWatch::DirectoryWatch(const std::string& directory) noexcept
    : own_(remember_descriptor(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK))) {
    if (!own_.is_open()) return;
    ::inotify_add_watch(own_.number, directory.c_str(), IN_CREATE | IN_MOVED_TO);
}

DirectoryWatch::~DirectoryWatch() {
    if (is_watch(own_)) close_if_ours(own_);
}

void DirectoryWatch::wait(std::chrono::nanoseconds span) noexcept {
    pollfd watch{is_watch(own_) ? own_.number : -1, POLLIN, 0};  // -1: poll ignores it
    const auto milliseconds =
        std::chrono::duration_cast<std::chrono::milliseconds>(span).count() + 1;
    if (::poll(&watch, 1, static_cast<int>(milliseconds)) < 0) return;
    if (!is_watch(own_)) return;
    alignas(inotify_event) char events[4096];
    while (::read(own_.number, events, sizeof events) > 0) {
    }
}

}  // namespace penstock::os

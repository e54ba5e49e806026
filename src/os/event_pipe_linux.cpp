// Events on Linux: a pipe that never blocks.
#include "os/event_pipe.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <system_error>

namespace penstock::os {

EventPipe::EventPipe() {
    int ends[2] = {-1, -1};
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        throw std::system_error(errno, std::generic_category(), "pipe");
    }
    out_ = remember_descriptor(ends[0]);
    in_ = remember_descriptor(ends[1]);
}

EventPipe::~EventPipe() {
    close_if_ours(in_);
    close_if_ours(out_);
}

// Eight bytes, so that event loops can read an event with eventfd_read().
void EventPipe::raise() noexcept {
    const std::uint64_t one = 1;
    if (!in_.is_ours()) return;
    [[maybe_unused]] const auto written = ::write(in_.number, &one, sizeof one);
}

void EventPipe::lower() noexcept {
    std::array<std::uint64_t, 64> taken{};
    while (out_.is_ours() && ::read(out_.number, taken.data(), sizeof taken) > 0) {
    }
}

}  // namespace penstock::os

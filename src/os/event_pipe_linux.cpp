// Events on Linux: eventfd.
#include "os/event_counter.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>

namespace penstock::os {

EventCounter::EventCounter() : own_(remember_descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))) {
    if (!own_.is_open()) throw std::system_error(errno, std::generic_category(), "eventfd");
}

EventCounter::~EventCounter() {
    close_if_ours(own_);
}

void EventCounter::raise() noexcept {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(own_.number, &one, sizeof one);
}

void EventCounter::lower() noexcept {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto taken = ::read(own_.number, &count, sizeof count);
}

}  // namespace penstock::os

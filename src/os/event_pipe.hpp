// A descriptor that event loops can wait on: readable from a call of raise() until lower().
#pragma once

#include "os/descriptor.hpp"

namespace penstock::os {

// A pipe, and not an eventfd: eventfds share one inode, so an eventfd of a program that closed
// every descriptor could not be told from this one. A file of the program under one of these
// numbers is never written to, read or closed.
//
// Any thread. A forked child has descriptors of the same pipe, and must not use them.
class EventPipe {
public:
    EventPipe();  // throws std::system_error
    EventPipe(const EventPipe&) = delete;
    EventPipe& operator=(const EventPipe&) = delete;
    ~EventPipe();

    [[nodiscard]] int descriptor() const noexcept { return out_.number; }
    // May be called any number of times: if the pipe is full, it is readable already.
    void raise() noexcept;
    // Clears all earlier raise() calls, also if a reader of descriptor() has drained the pipe.
    void lower() noexcept;

private:
    OwnDescriptor in_;
    OwnDescriptor out_;
};

}  // namespace penstock::os

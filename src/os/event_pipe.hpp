// A descriptor that event loops can wait on: readable from a call of raise() until lower().
#pragma once

#include "os/descriptor.hpp"

namespace penstock::os {

// A pipe, and no eventfd: those share one inode, so that a program which closed every descriptor,
// and has an eventfd of its own under the number, could not be told from us. What a program has
// under one of our numbers is never written to, read or closed.
//
// Any thread. A forked child has descriptors of the same pipe: leave it alone there.
class EventPipe {
public:
    EventPipe();  // throws std::system_error
    EventPipe(const EventPipe&) = delete;
    EventPipe& operator=(const EventPipe&) = delete;
    ~EventPipe();

    [[nodiscard]] int descriptor() const noexcept { return out_.number; }
    // As often as it likes: what has no room in the pipe is not needed to make it readable.
    void raise() noexcept;
    // Whatever was raised until now, also what a reader of descriptor() took meanwhile.
    void lower() noexcept;

private:
    OwnDescriptor in_;
    OwnDescriptor out_;
};

}  // namespace penstock::os

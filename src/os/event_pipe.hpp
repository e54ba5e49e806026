// A descriptor that event loops can wait on: readable from a call of raise() until lower().
#pragma once

#include "os/descriptor.hpp"

namespace penstock::os {

// Any thread. A forked child has a descriptor of the same event: leave it alone there.
class EventCounter {
public:
    EventCounter();  // throws std::system_error
    EventCounter(const EventCounter&) = delete;
    EventCounter& operator=(const EventCounter&) = delete;
    ~EventCounter();

    [[nodiscard]] int descriptor() const noexcept { return own_.number; }
    void raise() noexcept;
    void lower() noexcept;

private:
    OwnDescriptor own_;
};

}  // namespace penstock::os

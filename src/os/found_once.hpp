// Values that a process finds out once, or has once, safe beside fork(). A function's static is
// not: if one thread forks while another initializes it, the child waits for ever for a thread that
// it does not have.
#pragma once

#include <atomic>
#include <cstdint>

namespace penstock::os {

// A number other than 0, found out by the thread that first needs it. Several threads may find it
// out at the same time: the number of one of them stays. Any thread may call get().
class FoundOnce {
public:
    template <class Find>
    std::uint64_t get(Find find) noexcept {
        std::uint64_t known = number_.load(std::memory_order_relaxed);
        if (known != 0) return known;
        const std::uint64_t found = find();
        return number_.compare_exchange_strong(known, found, std::memory_order_relaxed) ? found
                                                                                        : known;
    }

private:
    std::atomic<std::uint64_t> number_{0};
};

// A value that exists from the start of the program and is never destroyed: destructors of statics
// may still use it. Declare it constinit.
template <class Value>
union Immortal {
    constexpr Immortal() : value() {}
    constexpr ~Immortal() {}
    Immortal(const Immortal&) = delete;
    Immortal& operator=(const Immortal&) = delete;

    Value value;
};

}  // namespace penstock::os

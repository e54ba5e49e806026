// A control block without a segment, for tests of single moves of a state machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "segment/layout.hpp"

namespace penstock::test {

// Zeroed, and aligned as in a segment.
class ControlBlock {
public:
    explicit ControlBlock(std::uint64_t bytes) {
        const std::uint64_t whole = layout::round_up(bytes, layout::kPage);
        memory_.reset(static_cast<std::byte*>(std::aligned_alloc(layout::kPage, whole)));
        if (memory_ == nullptr) throw std::bad_alloc();
        std::memset(memory_.get(), 0, whole);
    }
    [[nodiscard]] std::byte* data() const noexcept { return memory_.get(); }

private:
    struct Free {
        void operator()(std::byte* memory) const noexcept { std::free(memory); }
    };
    std::unique_ptr<std::byte, Free> memory_;
};

}  // namespace penstock::test

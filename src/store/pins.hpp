// Pins of this process on each object: the first sets the holder bit in shared memory, the last one
// clears it.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>

#include "os/crash_point.hpp"
#include "segment/words/atomics.hpp"
#include "store/control.hpp"

namespace penstock::detail {

// Any thread. While the first pin sets the bit, and the last one clears it, other threads of the
// process spin for those few instructions.
class Pins {
public:
    // Four bytes for each entry; only pages with pins are touched.
    Pins(const StoreView& view, unsigned self)
        : view_(view), self_(self),
          counts_(static_cast<std::atomic<std::uint32_t>*>(
              std::calloc(view.shape().entries(), sizeof(std::atomic<std::uint32_t>)))) {
        if (counts_ == nullptr) throw std::bad_alloc();
    }

    // Ordered before the caller's next look at the entry's word.
    void acquire(std::uint32_t entry) noexcept {
        std::atomic<std::uint32_t>& count = counts_.get()[entry];
        for (std::uint32_t seen = load_relaxed(count);;) {
            if (seen == kBusy) {
                std::this_thread::yield();
                seen = load_relaxed(count);
            } else if (seen > 0) {
                if (cas_acquire(count, seen, seen + 1)) return;
            } else if (cas_acquire(count, seen, kBusy)) {
                // pairs with: is_held() after the word has moved away from Resident
                fetch_or_seq_cst(view_.holders(entry, self_), bit());
                PENSTOCK_CRASH_POINT("store.pin.held");
                store_release(count, 1);
                return;
            }
        }
    }

    // True: it was the last pin. Ordered after all reads of the object, and before the caller's
    // next look at the entry's word.
    bool release(std::uint32_t entry) noexcept {
        std::atomic<std::uint32_t>& count = counts_.get()[entry];
        for (std::uint32_t seen = load_relaxed(count);;) {
            if (seen == kBusy) {
                std::this_thread::yield();
                seen = load_relaxed(count);
            } else if (seen > 1) {
                if (cas_acq_rel(count, seen, seen - 1)) {
                    return false;
                }
            } else if (cas_acq_rel(count, seen, kBusy)) {
                fetch_and_seq_cst(view_.holders(entry, self_), ~bit());
                PENSTOCK_CRASH_POINT("store.pin.dropped");
                store_release(count, 0);
                return true;
            }
        }
    }

private:
    static constexpr std::uint32_t kBusy = ~std::uint32_t{0};
    struct Free {
        void operator()(std::atomic<std::uint32_t>* counts) const noexcept { std::free(counts); }
    };

    [[nodiscard]] std::uint64_t bit() const noexcept { return std::uint64_t{1} << (self_ % 64); }

    StoreView view_;
    unsigned self_;
    std::unique_ptr<std::atomic<std::uint32_t>, Free> counts_;
};

}  // namespace penstock::detail

// What waiting costs: each participant counts it in its slot, and statistics add it up.
#pragma once

#include <atomic>
#include <cstdint>

#include "segment/layout.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {

// A sum of layout::WaitCounts; see there. Damaged words make a wrong sum, and no more.
struct WaitCosts {
    std::uint64_t spun = 0;  // ns
    std::uint64_t spins_won = 0;
    std::uint64_t slept = 0;

    WaitCosts& operator+=(const WaitCosts& other) noexcept {
        spun += other.spun;
        spins_won += other.spins_won;
        slept += other.slept;
        return *this;
    }
    // Those since `earlier`.
    [[nodiscard]] WaitCosts since(const WaitCosts& earlier) const noexcept {
        return {spun - earlier.spun, spins_won - earlier.spins_won, slept - earlier.slept};
    }
};

inline WaitCosts read_costs(const layout::WaitCounts& counts) noexcept {
    return {load_relaxed(counts.spun), load_relaxed(counts.spins_won), load_relaxed(counts.slept)};
}

// Counts the waits of one kind of one participant. A value; copies count in the same words.
class WaitMeter {
public:
    // Whether several threads wait at once. Then counting takes locked instructions.
    enum class Waiters : std::uint8_t { One, Several };

    WaitMeter() noexcept = default;  // counts nothing
    WaitMeter(layout::WaitCounts& counts, Waiters waiters) noexcept
        : counts_(&counts), waiters_(waiters) {}

    void add_spun(std::int64_t span) const noexcept {
        add(&layout::WaitCounts::spun, static_cast<std::uint64_t>(span));
    }
    void add_win() const noexcept { add(&layout::WaitCounts::spins_won, 1); }
    void add_sleep() const noexcept { add(&layout::WaitCounts::slept, 1); }

private:
    void add(std::atomic<std::uint64_t> layout::WaitCounts::* word,
             std::uint64_t amount) const noexcept {
        if (counts_ == nullptr) return;
        if (waiters_ == Waiters::One) {
            add_as_sole_writer(counts_->*word, amount);
        } else {
            fetch_add_relaxed(counts_->*word, amount);
        }
    }

    layout::WaitCounts* counts_ = nullptr;
    Waiters waiters_ = Waiters::One;
};

}  // namespace penstock::detail

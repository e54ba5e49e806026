// Resident entries in the order of their commits, and the next victim: SIEVE, FIFO or LRU.
//
// A list whose links change together with the word of the added or removed entry: it has exactly
// the resident and evicting entries. Any thread, any process.
#pragma once

#include <cstdint>

#include "store/control.hpp"

namespace penstock::detail {

class StoreOrder {
public:
    StoreOrder() noexcept = default;
    StoreOrder(const StoreView& view, MultiWord& words) noexcept : view_(view), words_(&words) {}

    enum class Outcome : std::uint8_t {
        Done,
        Changed,  // the entry's word has
        Damaged,  // the links contradict themselves, and no change is under way
    };

    // Moves an entry of the caller's, which held `seen`, to `payload`, and into the order as the
    // newest.
    Outcome append(std::uint32_t number, std::uint64_t seen, std::uint64_t payload) noexcept;
    // Moves an entry in the order, which held `seen`, to `payload`, and out of the order. Changed:
    // the word changed meanwhile, even if back to the same payload; the caller must look again.
    Outcome remove(std::uint32_t number, std::uint64_t seen, std::uint64_t payload) noexcept;
    // Makes a resident entry the newest. No effect if it is gone.
    void renew(std::uint32_t number) noexcept;

    // Records a read: the hand will pass the entry, and once more for each unit of its weight.
    void visit(std::uint32_t number) noexcept;
    // The next entry to evict, skipping pinned and retained ones; kNone: none. A hint: the caller
    // checks.
    std::uint32_t victim() noexcept;

    static constexpr std::uint32_t kNone = ~std::uint32_t{0};

private:
    // Adds the links to a plan. False: they do not fit together, and the plan says what was seen.
    using Planner = bool (StoreOrder::*)(WordPlan& plan, std::uint32_t number) const noexcept;

    [[nodiscard]] std::uint64_t link(const Word& word) const noexcept {
        return payload_of(words_->read(word));
    }
    [[nodiscard]] bool is_entry(std::uint64_t link) const noexcept {
        return link > 0 && link <= view_.shape().entries();
    }
    [[nodiscard]] layout::StoreEntry& entry(std::uint64_t link) const noexcept {
        return view_.entry(static_cast<std::uint32_t>(link - 1));
    }
    // append() and remove(). `bits`: those of the word that may not change meanwhile.
    Outcome move(std::uint32_t number, std::uint64_t seen, std::uint64_t payload,
                 Planner plan_links, std::uint64_t bits) noexcept;
    // False: the links do not fit together; the plan records what was seen.
    bool plan_removal(WordPlan& plan, std::uint32_t number) const noexcept;
    bool plan_append(WordPlan& plan, std::uint32_t number) const noexcept;
    [[nodiscard]] bool may_go(std::uint32_t number) const noexcept;
    bool passes(std::uint32_t number) noexcept;
    [[nodiscard]] bool is_sieve() const noexcept {
        return view_.shape().eviction == Eviction::Sieve;
    }
    struct Round {
        std::uint32_t victim = kNone;
        bool is_fruitless = false;  // whole, and a further round would find no more
        bool has_passed = false;    // passed an entry, and took a visit away
        bool is_lost = false;       // whole, and the last link leads nowhere, or in a circle
        // Last entry of the round, and the word of its link.
        std::uint64_t last = 0;
        std::uint64_t end = MultiWord::kBroken;
    };
    Round go_round(std::uint64_t at) noexcept;

    StoreView view_;
    MultiWord* words_ = nullptr;
};

}  // namespace penstock::detail

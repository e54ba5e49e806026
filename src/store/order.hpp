// Residents in the order of their commits, and the next to evict: SIEVE, FIFO or LRU.
//
// A list whose links change together with the word of the entry that comes or goes: it has all
// resident entries and no others. Any thread, any process.
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
    // Moves an entry that is in the order, and held `seen`, to `payload`, and out of it. Changed,
    // be it away and back: what the caller knew of it has to be looked at again.
    Outcome remove(std::uint32_t number, std::uint64_t seen, std::uint64_t payload) noexcept;
    // Makes a resident the newest again. Nothing, if it is not there any more.
    void renew(std::uint32_t number) noexcept;

    // It was read: the hand passes it by, once more for each of its weight.
    void visit(std::uint32_t number) noexcept;
    // The next to evict, skipping what is pinned or kept; kNone: none. A hint: the caller makes
    // sure.
    std::uint32_t victim() noexcept;

    static constexpr std::uint32_t kNone = ~std::uint32_t{0};

private:
    [[nodiscard]] std::uint64_t link(const Word& word) const noexcept {
        return payload_of(words_->read(word));
    }
    [[nodiscard]] bool is_entry(std::uint64_t link) const noexcept {
        return link > 0 && link <= view_.shape().entries();
    }
    [[nodiscard]] layout::StoreEntry& entry(std::uint64_t link) const noexcept {
        return view_.entry(static_cast<std::uint32_t>(link - 1));
    }
    // False: the links do not fit together, and the plan says what was seen.
    bool plan_removal(WordPlan& plan, std::uint32_t number) const noexcept;
    bool plan_append(WordPlan& plan, std::uint32_t number) const noexcept;
    [[nodiscard]] bool may_go(std::uint32_t number) const noexcept;
    bool passes(std::uint32_t number) noexcept;
    [[nodiscard]] bool is_sieve() const noexcept {
        return view_.shape().eviction == Eviction::Sieve;
    }
    struct Round {
        std::uint32_t victim = kNone;
        bool is_fruitless = false;  // whole, and another one would find no more
        bool has_passed = false;    // an entry by, and taken a visit away
        bool is_lost = false;       // whole, and the last link leads nowhere, or in a circle
        // Where it ended, and the word that was the last link then.
        std::uint64_t last = 0;
        std::uint64_t end = MultiWord::kBroken;
    };
    Round go_round(std::uint64_t at) noexcept;

    StoreView view_;
    MultiWord* words_ = nullptr;
};

}  // namespace penstock::detail

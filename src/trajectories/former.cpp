// Subset sums as bit sets, one set for each share: bit n says that n sequences can be made of the
// candidates left in it. Shares interact only through the total, so one table for each share and
// one convolution tell whether a choice made so far can still be completed; with that the oldest
// candidates are taken greedily.
#include "trajectories/former.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

namespace penstock::detail {
namespace {

// Sums from 0 to a limit.
class Sums {
public:
    explicit Sums(std::uint64_t limit) : limit_(limit), words_(limit / 64 + 1) {}

    [[nodiscard]] bool has(std::uint64_t sum) const noexcept {
        return (words_[sum / 64] >> (sum % 64) & 1U) != 0;
    }
    void add(std::uint64_t sum) noexcept { words_[sum / 64] |= std::uint64_t{1} << (sum % 64); }

    // Adds every sum of `other`, increased by `by`, up to the limit.
    void add_shifted(const Sums& other, std::uint64_t by) noexcept {
        if (by > limit_) return;
        const std::size_t skip = by / 64;
        const unsigned shift = by % 64;
        for (std::size_t to = words_.size(); to-- > skip;) {
            std::uint64_t word = other.words_[to - skip] << shift;
            if (shift != 0 && to > skip) word |= other.words_[to - skip - 1] >> (64 - shift);
            words_[to] |= word;
        }
        const unsigned last = limit_ % 64;
        if (last != 63) words_.back() &= (std::uint64_t{1} << (last + 1)) - 1;
    }

    template <typename Use>
    void for_each(Use&& use) const {
        for (std::size_t at = 0; at < words_.size(); ++at) {
            for (std::uint64_t word = words_[at]; word != 0; word &= word - 1) {
                use(at * 64 + static_cast<unsigned>(std::countr_zero(word)));
            }
        }
    }

private:
    std::uint64_t limit_;
    std::vector<std::uint64_t> words_;
};

class Former {
public:
    Former(std::span<const Candidate> candidates, std::uint64_t sequences,
           std::span<const std::uint64_t> minima)
        : candidates_(candidates), sequences_(sequences), minima_(minima), chosen_(minima.size()),
          next_(minima.size(), candidates.size()), nothing_(sequences) {
        nothing_.add(0);
        reachable_.assign(candidates.size(), nothing_);
        following_.resize(candidates.size());
        for (std::size_t at = candidates.size(); at-- > 0;) {
            const Candidate& candidate = candidates[at];
            following_[at] = next_[candidate.share];
            reachable_[at] = left_of(following_[at]);
            reachable_[at].add_shifted(left_of(following_[at]), candidate.sequences);
            next_[candidate.share] = at;
        }
    }

    bool run(std::vector<std::uint32_t>& chosen) {
        if (!is_completable()) return false;
        std::uint64_t sum = 0;
        for (std::size_t at = 0; sum < sequences_; ++at) {
            const Candidate& candidate = candidates_[at];
            next_[candidate.share] = following_[at];
            if (candidate.sequences > sequences_ - sum) continue;
            chosen_[candidate.share] += candidate.sequences;
            if (is_completable()) {
                sum += candidate.sequences;
                chosen.push_back(static_cast<std::uint32_t>(at));
            } else {
                chosen_[candidate.share] -= candidate.sequences;
            }
        }
        return true;
    }

private:
    [[nodiscard]] const Sums& left_of(std::size_t at) const noexcept {
        return at == candidates_.size() ? nothing_ : reachable_[at];
    }

    // Whether the choice so far, with some of the candidates left, makes a batch.
    [[nodiscard]] bool is_completable() const {
        Sums whole(nothing_);
        for (std::size_t share = 0; share < minima_.size(); ++share) {
            Sums grown(sequences_);
            left_of(next_[share]).for_each([&](std::uint64_t more) {
                const std::uint64_t of_share = chosen_[share] + more;
                if (of_share >= minima_[share]) grown.add_shifted(whole, of_share);
            });
            whole = std::move(grown);
        }
        return whole.has(sequences_);
    }

    std::span<const Candidate> candidates_;
    std::uint64_t sequences_;
    std::span<const std::uint64_t> minima_;
    std::vector<std::uint64_t> chosen_;  // sequences, of each share
    std::vector<std::size_t> next_;      // of each share, the first undecided candidate
    Sums nothing_;
    std::vector<Sums> reachable_;         // with this candidate and later ones of its share
    std::vector<std::size_t> following_;  // of the same share
};

// The common case: the oldest candidates fill the batch in order.
bool take_oldest(std::span<const Candidate> candidates, std::uint64_t sequences,
                 std::span<const std::uint64_t> minima, std::vector<std::uint32_t>& chosen) {
    std::vector<std::uint64_t> of_share(minima.size());
    std::uint64_t sum = 0;
    std::size_t count = 0;
    for (; count < candidates.size() && sum < sequences; ++count) {
        sum += candidates[count].sequences;
        of_share[candidates[count].share] += candidates[count].sequences;
    }
    if (sum != sequences) return false;
    if (!std::ranges::equal(of_share, minima, std::ranges::greater_equal{})) return false;
    chosen.resize(count);
    std::iota(chosen.begin(), chosen.end(), 0U);
    return true;
}

}  // namespace

bool form_batch(std::span<const Candidate> candidates, std::uint64_t sequences,
                std::span<const std::uint64_t> minima, std::vector<std::uint32_t>& chosen) {
    chosen.clear();
    return take_oldest(candidates, sequences, minima, chosen) ||
           Former(candidates, sequences, minima).run(chosen);
}

}  // namespace penstock::detail

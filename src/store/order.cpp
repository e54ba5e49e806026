#include "store/order.hpp"

#include "os/crash_point.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

// Attempts before the links count as damaged: each failed one means that another participant made
// progress.
constexpr unsigned kMaxAttempts = 10'000;

using layout::EntryState;
using layout::StoreEntry;

// Plans `payload` for a word, whatever it holds now.
void set(WordPlan& plan, const MultiWord& words, Word& word, std::uint64_t payload) noexcept {
    plan.set(word, words.read(word), payload);
}

}  // namespace

// The caller owns the entry's links: the entry is in no order.
bool StoreOrder::plan_append(WordPlan& plan, std::uint32_t number) const noexcept {
    layout::StoreState& state = view_.state();
    StoreEntry& self = view_.entry(number);
    const std::uint64_t seen = words_->read(state.newest);
    const std::uint64_t next = payload_of(seen);
    plan.set(state.newest, seen, number + 1);
    if (is_entry(next)) {
        const std::uint64_t newer = words_->read(entry(next).newer);
        plan.set(entry(next).newer, newer, number + 1);
        if (payload_of(newer) != 0) return false;
    } else {
        const std::uint64_t oldest = words_->read(state.oldest);
        plan.set(state.oldest, oldest, number + 1);
        if (payload_of(oldest) != 0) return false;
    }
    set(plan, *words_, self.newer, 0);
    set(plan, *words_, self.older, next);
    return true;
}

// The entry's own links change too, so that a concurrent removal of a neighbour conflicts here.
bool StoreOrder::plan_removal(WordPlan& plan, std::uint32_t number) const noexcept {
    layout::StoreState& state = view_.state();
    StoreEntry& self = view_.entry(number);
    const std::uint64_t newer = words_->read(self.newer);
    const std::uint64_t older = words_->read(self.older);
    const std::uint64_t next = payload_of(newer);
    const std::uint64_t last = payload_of(older);
    Word& from_newer = is_entry(next) ? entry(next).older : state.newest;
    Word& from_older = is_entry(last) ? entry(last).newer : state.oldest;
    const std::uint64_t seen_newer = words_->read(from_newer);
    const std::uint64_t seen_older = words_->read(from_older);
    plan.set(from_newer, seen_newer, last);
    plan.set(from_older, seen_older, next);
    plan.set(self.newer, newer, 0);
    plan.set(self.older, older, 0);
    return payload_of(seen_newer) == number + 1 && payload_of(seen_older) == number + 1;
}

StoreOrder::Outcome StoreOrder::move(std::uint32_t number, std::uint64_t seen,
                                     std::uint64_t payload, Planner plan_links,
                                     std::uint64_t bits) noexcept {
    Word& word = view_.entry(number).word;
    WordPlan last;
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        WordPlan plan;
        plan.set(word, seen, payload);
        const bool fits = (this->*plan_links)(plan, number);
        if (plan.is_broken() || (!fits && plan == last)) return Outcome::Damaged;
        if (fits && words_->change(plan)) return Outcome::Done;
        const std::uint64_t now = words_->read(word);
        if (((seen ^ now) & bits) != 0) return Outcome::Changed;
        seen = now;
        last = plan;
    }
    return Outcome::Damaged;
}

StoreOrder::Outcome StoreOrder::append(std::uint32_t number, std::uint64_t seen,
                                       std::uint64_t payload) noexcept {
    return move(number, seen, payload, &StoreOrder::plan_append, layout::kPayloadMask);
}

StoreOrder::Outcome StoreOrder::remove(std::uint32_t number, std::uint64_t seen,
                                       std::uint64_t payload) noexcept {
    return move(number, seen, payload, &StoreOrder::plan_removal, ~std::uint64_t{0});
}

void StoreOrder::renew(std::uint32_t number) noexcept {
    constexpr unsigned kTries = 4;  // only the rank suffers: few attempts suffice
    StoreEntry& self = view_.entry(number);
    for (unsigned attempt = 0; attempt < kTries; ++attempt) {
        const std::uint64_t seen = words_->read(self.word);
        if (layout::decode_entry(seen).state != EntryState::Resident) return;
        const std::uint64_t newer = words_->read(self.newer);
        const std::uint64_t next = payload_of(newer);
        if (!is_entry(next)) return;  // it is the newest already
        PENSTOCK_CRASH_POINT("store.renew.looked");
        WordPlan plan;
        plan.set(self.word, seen, payload_of(seen));
        if (!plan_removal(plan, number)) continue;
        // Appends the entry as the newest; words that the removal planned get the new payload.
        layout::StoreState& state = view_.state();
        const std::uint64_t first = words_->read(state.newest);
        // It is the newest by now: the newer entries are gone.
        if (payload_of(first) == number + 1) return;
        if (!is_entry(payload_of(first))) continue;
        Word& above = entry(payload_of(first)).newer;
        const std::uint64_t seen_above = words_->read(above);
        if (payload_of(seen_above) != 0) continue;
        plan.set(state.newest, first, number + 1);
        plan.set(above, seen_above, number + 1);
        plan.set(self.newer, newer, 0);
        plan.set(self.older, words_->read(self.older), payload_of(first));
        if (words_->change(plan)) return;
    }
}

void StoreOrder::visit(std::uint32_t number) noexcept {
    std::atomic<std::uint64_t>& word = view_.entry(number).favour;
    std::uint64_t seen = load_relaxed(word);
    for (;;) {
        Favour favour = decode_favour(seen);
        if (favour.visits > favour.weight) return;  // the common case: nothing is written
        favour.visits = static_cast<std::uint8_t>(favour.weight + 1);
        if (cas_relaxed(word, seen, encode_favour(favour))) return;
    }
}

bool StoreOrder::may_go(std::uint32_t number) const noexcept {
    const StoreEntry& self = view_.entry(number);
    return layout::decode_entry(words_->read(self.word)).state == EntryState::Resident &&
           decode_favour(load_relaxed(self.favour)).retained == 0 && !is_held(view_, number);
}

// The hand is at this entry. True: it passes, and has taken one visit away.
bool StoreOrder::passes(std::uint32_t number) noexcept {
    std::atomic<std::uint64_t>& word = view_.entry(number).favour;
    std::uint64_t seen = load_relaxed(word);
    for (;;) {
        Favour favour = decode_favour(seen);
        if (favour.visits == 0) return false;
        --favour.visits;
        if (cas_relaxed(word, seen, encode_favour(favour))) return true;
    }
}

// Searches from the hand (SIEVE) or from the oldest towards the newest, and again until a whole
// round has found no victim and taken no visit away. A round that began in the middle, or whose
// current entry was moved by others, is not whole and proves nothing. Two rounds in a row that end
// at the same link to nowhere mean damage. The hand is a hint: if its object is gone, or its entry
// was reused, the round begins at the oldest, or goes on from there.
std::uint32_t StoreOrder::victim() noexcept {
    constexpr unsigned kMaxRounds = 10'000;  // all but the last few mean that others evict
    std::atomic<std::uint64_t>& hand = view_.state().hand;
    std::uint64_t at = is_sieve() ? load_relaxed(hand) : 0;
    Round before;
    for (unsigned rounds = 0; rounds < kMaxRounds; ++rounds) {
        const Round round = go_round(at);
        if (round.victim != kNone || round.is_fruitless) return round.victim;
        const bool is_stuck = before.is_lost && round.is_lost && !round.has_passed &&
                              round.last == before.last && round.end == before.end;
        if (is_stuck) return kNone;
        before = round;
        at = 0;
    }
    return kNone;
}

StoreOrder::Round StoreOrder::go_round(std::uint64_t at) noexcept {
    const bool is_whole = !is_entry(at);
    const std::uint64_t most = view_.shape().entries();  // damaged links may form a circle
    Round round;
    const Word* from = &view_.state().oldest;
    if (is_whole) {
        round.end = words_->read(*from);
        at = payload_of(round.end);
    }
    for (std::uint64_t steps = 0; is_entry(at) && steps < most; ++steps) {
        const auto number = static_cast<std::uint32_t>(at - 1);
        const Word& newer = view_.entry(number).newer;
        const std::uint64_t next = words_->read(newer);
        // Unless the link to this entry is unchanged, its own link may lead far beyond the next
        // entry: it may have become the newest meanwhile.
        if (is_whole && words_->read(*from) != round.end) return {};
        from = &newer;
        round.last = at;
        round.end = next;
        at = payload_of(next);
        if (!may_go(number)) continue;
        if (is_sieve() && passes(number)) {
            round.has_passed = true;
            continue;
        }
        if (is_sieve()) store_relaxed(view_.state().hand, at);
        round.victim = number;
        return round;
    }
    round.is_lost = is_whole && at != 0;
    round.is_fruitless = is_whole && at == 0 && !round.has_passed;
    return round;
}

}  // namespace penstock::detail

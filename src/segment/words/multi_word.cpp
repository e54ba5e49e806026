// The steps of a change. Each is one compare-and-swap that the owner or any helper may make.
#include "segment/words/multi_word.hpp"

#include <algorithm>
#include <utility>

#include "os/crash_point.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

enum class State : std::uint64_t { Preparing = 0, Undecided = 1, Succeeded = 2, Failed = 3 };

// WordOperation::status.
constexpr unsigned kSizeShift = 2;
constexpr std::uint64_t kSizeMask = 0xF;
constexpr unsigned kSequenceShift = 6;
// A reference; from the lowest bit: sequence 53, participant 10, mark 1. It is as wide as the
// sequence of a status, and neither ever wraps.
constexpr unsigned kParticipantShift = 53;
constexpr std::uint64_t kSequenceMask = (std::uint64_t{1} << kParticipantShift) - 1;

constexpr std::uint64_t status_of(std::uint64_t sequence, unsigned size, State state) noexcept {
    return sequence << kSequenceShift | std::uint64_t{size} << kSizeShift |
           static_cast<std::uint64_t>(state);
}
constexpr State state_in(std::uint64_t status) noexcept {
    return static_cast<State>(status & 3U);
}
constexpr unsigned size_in(std::uint64_t status) noexcept {
    return static_cast<unsigned>(status >> kSizeShift & kSizeMask);
}
constexpr std::uint64_t sequence_in(std::uint64_t status) noexcept {
    return status >> kSequenceShift;
}
constexpr bool is_reference(std::uint64_t value) noexcept {
    return (value & layout::kWordMark) != 0;
}
constexpr unsigned participant_in(std::uint64_t reference) noexcept {
    return static_cast<unsigned>(reference >> kParticipantShift & 0x3FFU);
}
constexpr std::uint64_t reference_to(unsigned participant, std::uint64_t sequence) noexcept {
    return layout::kWordMark | std::uint64_t{participant} << kParticipantShift |
           (sequence & kSequenceMask);
}
constexpr bool is_about(std::uint64_t status, std::uint64_t reference) noexcept {
    return sequence_in(status) == (reference & kSequenceMask);
}

// Looks at a reference without a change behind it, which only damaged memory has, before giving up.
constexpr unsigned kMaxFutile = 1000;
// Changes of other participants that one read of a word finishes at most.
constexpr unsigned kMaxHelped = 100'000;
// Nesting depth of helping. Each nested change is at a later word, unless the words are damaged; a
// change that would exceed the depth fails, and is planned again. It would have failed anyway: the
// word where it stops holds another change's reference, and gets a new value when that change ends.
// So no late helper can install a reference after the decision (models/words.pml, BOUND).
constexpr unsigned kDeepest = 64;

}  // namespace

void WordPlan::set(Word& word, std::uint64_t seen, std::uint64_t payload) noexcept {
    for (unsigned at = 0; at < size_; ++at) {
        if (steps_[at].word != &word) continue;
        steps_[at].payload = payload;
        return;
    }
    if (size_ == steps_.size() || seen == MultiWord::kBroken) {
        is_broken_ = true;
        return;
    }
    steps_[size_++] = {&word, seen, payload};
}

void MultiWord::attach(std::byte* control, std::uint64_t words, layout::WordOperation* operations,
                       unsigned participants, unsigned self) noexcept {
    words_ = reinterpret_cast<Word*>(control);
    count_ = words;
    operations_ = operations;
    participants_ = participants;
    self_ = self;
}

unsigned MultiWord::participants() const noexcept {
    if (reach_ == nullptr) return participants_;
    return static_cast<unsigned>(std::min<std::uint64_t>(participants_, load_seq_cst(*reach_)));
}

std::uint64_t MultiWord::read_helping(const Word& word) const noexcept {
    unsigned helped = 0;
    for (unsigned futile = 0; futile < kMaxFutile && helped < kMaxHelped; ++helped) {
        const std::uint64_t seen = load_seq_cst(word);
        if (!is_reference(seen)) return seen;
        help(seen, 0);
        if (load_acquire(word) == seen) ++futile;
    }
    return kBroken;
}

std::uint64_t MultiWord::peek(const Word& word) const noexcept {
    const std::uint64_t seen = load_acquire(word);
    if (!is_reference(seen)) return seen;
    Operation operation;
    if (!read_operation(seen, operation)) return kBroken;
    const std::uint64_t status = load_acquire(operations_[participant_in(seen)].status);
    const bool succeeded = is_about(status, seen) && state_in(status) == State::Succeeded;
    for (unsigned at = 0; at < operation.size; ++at) {
        if (operation.steps[at].word != &word) continue;
        return succeeded ? operation.steps[at].desired : operation.steps[at].expected;
    }
    return kBroken;
}

bool MultiWord::change(Word& word, std::uint64_t seen, std::uint64_t payload) noexcept {
    // pairs with: the acquire in read(); the ownership that the word gives or takes carries what
    // was written under it.
    return cas_seq_cst(word, seen, successor(seen, payload));
}

// One order for all participants: of two changes that meet, one is ahead, so helping never goes in
// a circle.
void MultiWord::put_in_order(Operation& operation) noexcept {
    for (unsigned end = 1; end < operation.size; ++end) {
        for (unsigned at = end; at > 0; --at) {
            if (operation.steps[at - 1].word < operation.steps[at].word) break;
            std::swap(operation.steps[at - 1], operation.steps[at]);
        }
    }
}

bool MultiWord::change(const WordPlan& plan) noexcept {
    if (plan.is_broken_) return false;
    Operation operation;
    operation.size = plan.size_;
    for (unsigned at = 0; at < plan.size_; ++at) {
        const WordPlan::Step& step = plan.steps_[at];
        operation.steps[at] = {step.word, step.seen, successor(step.seen, step.payload)};
    }
    put_in_order(operation);
    const std::lock_guard lock(mine_);
    return run(describe(operation), operation, 0);
}

bool MultiWord::renew(WordPlan& plan) const noexcept {
    if (plan.is_broken_) return false;
    for (unsigned at = 0; at < plan.size_; ++at) {
        WordPlan::Step& step = plan.steps_[at];
        const std::uint64_t now = read(*step.word);
        if (now == kBroken || payload_of(now) != payload_of(step.seen)) return false;
        step.seen = now;
    }
    return true;
}

// pairs with: note_of(), by way of the change that follows: a thread that sees it sees the note.
MultiWord::Note::Note(MultiWord& words, std::uint64_t what) noexcept
    : note_(words.operations_[words.self_].note), turn_(words.noted_) {
    store_seq_cst(note_, what);
}

// pairs with: note_of(): a thread that sees no note sees what was done after the change.
MultiWord::Note::~Note() {
    store_release(note_, 0);
}

std::uint64_t MultiWord::note_of(unsigned participant) const noexcept {
    return load_acquire(operations_[participant].note);
}

void MultiWord::finish(unsigned dead) const noexcept {
    const std::uint64_t status = load_acquire(operations_[dead].status);
    if (state_in(status) == State::Preparing) return;  // no word refers to the change
    help(reference_to(dead, sequence_in(status)), 0);
}

// Publishes the description. No word refers to this participant's previous change any more.
std::uint64_t MultiWord::describe(const Operation& operation) noexcept {
    layout::WordOperation& place = operations_[self_];
    // Masked to the width of a reference; only a damaged status is wider, and then no change
    // succeeds.
    const std::uint64_t sequence = (sequence_in(load_relaxed(place.status)) + 1) & kSequenceMask;
    // pairs with: the acquire loads in read_operation(): a thread that still sees the previous
    // status sees the previous words.
    store_release(place.status, status_of(sequence, operation.size, State::Preparing));
    // pairs with: the acquire fence in read_operation(): a thread that sees a new word sees the new
    // status.
    std::atomic_thread_fence(std::memory_order_release);
    for (unsigned at = 0; at < operation.size; ++at) {
        const auto& step = operation.steps[at];
        store_relaxed(place.place[at], static_cast<std::uint64_t>(step.word - words_));
        store_relaxed(place.expected[at], step.expected);
        store_relaxed(place.desired[at], step.desired);
    }
    PENSTOCK_CRASH_POINT("words.change.described");
    // pairs with: the acquire load in read_operation(), by way of the reference in a word
    store_release(place.status, status_of(sequence, operation.size, State::Undecided));
    return reference_to(self_, sequence);
}

// False: the change is over, or the reference is damaged.
bool MultiWord::read_operation(std::uint64_t reference, Operation& operation) const noexcept {
    const unsigned participant = participant_in(reference);
    if (participant >= participants_) return false;
    const layout::WordOperation& place = operations_[participant];
    const std::uint64_t status = load_acquire(place.status);
    if (!is_about(status, reference) || state_in(status) == State::Preparing) return false;
    operation.size = size_in(status);
    if (operation.size > layout::kMaxWords) return false;
    for (unsigned at = 0; at < operation.size; ++at) {
        const std::uint64_t number = load_relaxed(place.place[at]);
        if (number >= count_) return false;
        operation.steps[at] = {words_ + number, load_relaxed(place.expected[at]),
                               load_relaxed(place.desired[at])};
    }
    // pairs with: the release fence in describe()
    std::atomic_thread_fence(std::memory_order_acquire);
    return is_about(load_acquire(place.status), reference);
}

// Afterwards no word holds the reference, unless memory is damaged.
void MultiWord::help(std::uint64_t reference, unsigned depth) const noexcept {
    Operation operation;
    if (read_operation(reference, operation)) run(reference, operation, depth);
}

bool MultiWord::is_undecided(std::uint64_t reference) const noexcept {
    const std::uint64_t status = load_acquire(operations_[participant_in(reference)].status);
    return is_about(status, reference) && state_in(status) == State::Undecided;
}

// Installs the reference in one word. False: the word holds something else, or the change is
// decided. Helps another change only while this one is undecided: only then is that change at a
// later word; a late helper could otherwise nest without end.
bool MultiWord::install(std::uint64_t reference, const Operation::Step& step,
                        unsigned depth) const noexcept {
    // Each round means that the word has lost the expected value, which never returns: so the
    // change fails, and is planned again. More rounds than other participants can have caused are
    // damage.
    for (unsigned futile = 0; futile < kMaxFutile; ++futile) {
        std::uint64_t seen = load_acquire(*step.word);
        if (seen == reference) return true;
        if (is_reference(seen)) {
            if (depth == kDeepest || !is_undecided(reference)) return false;
            help(seen, depth + 1);
            if (load_acquire(*step.word) == seen) return false;
            continue;
        }
        if (seen != step.expected || !is_undecided(reference)) return false;
        // pairs with: the loads in read(), which meet the reference and help, or come before it
        if (cas_seq_cst(*step.word, seen, reference)) {
            PENSTOCK_CRASH_POINT("words.change.installed");
            return true;
        }
    }
    return false;
}

void MultiWord::decide(std::uint64_t reference, bool succeeds) const noexcept {
    std::atomic<std::uint64_t>& status = operations_[participant_in(reference)].status;
    std::uint64_t seen = load_acquire(status);
    if (!is_about(seen, reference) || state_in(seen) != State::Undecided) return;
    const State state = succeeds ? State::Succeeded : State::Failed;
    // A failed exchange reads the decision of another participant.
    // pairs with: that decision
    cas_seq_cst(status, seen, status_of(sequence_in(seen), size_in(seen), state));
    PENSTOCK_CRASH_POINT("words.change.decided");
}

// By the owner or a helper. The result is for the owner; for a helper the change may be over.
bool MultiWord::run(std::uint64_t reference, const Operation& operation,
                    unsigned depth) const noexcept {
    bool succeeds = true;
    for (unsigned at = 0; at < operation.size && succeeds; ++at) {
        succeeds = install(reference, operation.steps[at], depth);
    }
    decide(reference, succeeds);
    const std::uint64_t status = load_acquire(operations_[participant_in(reference)].status);
    if (!is_about(status, reference)) return false;  // the owner has finished it
    const bool succeeded = state_in(status) == State::Succeeded;
    for (unsigned at = 0; at < operation.size; ++at) {
        const Operation::Step& step = operation.steps[at];
        // A restored payload gets a new generation too: otherwise a late helper could install its
        // reference again.
        const std::uint64_t value =
            succeeded ? step.desired : successor(step.expected, payload_of(step.expected));
        std::uint64_t seen = reference;
        // A failed exchange is sequentially consistent too, ordered after the helper's that put the
        // value there: so the owner's next looks, such as at the holder bits of an entry, come
        // after the change.
        // pairs with: the load in read(), of a reader that has set its bit before
        cas_seq_cst(*step.word, seen, value);
        PENSTOCK_CRASH_POINT("words.change.replaced");
    }
    return succeeded;
}

}  // namespace penstock::detail

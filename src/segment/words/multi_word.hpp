// Several words of shared memory changed at once, or none of them; lock-free.
//
// A participant describes its change in its own WordOperation, then installs a reference to that in
// each of the words. A participant that meets a reference finishes the change first: so a stopped
// or killed owner leaves nothing half done. After T. Harris, K. Fraser and I. Pratt, "A practical
// multi-word compare-and-swap operation" (DISC 2002), without its inner restricted double compare:
// no value ever returns to a word (its generation grows), so a late helper's compare-and-swap
// fails. Descriptions are reused as in M. Arbel-Raviv and T. Brown, "Reuse, don't recycle" (DISC
// 2017).
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "segment/layout.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {

using layout::Word;

constexpr std::uint64_t payload_of(std::uint64_t value) noexcept {
    return value & layout::kPayloadMask;
}
constexpr std::uint64_t generation_of(std::uint64_t value) noexcept {
    return value >> layout::kPayloadBits & layout::kGenerationMask;
}
// The next value of a word that held `seen`: its generation plus 1, with `payload`.
constexpr std::uint64_t successor(std::uint64_t seen, std::uint64_t payload) noexcept {
    const std::uint64_t generation = (generation_of(seen) + 1) & layout::kGenerationMask;
    return generation << layout::kPayloadBits | (payload & layout::kPayloadMask);
}

// Planned values of several words. Private to the caller that plans.
class WordPlan {
public:
    // Plans that `word`, which holds `seen`, becomes `payload`. A second call for the same word
    // replaces the payload. More than kMaxWords words make the plan broken.
    void set(Word& word, std::uint64_t seen, std::uint64_t payload) noexcept;
    [[nodiscard]] unsigned size() const noexcept { return size_; }
    // The plan can never succeed, however often it is renewed: one of its words is damaged.
    [[nodiscard]] bool is_broken() const noexcept { return is_broken_; }
    // Equality of two plans made one after the other from what the words held: nothing has changed
    // meanwhile. An inconsistency that both show is therefore damage, and no change in progress.
    bool operator==(const WordPlan&) const noexcept = default;

private:
    friend class MultiWord;
    struct Step {
        Word* word = nullptr;
        std::uint64_t seen = 0;
        std::uint64_t payload = 0;
        bool operator==(const Step&) const noexcept = default;
    };
    std::array<Step, layout::kMaxWords> steps_;
    unsigned size_ = 0;
    bool is_broken_ = false;
};

// One participant's access to the words of a control block. Any thread; the threads of a process
// take turns at multi-word changes.
class MultiWord {
public:
    MultiWord() noexcept = default;
    MultiWord(const MultiWord&) = delete;
    MultiWord& operator=(const MultiWord&) = delete;

    // `control` has `words` words, and `operations` one for each of `participants`. Must be called
    // first, by one thread.
    void attach(std::byte* control, std::uint64_t words, layout::WordOperation* operations,
                unsigned participants, unsigned self) noexcept;

    // Slots from `reach` on were never taken: note_of() does not look there.
    void limit(const std::atomic<std::uint64_t>& reach) noexcept { reach_ = &reach; }

    // The word's value, after finishing any change in progress there. Sequentially consistent with
    // all changes of words and other such operations: if a participant sets a bit and then reads
    // here that a word has not changed, a participant that changes the word later sees the bit.
    // pairs with: the compare-and-swaps of change(), install() and run()
    [[nodiscard]] std::uint64_t read(const Word& word) const noexcept {
        const std::uint64_t seen = load_seq_cst(word);
        return (seen & layout::kWordMark) == 0 ? seen : read_helping(word);
    }
    // The value, or the value it will have if the change in progress succeeds; changes nothing. For
    // display.
    [[nodiscard]] std::uint64_t peek(const Word& word) const noexcept;
    // Changes one word. False: it is not `seen` any more.
    static bool change(Word& word, std::uint64_t seen, std::uint64_t payload) noexcept;
    // Changes all words of the plan. False: one had another value, and nothing has changed.
    bool change(const WordPlan& plan) noexcept;
    // Reads the words of a failed plan again. False: one has another payload by now. (A change that
    // fails leaves payloads as they were, but not generations.)
    [[nodiscard]] bool renew(WordPlan& plan) const noexcept;
    // Finishes the last change of participant `dead`. For its janitor, and for its successor in the
    // slot before it changes anything. Repeatable.
    void finish(unsigned dead) const noexcept;

    // Work that must follow a change, for other participants to finish: stored before the change,
    // cleared when the work is done. A stop or a death leaves it in place.
    class [[nodiscard]] Note {
    public:
        Note(MultiWord& words, std::uint64_t what) noexcept;
        Note(const Note&) = delete;
        Note& operator=(const Note&) = delete;
        ~Note();

    private:
        std::atomic<std::uint64_t>& note_;
        std::lock_guard<std::mutex> turn_;
    };
    [[nodiscard]] unsigned participants() const noexcept;
    [[nodiscard]] std::uint64_t note_of(unsigned participant) const noexcept;

    // Result of read() for a reference without a change behind it: a payload that no state machine
    // has.
    static constexpr std::uint64_t kBroken = layout::kPayloadMask;

private:
    struct Operation {
        struct Step {
            Word* word;
            std::uint64_t expected;
            std::uint64_t desired;
        };
        std::array<Step, layout::kMaxWords> steps;
        unsigned size = 0;
    };

    [[nodiscard]] std::uint64_t read_helping(const Word& word) const noexcept;
    static void put_in_order(Operation& operation) noexcept;
    [[nodiscard]] std::uint64_t describe(const Operation& operation) noexcept;
    [[nodiscard]] bool read_operation(std::uint64_t reference, Operation& operation) const noexcept;
    void help(std::uint64_t reference, unsigned depth) const noexcept;
    bool run(std::uint64_t reference, const Operation& operation, unsigned depth) const noexcept;
    bool install(std::uint64_t reference, const Operation::Step& step,
                 unsigned depth) const noexcept;
    void decide(std::uint64_t reference, bool succeeds) const noexcept;
    [[nodiscard]] bool is_undecided(std::uint64_t reference) const noexcept;

    Word* words_ = nullptr;
    std::uint64_t count_ = 0;
    layout::WordOperation* operations_ = nullptr;
    unsigned participants_ = 0;
    unsigned self_ = 0;
    const std::atomic<std::uint64_t>* reach_ = nullptr;
    std::mutex mine_;   // one change at a time: there is one description
    std::mutex noted_;  // one note at a time; taken before mine_
};

}  // namespace penstock::detail

// Several words of shared memory changed at once, or none of them; lock-free.
//
// A participant describes its change in its own place, then puts a reference to that into each of
// the words. A participant that meets a reference finishes the change first: so one that is stopped
// or killed half-way leaves nothing half done. After T. Harris, K. Fraser and I. Pratt, "A
// practical multi-word compare-and-swap operation" (DISC 2002), without its inner restricted double
// compare: no value ever comes back to a word (its generation grows), so a late helper's
// compare-and-swap fails. Descriptions are used again as in M. Arbel-Raviv and T. Brown, "Reuse,
// don't recycle" (DISC 2017).
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "segment/layout.hpp"

namespace penstock::detail {

using layout::Word;

constexpr std::uint64_t payload_of(std::uint64_t value) noexcept {
    return value & layout::kPayloadMask;
}
constexpr std::uint64_t generation_of(std::uint64_t value) noexcept {
    return value >> layout::kPayloadBits & layout::kGenerationMask;
}
// What a word becomes that was `seen` and is to hold `payload`.
constexpr std::uint64_t successor(std::uint64_t seen, std::uint64_t payload) noexcept {
    const std::uint64_t generation = (generation_of(seen) + 1) & layout::kGenerationMask;
    return generation << layout::kPayloadBits | (payload & layout::kPayloadMask);
}

// What is to be changed. Private to its planner.
class WordPlan {
public:
    // `word` holds `seen` and is to hold `payload`. Said again of the same word it replaces the
    // payload. More than kMaxWords make a plan that never comes true.
    void set(Word& word, std::uint64_t seen, std::uint64_t payload) noexcept;
    [[nodiscard]] unsigned size() const noexcept { return size_; }
    // It never comes true, however often it is renewed: a word of it is damaged.
    [[nodiscard]] bool is_broken() const noexcept { return is_broken_; }
    // That nothing has changed meanwhile: of two plans of which each was made of what the words
    // held, one after the other. What did not fit together then was not just changing: it is
    // damaged.
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

// One participant's way to the words of a control block. Any thread; changes of several words by
// one process take turns among its threads.
class MultiWord {
public:
    MultiWord() noexcept = default;
    MultiWord(const MultiWord&) = delete;
    MultiWord& operator=(const MultiWord&) = delete;

    // `control` has `words` words, and `operations` one for each of `participants`.
    // Before anything else, and before a second thread.
    void attach(std::byte* control, std::uint64_t words, layout::WordOperation* operations,
                unsigned participants, unsigned self) noexcept;

    // Places from `reach` on were never taken: note_of() does not look there.
    void limit(const std::atomic<std::uint64_t>& reach) noexcept { reach_ = &reach; }

    // What the word holds, after finishing what was under way there. In one order with all changes
    // of words, and with what else is sequentially consistent: if a participant sets a bit and then
    // reads here that a word has not changed, the one that changes it later sees the bit.
    // pairs with: the compare-and-swaps of change(), install() and run()
    [[nodiscard]] std::uint64_t read(const Word& word) const noexcept {
        const std::uint64_t seen = word.load(std::memory_order_seq_cst);
        return (seen & layout::kWordMark) == 0 ? seen : read_helping(word);
    }
    // What it holds, or will hold if what is under way succeeds now; changes nothing. For people.
    [[nodiscard]] std::uint64_t peek(const Word& word) const noexcept;
    // One word. False: it is not `seen` any more.
    static bool change(Word& word, std::uint64_t seen, std::uint64_t payload) noexcept;
    // All of them. False: one was not what was seen, and nothing has changed.
    bool change(const WordPlan& plan) noexcept;
    // For a plan that did not come true: sees its words anew. False: one has another payload by
    // now. A change that fails leaves payloads as they were, but not generations.
    [[nodiscard]] bool renew(WordPlan& plan) const noexcept;
    // Finishes what participant `dead` left. For its janitor and for its successor in the place,
    // before it changes anything. Repeatable.
    void finish(unsigned dead) const noexcept;

    // What a participant is in the middle of beyond its words, for others to see to: set before a
    // change, 0 again when what follows from it is done. A stop or a death leaves it as it is.
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

    // What read() returns of a word that refers to nothing: a payload that no state machine has.
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
    std::mutex noted_;  // and one note; taken before the other
};

}  // namespace penstock::detail

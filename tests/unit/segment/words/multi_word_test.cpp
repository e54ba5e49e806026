// Multi-word changes: all words or none, under concurrency and deaths.
#include "segment/words/multi_word.hpp"

#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "os/crash_point.hpp"
#include "tests/unit/support/child.hpp"

namespace penstock::detail {
namespace {

using test::Child;
using test::killed_by;
using test::require;
using test::Shared;

constexpr unsigned kMembers = 8;
constexpr unsigned kWords = 16;

struct Control {
    std::array<Word, kWords> words{};
    std::array<layout::WordOperation, kMembers> operations{};
    std::atomic<std::uint64_t> done{0};
    std::atomic<bool> is_over{false};
};

void join(MultiWord& words, Control& control, unsigned self) {
    words.attach(reinterpret_cast<std::byte*>(control.words.data()), kWords,
                 control.operations.data(), kMembers, self);
}

TEST(MultiWordTest, AllOrNone) {
    Shared<Control> control;
    MultiWord words;
    join(words, *control, 0);
    const std::uint64_t first = words.read(control->words[3]);
    const std::uint64_t second = words.read(control->words[1]);
    WordPlan plan;
    plan.set(control->words[3], first, 33);
    plan.set(control->words[1], second, 11);
    EXPECT_TRUE(words.change(plan));
    EXPECT_EQ(payload_of(words.read(control->words[3])), 33U);
    EXPECT_EQ(payload_of(words.read(control->words[1])), 11U);
    EXPECT_FALSE(words.change(plan)) << "the words are not what was seen any more";
    WordPlan half;
    half.set(control->words[2], words.read(control->words[2]), 22);
    half.set(control->words[3], first, 44);
    EXPECT_FALSE(words.change(half));
    EXPECT_EQ(payload_of(words.read(control->words[2])), 0U);
    EXPECT_EQ(payload_of(words.read(control->words[3])), 33U);
}

TEST(MultiWordTest, AReferenceToNothingIsBroken) {
    Shared<Control> control;
    MultiWord words;
    join(words, *control, 0);
    control->words[0].store(layout::kWordMark | 17);
    control->words[1].store(layout::kWordMark | std::uint64_t{900} << 53U);
    EXPECT_EQ(words.read(control->words[0]), MultiWord::kBroken);
    EXPECT_EQ(words.read(control->words[1]), MultiWord::kBroken);
    EXPECT_EQ(words.peek(control->words[1]), MultiWord::kBroken);
}

// A hostile description: undecided, of the words at `places`, which hold 0.
void forge(Control& control, unsigned member, std::initializer_list<std::uint64_t> places) {
    layout::WordOperation& operation = control.operations[member];
    unsigned at = 0;
    for (const std::uint64_t place : places) operation.place[at++] = place;
    operation.status = std::uint64_t{1} << 6U | std::uint64_t{at} << 2U | 1U;
}
constexpr std::uint64_t reference_to(std::uint64_t member) {
    return layout::kWordMark | member << 53U | 1U;
}

TEST(MultiWordTest, AReferenceToAChangeOfOtherWordsIsBroken) {
    Shared<Control> control;
    Child child([&] {
        MultiWord words;
        join(words, *control, 0);
        forge(*control, 1, {3});
        control->words[0].store(reference_to(1));
        require(words.read(control->words[0]) == MultiWord::kBroken);
        WordPlan plan;
        plan.set(control->words[0], 0, 1);
        plan.set(control->words[1], 0, 1);
        require(!words.change(plan));
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST(MultiWordTest, ReferencesInACircleEnd) {
    Shared<Control> control;
    Child child([&] {
        MultiWord words;
        join(words, *control, 0);
        forge(*control, 1, {5});
        forge(*control, 2, {4});
        control->words[4].store(reference_to(1));
        control->words[5].store(reference_to(2));
        words.finish(1);
        words.finish(2);
        static_cast<void>(words.read(control->words[4]));
        static_cast<void>(words.read(control->words[5]));
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST(MultiWordTest, APlanOfTooManyWordsChangesNothing) {
    Shared<Control> control;
    MultiWord words;
    join(words, *control, 0);
    WordPlan plan;
    for (unsigned at = 0; at <= layout::kMaxWords; ++at) plan.set(control->words[at], 0, 1);
    EXPECT_EQ(plan.size(), layout::kMaxWords);
    EXPECT_FALSE(words.change(plan));
    EXPECT_EQ(payload_of(words.read(control->words[0])), 0U);
}

// Moves one unit from a random word to another, in a change of three words: the sum of all words,
// which begin at 1000, never changes.
bool move_some(MultiWord& words, Control& control, std::mt19937& random) {
    const auto from = static_cast<unsigned>(random() % kWords);
    const auto to = static_cast<unsigned>((from + 1 + random() % (kWords - 2)) % kWords);
    unsigned third = (to + 1) % kWords;
    if (third == from) third = (third + 1) % kWords;
    const std::uint64_t source = words.read(control.words[from]);
    const std::uint64_t target = words.read(control.words[to]);
    const std::uint64_t other = words.read(control.words[third]);
    if (payload_of(source) < 2) return false;
    WordPlan plan;
    plan.set(control.words[from], source, payload_of(source) - 2);
    plan.set(control.words[to], target, payload_of(target) + 1);
    plan.set(control.words[third], other, payload_of(other) + 1);
    return words.change(plan);
}

std::uint64_t sum(const MultiWord& words, const Control& control) {
    std::uint64_t total = 0;
    for (const Word& word : control.words) total += payload_of(words.read(word));
    return total;
}

void fill(Control& control) {
    for (Word& word : control.words) word.store(1000);
}

TEST(MultiWordTest, ThreadsOfSeveralParticipantsKeepTheSum) {
    Shared<Control> control;
    fill(*control);
    std::vector<std::thread> threads;
    std::atomic<std::uint64_t> moved{0};
    for (unsigned self = 0; self < 4; ++self) {
        threads.emplace_back([&, self] {
            MultiWord words;
            join(words, *control, self);
            std::mt19937 random(self);
            for (int turn = 0; turn < 30'000; ++turn) {
                if (move_some(words, *control, random)) ++moved;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    MultiWord words;
    join(words, *control, 7);
    EXPECT_EQ(sum(words, *control), 1000 * kWords);
    EXPECT_GT(moved, 10'000U);
}

// A process killed at each step of a change leaves only shared memory: others finish the change or
// undo it, and it never happens twice.
TEST(MultiWordTest, AChangeCutShortByADeathIsFinishedByOthers) {
    constexpr const char* kPoints[] = {
        "words.change.described:1:kill", "words.change.installed:1:kill",
        "words.change.installed:2:kill", "words.change.installed:3:kill",
        "words.change.decided:1:kill",   "words.change.replaced:1:kill",
        "words.change.replaced:2:kill",  "words.change.replaced:3:kill"};
    for (const char* point : kPoints) {
        Shared<Control> control;
        Child child([&] {
            MultiWord words;
            join(words, *control, 1);
            os::arm_crash_point(point);
            WordPlan plan;
            for (unsigned at = 0; at < 3; ++at) plan.set(control->words[at], 0, at + 1);
            words.change(plan);
        });
        ASSERT_EQ(child.wait(), killed_by(SIGKILL)) << point;
        MultiWord words;
        join(words, *control, 0);
        const std::uint64_t first = payload_of(words.read(control->words[0]));
        for (unsigned at = 0; at < 3; ++at) {
            EXPECT_EQ(payload_of(words.read(control->words[at])), first == 0 ? 0 : at + 1) << point;
        }
        words.finish(1);
        // Its successor in the slot continues its sequence.
        MultiWord heir;
        join(heir, *control, 1);
        WordPlan plan;
        for (unsigned at = 0; at < 3; ++at) {
            plan.set(control->words[at], heir.read(control->words[at]), 7);
        }
        EXPECT_TRUE(heir.change(plan)) << point;
        EXPECT_EQ(payload_of(words.read(control->words[2])), 7U);
    }
}

TEST(MultiWordTest, RandomDeathsKeepTheSum) {
    Shared<Control> control;
    fill(*control);
    std::array<std::unique_ptr<Child>, 3> children;
    MultiWord janitor;
    join(janitor, *control, 7);
    const auto start = [&](unsigned at) {
        children[at] = std::make_unique<Child>([&control, at] {
            MultiWord words;
            join(words, *control, at);
            std::mt19937 random(static_cast<unsigned>(::getpid()));
            while (!control->is_over) {
                if (move_some(words, *control, random)) ++control->done;
            }
        });
    };
    for (unsigned at = 0; at < children.size(); ++at) start(at);
    std::mt19937 random(5);
    for (int death = 0; death < 150; ++death) {
        const std::uint64_t before = control->done;
        test::await([&] { return control->done >= before + random() % 50; });
        const auto at = static_cast<unsigned>(random() % 3);
        children[at]->send(SIGKILL);
        EXPECT_EQ(children[at]->wait(), killed_by(SIGKILL));
        janitor.finish(at);
        start(at);
    }
    control->is_over = true;
    for (auto& child : children) EXPECT_EQ(child->wait(), 0);
    EXPECT_EQ(sum(janitor, *control), 1000 * kWords);
}

}  // namespace
}  // namespace penstock::detail

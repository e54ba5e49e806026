// Futexes: sleepers in several processes on one word, and the three ways to wake up.
#include "os/futex.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>

#include "tests/unit/support/child.hpp"

namespace penstock::os {
namespace {

using namespace std::chrono_literals;
using test::Child;
using test::require;
using test::Shared;

using Word = std::atomic<std::uint32_t>;
constexpr auto kLong = 20s;

TEST(FutexTest, ReturnsAtOnceWhenTheWordHasChanged) {
    const Shared<Word> word;
    word->store(5);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(futex_wait(*word, 4, kLong), Woken::ByWaker);
    EXPECT_LT(std::chrono::steady_clock::now() - start, kLong);
}

TEST(FutexTest, SleepsForTheWholeSpan) {
    const Shared<Word> word;
    for (const std::chrono::nanoseconds span : {0ns, 999'999ns, 40'000'000ns}) {
        const auto start = std::chrono::steady_clock::now();
        EXPECT_EQ(futex_wait(*word, 0, span), Woken::ByTimeout);
        EXPECT_GE(std::chrono::steady_clock::now() - start, span);
    }
}

TEST(FutexTest, WakesAllSleepersInOtherProcesses) {
    const Shared<Word> word;
    const auto sleep_until_woken = [&] { require(futex_wait(*word, 0, kLong) == Woken::ByWaker); };
    Child first(sleep_until_woken);
    Child second(sleep_until_woken);
    Child third(sleep_until_woken);
    for (Child* child : {&first, &second, &third}) child->await_sleep();
    futex_wake_all(*word);  // the word is unchanged: only the wake-up can end the sleep
    EXPECT_EQ(first.wait(), 0);
    EXPECT_EQ(second.wait(), 0);
    EXPECT_EQ(third.wait(), 0);
}

TEST(FutexTest, WakesSleepersOfThisProcessAlone) {
    const Shared<Word> word;
    const Shared<std::atomic<bool>> all_are_woken;
    const auto has_own_bit = [](pid_t pid) { return pid % 32 == ::getpid() % 32; };
    std::unique_ptr<Child> other;
    do {  // until its number has another bit than this process's
        other = std::make_unique<Child>([&] {
            require(futex_wait(*word, 0, kLong) == Woken::ByWaker);
            require(all_are_woken->load());
        });
    } while (has_own_bit(other->pid()));
    other->await_sleep();
    std::atomic<bool> is_over{false};
    std::atomic<unsigned> woken{0};
    std::atomic<unsigned> over{0};
    const auto sleep_until_over = [&] {
        while (!is_over) {
            require(futex_wait(*word, 0, kLong) == Woken::ByWaker);
            ++woken;
        }
        ++over;
    };
    std::jthread first(sleep_until_over);
    std::jthread second(sleep_until_over);
    test::await([&] {
        futex_wake_own(*word);
        return woken >= 10;
    });
    is_over = true;
    test::await([&] {
        futex_wake_own(*word);
        return over == 2;
    });
    *all_are_woken = true;
    futex_wake_all(*word);
    EXPECT_EQ(other->wait(), 0);
}

TEST(FutexTest, TellsASignalFromAWakeUp) {
    const Shared<Word> word;
    Child child([&] {
        struct sigaction handler{};
        handler.sa_handler = [](int) {};
        ::sigaction(SIGUSR1, &handler, nullptr);
        require(futex_wait(*word, 0, kLong) == Woken::BySignal);
    });
    child.await_sleep();
    child.send(SIGUSR1);
    EXPECT_EQ(child.wait(), 0);
}

TEST(FutexTest, WakingWithoutSleepersIsHarmless) {
    const Shared<Word> word;
    futex_wake_all(*word);
    EXPECT_EQ(word->load(), 0U);
}

}  // namespace
}  // namespace penstock::os

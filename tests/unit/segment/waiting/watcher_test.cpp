// The watcher: waits sleep for long while their peers live, are woken when one ends or when they
// are cancelled, and go on in slices where a peer can't be watched.
#include "segment/waiting/watcher.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "os/fence.hpp"
#include "os/process.hpp"
#include "os/process_end.hpp"
#include "penstock/broadcast.hpp"
#include "penstock/queue.hpp"
#include "segment/waiting/signal.hpp"
#include "segment/words/atomics.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/endings.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/refused_calls.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock::detail {
namespace {

using namespace std::chrono_literals;
using test::await;
using test::Child;
using test::Gate;
using test::require;
using test::Shared;

constexpr unsigned kSlots = 20;
constexpr auto kLong = 20s;             // a bound that no wait may reach
constexpr auto kSoon = kLongSlice / 2;  // sooner than the safety net
constexpr auto kParked = 600ms;
// Sleeps in that time: one slice and one long one, unless a process of an earlier test ended whose
// number has the same mark; or seven slices, on a machine that is not busy.
constexpr std::uint64_t kFew = 3;
constexpr std::uint64_t kMany = 5;

// Participants' slots, without locks: the tests are the judges of who is dead.
using Slots = std::array<layout::ParticipantSlot, kSlots>;

void sign(layout::ParticipantSlot& slot, std::uint64_t elsewhere = 0) {
    const os::ProcessIdentity self = os::identify_self();
    store_relaxed(slot.pid, self.pid);
    store_relaxed(slot.pid_namespace, self.pid_namespace + elsewhere);
    store_relaxed(slot.start_time, self.start_time);
    store_release(slot.word, 2 | layout::ParticipantSlot::kActive);
}

// A child in a slot that lives until it is killed.
class Peer {
public:
    explicit Peer(layout::ParticipantSlot& slot, std::uint64_t elsewhere = 0)
        : child_([this, &slot, elsewhere] {
              sign(slot, elsewhere);
              ready_.open();
              for (;;) ::pause();
          }) {
        ready_.pass();
    }

    [[nodiscard]] pid_t pid() const noexcept { return child_.pid(); }
    void kill() const { child_.send(SIGKILL); }
    // Kills and reaps it.
    void end() {
        kill();
        child_.wait();
    }
    // Whether it is dead, reaped or not.
    [[nodiscard]] bool is_dead() const {
        siginfo_t info{};
        return ::waitid(P_PID, static_cast<id_t>(child_.pid()), &info,
                        WEXITED | WNOHANG | WNOWAIT) != 0 ||
               info.si_pid != 0;
    }

private:
    const Gate ready_;
    Child child_;
};

os::ProcessEnd watched_end(const layout::ParticipantSlot& slot) {
    return Watcher::end_of(static_cast<std::uint32_t>(load_relaxed(slot.pid)),
                           load_relaxed(slot.start_time));
}

class WatcherTest : public ::testing::Test {
protected:
    WatcherTest() { Watcher::prepare(); }

    // A wait that ends when the peer is gone, and what it did.
    struct Waiter {
        explicit Waiter(const Slots& slots) {
            peers.slots = slots.data();
            peers.end = kSlots;
            peers.closing = &closing;
            peers.slices = Slices::Long;
        }

        template <typename PeerGone>
        WaitEnd operator()(const Wait& wait, PeerGone&& peer_gone) {
            sleeps = 0;
            const WaitEnd end = wait_until(
                Signal(*word, false), budget, wait, sleeps, [] { return false; },
                [&] {
                    ++looks;
                    return closing.is_cancelled() || peer_gone();
                },
                peers);
            looks = 0;
            return end;
        }
        WaitEnd operator()(const Wait& wait) {
            return (*this)(wait, [] { return false; });
        }

        // Whether its sleeps are short: kMany of them take 0.4 s, or four of them 2 s each.
        bool sleeps_in_slices() {
            const Clock::time_point start = Clock::now();
            const WaitEnd end = (*this)(kLong, [this] { return sleeps >= kMany; });
            return end == WaitEnd::PeerGone && Clock::now() - start < 2 * kLongSlice;
        }

        // From here on the watcher watches these peers, so that the second sleep of a wait is long.
        void prepare() {
            (*this)(4 * kSliceBeforeWatcher);
            await([this] { return are_watched(); });
        }
        [[nodiscard]] bool are_watched() const {
            std::uint64_t marks = 0;
            Watcher* const watcher = Watcher::running();
            return watcher != nullptr && watcher->watches(peers, marks);
        }
        void await_second_sleep() const {
            await([this] { return looks.load() >= 2; });
        }

        const Shared<layout::SignalWord> word;
        SpinBudget budget{1};
        Cancel closing;
        Peers peers;
        std::uint64_t sleeps = 0;
        std::atomic<unsigned> looks{0};
    };

    // Runs `act` in a thread when the wait sleeps for long; the time from there to the wait's end.
    template <typename PeerGone, typename Act>
    Clock::duration time_to_end(Waiter& waiter, const Wait& wait, WaitEnd expected,
                                PeerGone&& peer_gone, Act&& act) {
        Clock::time_point start;
        std::jthread other([&] {
            waiter.await_second_sleep();
            start = Clock::now();
            act();
        });
        const WaitEnd end = waiter(wait, peer_gone);
        const Clock::time_point ended = Clock::now();
        other.join();
        require(end == expected);
        return ended - start;
    }

    const Shared<Slots> slots_;
};

TEST_F(WatcherTest, AParkedWaitSleepsForLongWhileItsPeersLive) {
    const Peer peer((*slots_)[0]);
    sign((*slots_)[1]);  // this process
    Waiter waiter(*slots_);
    waiter.prepare();
    EXPECT_EQ(waiter(kParked), WaitEnd::Timeout);
    EXPECT_LE(waiter.sleeps, kFew);
}

TEST_F(WatcherTest, AWaitThatIsNotToldOfAllLooksEverMoreRarely) {
    const Peer peer((*slots_)[0]);
    Waiter waiter(*slots_);
    waiter.prepare();
    waiter.peers.slices = Slices::Growing;
    // Four of 80 ms, and each of the others lengthens the wait by a quarter: 12, where short slices
    // would be 22.
    EXPECT_EQ(waiter(3 * kParked), WaitEnd::Timeout);
    EXPECT_GE(waiter.sleeps, kMany);
    EXPECT_LE(waiter.sleeps, 16U);
}

TEST_F(WatcherTest, AWaitThatGivesSignsOfLifeSleepsInSlices) {
    const Peer peer((*slots_)[0]);
    Waiter waiter(*slots_);
    waiter.prepare();
    waiter.peers.slices = Slices::Short;
    EXPECT_TRUE(waiter.sleeps_in_slices());
}

TEST_F(WatcherTest, ADeathEndsALongSleep) {
    const Peer peer((*slots_)[3]);
    Waiter waiter(*slots_);
    waiter.prepare();
    const auto took = time_to_end(
        waiter, kLong, WaitEnd::PeerGone, [&] { return peer.is_dead(); }, [&] { peer.kill(); });
    EXPECT_LT(took, kSoon);
    EXPECT_LE(waiter.sleeps, kFew);
}

TEST_F(WatcherTest, EachOfManyDeathsEndsALongSleep) {
    std::vector<std::unique_ptr<Peer>> peers;
    for (auto& slot : *slots_) peers.push_back(std::make_unique<Peer>(slot));
    Waiter waiter(*slots_);
    for (unsigned i = 0; i < kSlots; ++i) {
        waiter.prepare();
        const auto took = time_to_end(
            waiter, kLong, WaitEnd::PeerGone, [&] { return peers[i]->is_dead(); },
            [&] { peers[i]->kill(); });
        EXPECT_LT(took, kSoon) << i;
        store_release((*slots_)[i].word, 2);  // as a janitor does
    }
}

TEST_F(WatcherTest, ADeathWakesNoWaitForOthers) {
    const Peer peer((*slots_)[0]);
    Waiter waiter(*slots_);
    waiter.prepare();
    const Shared<Slots> others;
    std::vector<std::unique_ptr<Peer>> mortals;
    for (auto& slot : *others) {
        mortals.push_back(std::make_unique<Peer>(slot));
        // It has the same mark: a wait for it and one for the peer are not told apart.
        if (mortals.back()->pid() % 64 == peer.pid() % 64) store_release(slot.word, 2);
    }
    Waiter elsewhere(*others);
    elsewhere.prepare();
    std::jthread killer([&] {
        waiter.await_second_sleep();
        for (unsigned i = 0; i < kSlots; ++i) {
            if (mortals[i]->pid() % 64 == peer.pid() % 64) continue;
            mortals[i]->kill();
            await([&] { return !elsewhere.are_watched(); });  // its death was noted
            store_release((*others)[i].word, 2);
        }
    });
    EXPECT_EQ(waiter(kParked), WaitEnd::Timeout);
    EXPECT_LE(waiter.sleeps, kFew);
}

// Also of one that its parent has reaped, and also if the watcher has not noted it yet.
TEST_F(WatcherTest, KnowsHowWatchedProcessesEnded) {
    constexpr os::ProcessEnd kKilled{os::ProcessEnd::How::Killed, SIGKILL,
                                     os::ProcessEnd::Why::Gone};
    for (int i = 0; i < 20; ++i) {
        Peer peer((*slots_)[0]);
        const Peer other((*slots_)[1]);
        Waiter waiter(*slots_);
        waiter.prepare();
        peer.end();
        EXPECT_EQ(watched_end((*slots_)[0]), test::tells_of_reaped() ? kKilled : os::ProcessEnd{});
        store_relaxed((*slots_)[0].start_time, load_relaxed((*slots_)[0].start_time) + 1);
        EXPECT_FALSE(watched_end((*slots_)[0]).is_known()) << "another process of that number";
        if (i != 0) continue;  // a process that lives is waited for
        EXPECT_FALSE(watched_end((*slots_)[1]).is_known());
    }
}

// The kernel releases locks before it tells of a death, but a lock may be shared with a process
// that lives on for a moment.
TEST_F(WatcherTest, AfterADeathThatTheLockDenies) {
    const Peer peer((*slots_)[0]);
    Waiter waiter(*slots_);
    waiter.prepare();
    std::jthread killer([&] {
        waiter.await_second_sleep();
        peer.kill();
    });
    EXPECT_TRUE(waiter.sleeps_in_slices()) << "it looks in slices from then on";
    killer.join();
    EXPECT_TRUE(waiter.sleeps_in_slices()) << "later waits, too";
}

TEST_F(WatcherTest, APeerOfAnotherPidNamespaceIsLookedAtInSlices) {
    const Peer near((*slots_)[0]);
    const Peer far((*slots_)[1], 1);
    Waiter waiter(*slots_);
    EXPECT_EQ(waiter(kParked), WaitEnd::Timeout);
    EXPECT_TRUE(waiter.sleeps_in_slices());
    std::jthread killer([&] {
        waiter.await_second_sleep();
        far.kill();
    });
    EXPECT_EQ(waiter(kLong, [&] { return far.is_dead(); }), WaitEnd::PeerGone);
}

TEST_F(WatcherTest, AnotherProcessOfThatNumberIsNotWatched) {
    const Peer peer((*slots_)[0]);
    store_relaxed((*slots_)[0].start_time, load_relaxed((*slots_)[0].start_time) + 1);
    Waiter waiter(*slots_);
    EXPECT_EQ(waiter(kParked), WaitEnd::Timeout);
    EXPECT_TRUE(waiter.sleeps_in_slices());
}

TEST_F(WatcherTest, CancelEndsALongSleep) {
    sign((*slots_)[0]);
    Waiter waiter(*slots_);
    waiter.prepare();
    Cancel cancel;
    Wait wait = kLong;
    wait.cancel = &cancel;
    const auto nothing = [] { return false; };
    EXPECT_LT(time_to_end(waiter, wait, WaitEnd::Cancelled, nothing, [&] { cancel.cancel(); }),
              kSoon);
    EXPECT_LT(
        time_to_end(waiter, kLong, WaitEnd::PeerGone, nothing, [&] { waiter.closing.cancel(); }),
        kSoon);
}

TEST_F(WatcherTest, CancelWakesNoOtherWait) {
    sign((*slots_)[0]);
    Waiter waiter(*slots_);
    waiter.prepare();
    std::jthread other([&] {
        waiter.await_second_sleep();
        Cancel of_another_wait;
        for (int i = 0; i < 100; ++i) of_another_wait.cancel();
    });
    EXPECT_EQ(waiter(kParked), WaitEnd::Timeout);
    EXPECT_LE(waiter.sleeps, kFew);
}

TEST_F(WatcherTest, AskAllWaitsReachesALongSleep) {
    sign((*slots_)[0]);
    Waiter waiter(*slots_);
    waiter.prepare();
    std::atomic<bool> is_over{false};
    Wait wait = kLong;
    wait.context = &is_over;
    wait.interrupted = [](void* context) {
        return static_cast<std::atomic<bool>*>(context)->load();
    };
    const auto act = [&] {
        is_over = true;
        ask_all_waits();
    };
    EXPECT_LT(time_to_end(waiter, wait, WaitEnd::Cancelled, [] { return false; }, act), kSoon);
}

// Such as that of a consumer whose messages others take: none of its sleeps lasts a whole slice.
TEST_F(WatcherTest, AWaitThatIsOftenWokenAsksToo) {
    sign((*slots_)[0]);
    Waiter waiter(*slots_);
    waiter.prepare();
    std::atomic<unsigned> asks{0};
    Wait wait = kLong;
    wait.context = &asks;
    wait.interrupted = [](void* context) {
        ++*static_cast<std::atomic<unsigned>*>(context);
        return false;
    };
    const auto wake_one_sleep = [&] {
        Signal signal(*waiter.word, false);
        const bool sleeps = signal.has_waiters();
        if (sleeps) signal.wake();
        return sleeps;
    };
    const auto act = [&] {
        for (int turn = 0; turn < 4; ++turn) {
            const auto start = Clock::now();
            const unsigned before = asks;
            await([&] { return Clock::now() - start > 2 * kSlice; });
            await(wake_one_sleep);
            await([&] { return asks > before; });
            EXPECT_LT(Clock::now() - start, kSoon);
        }
        waiter.closing.cancel();
    };
    time_to_end(waiter, wait, WaitEnd::PeerGone, [] { return false; }, act);
}

// It is told while it is awake and not announced, so that no word changes and no sleep ends.
TEST_F(WatcherTest, AskAllWaitsReachesAWaitThatIsAwake) {
    struct Asked {
        std::atomic<unsigned> other{0};  // how often the wait that is listed later was asked
        std::atomic<bool> is_armed{false};
        bool is_told = false;
    } asked;
    sign((*slots_)[0]);
    Waiter waiter(*slots_);
    waiter.prepare();
    Waiter other(*slots_);
    Wait of_other = kLong;
    of_other.context = &asked;
    of_other.interrupted = [](void* context) {
        ++static_cast<Asked*>(context)->other;
        return false;
    };
    Wait wait = kLong;
    wait.context = &asked;
    wait.interrupted = [](void* context) {
        auto& found = *static_cast<Asked*>(context);
        if (found.is_told) return true;
        if (!found.is_armed.load()) return false;
        await([&] { return found.other.load() == 1; });
        ask_all_waits();
        await([&] { return found.other.load() == 2; });  // this wait was told before
        found.is_told = true;
        return false;
    };
    std::jthread listed_later;
    const auto act = [&] {
        listed_later = std::jthread([&] { other(of_other); });
        other.await_second_sleep();
        asked.other = 0;
        asked.is_armed = true;
        ask_all_waits();
    };
    const auto took = time_to_end(waiter, wait, WaitEnd::Cancelled, [] { return false; }, act);
    EXPECT_LT(took, kSoon);
    other.closing.cancel();
}

// Threads of this process that are a watcher's and have the ordinary policy, with all signals
// blocked.
unsigned watchers_apart() {
    unsigned watchers = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
        std::string name;
        std::getline(std::ifstream(entry.path() / "comm"), name);
        const bool is_ordinary =
            ::sched_getscheduler(std::stoi(entry.path().filename())) == SCHED_OTHER;
        if (name != "penstock-watch" || !is_ordinary) continue;
        std::ifstream status(entry.path() / "status");
        std::string word;
        while (word != "SigBlk:" && status >> word) {
        }
        status >> word;
        const unsigned long long blocked = std::stoull(word, nullptr, 16);
        const std::array signals{SIGINT, SIGTERM, SIGUSR1, SIGCHLD, SIGALRM};
        if (std::ranges::all_of(signals, [blocked](int signal) {
                return (blocked >> static_cast<unsigned>(signal - 1) & 1U) != 0;
            })) {
            ++watchers;
        }
    }
    return watchers;
}

// The thread sets itself up while the wait goes on.
TEST_F(WatcherTest, ItsThreadInheritsNoPolicyAndTakesNoSignals) {
    Child child([] {
        const sched_param ordinary{};
        if (::sched_setscheduler(0, SCHED_BATCH, &ordinary) != 0) ::_exit(test::kCannotRefuse);
        const Shared<Slots> slots;
        sign((*slots)[0]);
        Waiter waiter(*slots);
        waiter.prepare();
        await([] { return watchers_apart() == 1; });
    });
    const int outcome = child.wait();
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "the policy can't be chosen here";
    EXPECT_EQ(outcome, 0);
}

TEST_F(WatcherTest, AProcessMayOptOut) {
    Child child([] {
        Watcher::prepare(false);
        const Shared<Slots> slots;
        const Peer peer((*slots)[0]);
        Waiter waiter(*slots);
        for (int i = 0; i < 2; ++i) {
            require(waiter.sleeps_in_slices());
        }
        require(Watcher::running() == nullptr && !Watcher::may_start());
        Watcher::prepare();
        waiter.prepare();
    });
    EXPECT_EQ(child.wait(), 0);
}

// A forked child uses nothing of its parent's watcher, and starts its own.
TEST_F(WatcherTest, AForkedChildHasAWatcherOfItsOwn) {
    sign((*slots_)[0]);
    Waiter waiter(*slots_);
    waiter.prepare();
    Child child([&] {
        require(Watcher::running() == nullptr);
        waiter.closing.cancel();  // wakes no wait of the parent
        ask_all_waits();
        const Shared<Slots> slots;
        const Peer peer((*slots)[0]);
        Waiter own(*slots);
        own.prepare();
        const auto took = time_to_end(
            own, kLong, WaitEnd::PeerGone, [&] { return peer.is_dead(); }, [&] { peer.kill(); });
        require(took < kSoon);
    });
    EXPECT_EQ(waiter(kParked), WaitEnd::Timeout);
    EXPECT_LE(waiter.sleeps, kFew);
    EXPECT_EQ(child.wait(), 0);
}

// Each fork finds the watcher's mutex in the hands of another thread, or not.
TEST_F(WatcherTest, ForksBesideBusyWaits) {
    sign((*slots_)[0]);
    Waiter waiter(*slots_);
    waiter.prepare();
    std::jthread busy([&](const std::stop_token& stop) {
        Waiter other(*slots_);
        while (!stop.stop_requested()) {
            other(1us);
            ask_all_waits();
        }
    });
    for (int i = 0; i < 200; ++i) {
        Child child([&] {
            Waiter own(*slots_);
            own(1us);
        });
        ASSERT_EQ(child.wait(), 0);
    }
}

TEST_F(WatcherTest, WithoutPidfdsWaitsSleepInSlices) {
    Child child([&] {
        if (!test::refuse_calls({{SYS_pidfd_open, ENOSYS, 0, 0, 0}})) ::_exit(test::kCannotRefuse);
        Watcher::prepare();
        const Shared<Slots> slots;
        const Peer peer((*slots)[0]);
        Waiter waiter(*slots);
        require(waiter.sleeps_in_slices());
        require(Watcher::running() == nullptr && !Watcher::may_start());
        const auto took = time_to_end(
            waiter, kLong, WaitEnd::PeerGone, [&] { return peer.is_dead(); }, [&] { peer.kill(); });
        require(took < kSoon);
    });
    const int outcome = child.wait();
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

TEST_F(WatcherTest, AfterTheProgramClosedEveryDescriptorAnotherIsStarted) {
    Child child([&] {
        const Shared<Slots> slots;
        sign((*slots)[0]);
        Waiter waiter(*slots);
        waiter.prepare();
        std::jthread daemon([&] {
            waiter.await_second_sleep();
            require(::syscall(SYS_close_range, 3, ~0U, 0) == 0);
        });
        require(waiter.sleeps_in_slices());  // in slices from then on
        daemon.join();
        waiter.prepare();
        require(waiter(kParked) == WaitEnd::Timeout);
        require(waiter.sleeps <= kFew);
    });
    EXPECT_EQ(child.wait(), 0);
}

// ---- with real segments

class DeathNoticedTest : public test::CleanTest {};

TEST_F(DeathNoticedTest, AReaderOfADeadWriter) {
    const std::string name = new_name();
    const Gate made;
    const Child writer([&] {
        auto own = BroadcastWriter::create(name);
        made.open();
        for (;;) ::pause();
    });
    made.pass();
    auto reader = BroadcastReader::attach(name, 0, kLong);
    ASSERT_EQ(reader.recv(kParked).code(), ErrorCode::Timeout);
    Clock::time_point killed;
    const std::uint64_t before = reader.stats().waits;
    std::jthread killer([&] {
        await([&] { return reader.stats().waits > before; });
        killed = Clock::now();
        writer.send(SIGKILL);
    });
    EXPECT_EQ(reader.recv(kLong).code(), ErrorCode::PeerDied);
    const Clock::time_point noticed = Clock::now();
    killer.join();
    EXPECT_LT(noticed - killed, kSoon);
}

// A parent that reaps its children at once does not hide from watching peers how they died.
TEST_F(DeathNoticedTest, AReaderKnowsHowAReapedWriterDied) {
    if (!test::tells_of_reaped()) GTEST_SKIP() << "needs Linux 6.15";
    const std::string name = new_name();
    const Shared<Slots> slots;
    const Gate made;
    Child writer([&] {
        auto own = BroadcastWriter::create(name);
        sign((*slots)[0]);
        made.open();
        for (;;) ::pause();
    });
    made.pass();
    auto reader = BroadcastReader::attach(name, 0, kLong);
    Peers peers;
    peers.slots = slots->data();
    peers.end = kSlots;
    await([&] {
        static_cast<void>(reader.recv(4 * kSliceBeforeWatcher).is_ok());
        Watcher* const watcher = Watcher::running();
        std::uint64_t marks = 0;
        return watcher != nullptr && watcher->watches(peers, marks);
    });
    writer.send(SIGKILL);
    writer.wait();
    EXPECT_TRUE(test::fails(reader.recv(kLong), ErrorCode::PeerDied,
                            {"was killed by signal 9 (SIGKILL); everything"}));
}

// As a signal handler in Python may, which runs in the middle of a wait: the child has no mapping
// of the segment.
TEST_F(DeathNoticedTest, AForkInTheMiddleOfAWait) {
    const std::string name = new_name();
    const Gate made;
    Child writer([&] {
        auto own = BroadcastWriter::create(name);
        made.open();
        for (;;) ::pause();
    });
    made.pass();
    auto reader = BroadcastReader::attach(name, 0, kLong);
    pid_t child = -1;
    Wait wait = kParked;
    wait.context = &child;
    wait.interrupted = [](void* context) {
        auto& forked = *static_cast<pid_t*>(context);
        if (forked < 0) forked = ::fork();
        return false;
    };
    const ErrorCode outcome = reader.recv(wait).code();
    if (child == 0) ::_exit(outcome == ErrorCode::WrongProcess ? 0 : 1);
    EXPECT_EQ(outcome, ErrorCode::Timeout);
    ASSERT_GT(child, 0);
    int status = -1;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    writer.send(SIGKILL);
    writer.wait();
}

// A waiting consumer watches those that join during its wait. After the first death it sleeps for
// long, unless it is told of the next one's coming.
TEST_F(DeathNoticedTest, AConsumerOfParticipantsThatComeLater) {
    auto queue = Queue::create(new_name());
    ASSERT_EQ(queue.take(kParked).code(), ErrorCode::Timeout);
    std::jthread others([&] {
        for (std::uint64_t deaths = 1; deaths <= 3; ++deaths) {
            const Gate attached;
            const Child other([&] {
                auto own = Queue::attach(queue.name());
                attached.open();
                for (;;) ::pause();
            });
            attached.pass();
            const auto killed = Clock::now();
            other.send(SIGKILL);
            await([&] { return queue.stats().deaths == deaths; });
            EXPECT_LT(Clock::now() - killed, kSoon);
        }
        queue.request_close();
    });
    EXPECT_EQ(queue.take(kLong).code(), ErrorCode::Cancelled);
    others.join();
}

}  // namespace
}  // namespace penstock::detail

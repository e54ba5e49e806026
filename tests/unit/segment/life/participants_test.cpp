// Participants: from claiming a slot to leaving it, and how a death in it is seen.
#include "segment/life/participants.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <system_error>

#include "os/clock.hpp"
#include "os/fence.hpp"
#include "os/process.hpp"
#include "os/process_end.hpp"
#include "segment/life/death.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/endings.hpp"
#include "tests/unit/support/refused_calls.hpp"

namespace penstock::detail {
namespace {

using test::Child;
using test::Gate;
using test::require;
using test::Shared;

constexpr unsigned kSlots = 4;
constexpr std::uint64_t kOffset = layout::kPage;

// A participant, or an observer, with its own file description and mapping.
class Guest {
public:
    explicit Guest(int descriptor) {
        std::error_code error;
        file_ = os::SharedFile::reopen(descriptor, error);
        require(!error);
        mapping_ =
            os::Mapping::map(file_, 0, 2 * layout::kPage, os::Mapping::Access::ReadWrite, error);
        require(!error);
        table = Participants(file_,
                             reinterpret_cast<layout::ParticipantSlot*>(mapping_.data() + kOffset),
                             kOffset, kSlots);
    }
    Guest(const Guest&) = delete;
    Guest& operator=(const Guest&) = delete;

    void join(unsigned slot) {
        require(table.try_claim(slot));
        table.sign(slot);
        table.announce(slot);
    }
    void leave(unsigned slot) {
        table.retire(slot);
        table.release(slot);
    }
    // Drops the slot's lock, as a program does that closes all descriptors.
    void lose_lock(unsigned slot) {
        file_.unlock(kOffset + slot * sizeof(layout::ParticipantSlot));
    }
    [[nodiscard]] layout::ParticipantSlot* slot(unsigned number) const {
        return reinterpret_cast<layout::ParticipantSlot*>(mapping_.data() + kOffset) + number;
    }

    Participants table;

private:
    os::SharedFile file_;
    os::Mapping mapping_;
};

class ParticipantsTest : public ::testing::Test {
protected:
    ParticipantsTest() {
        // An ordinary descriptor, which children inherit and reopen, as other processes would.
        descriptor_ = ::memfd_create("penstock-test", 0);
        require(descriptor_ >= 0 && ::ftruncate(descriptor_, 2 * layout::kPage) == 0);
    }
    ~ParticipantsTest() override { ::close(descriptor_); }

    int descriptor_ = -1;
};

TEST_F(ParticipantsTest, ASlotIsFreeThenAliveThenFree) {
    Guest member(descriptor_);
    Guest observer(descriptor_);
    EXPECT_EQ(observer.table.count(), kSlots);
    EXPECT_EQ(observer.table.life(2), Life::Free);
    EXPECT_FALSE(observer.table.anybody_alive());

    ASSERT_TRUE(member.table.try_claim(2));
    EXPECT_EQ(observer.table.life(2), Life::Free) << "not announced yet";
    EXPECT_FALSE(observer.table.is_announced(2));
    member.table.sign(2);
    EXPECT_EQ(observer.table.life(2), Life::Free);
    member.table.announce(2);
    for (const Guest* guest : {&member, &observer}) {
        EXPECT_EQ(guest->table.life(2), Life::Alive);
        EXPECT_TRUE(guest->table.is_announced(2));
        EXPECT_TRUE(guest->table.anybody_alive());
        EXPECT_EQ(guest->table.life(1), Life::Free);
    }

    member.leave(2);
    for (const Guest* guest : {&member, &observer}) {
        EXPECT_EQ(guest->table.life(2), Life::Free);
        EXPECT_FALSE(guest->table.is_announced(2));
        EXPECT_FALSE(guest->table.anybody_alive());
    }
}

TEST_F(ParticipantsTest, ATakenSlotCanNotBeClaimed) {
    Guest member(descriptor_);
    Guest other(descriptor_);
    member.join(1);
    EXPECT_FALSE(other.table.try_claim(1));
    EXPECT_TRUE(other.table.try_claim(0));
    member.leave(1);
    EXPECT_TRUE(other.table.try_claim(1));
}

TEST_F(ParticipantsTest, NeighboursDoNotDisturbEachOther) {
    Guest guests[kSlots] = {Guest(descriptor_), Guest(descriptor_), Guest(descriptor_),
                            Guest(descriptor_)};
    for (unsigned slot = 0; slot < kSlots; ++slot) guests[slot].join(slot);
    guests[1].leave(1);
    for (unsigned slot = 0; slot < kSlots; ++slot) {
        EXPECT_EQ(guests[3].table.life(slot), slot == 1 ? Life::Free : Life::Alive) << slot;
    }
}

TEST_F(ParticipantsTest, ReportsTheOwnerOfASlot) {
    Guest member(descriptor_);
    const Guest observer(descriptor_);
    const std::int64_t before = os::wall_ns();
    member.join(3);
    const ParticipantText text = observer.table.text(3);
    const os::ProcessIdentity self = os::identify_self();
    EXPECT_EQ(text.pid, self.pid);
    EXPECT_EQ(text.pid_namespace, self.pid_namespace);
    EXPECT_EQ(text.start_time, self.start_time);
    EXPECT_EQ(text.process, self.name);
    EXPECT_GE(text.attached_at, before);
    EXPECT_LE(text.attached_at, os::wall_ns());
}

TEST_F(ParticipantsTest, ATextWithoutAZeroEndsWithItsWords) {
    layout::ParticipantSlot slot{};
    const std::string name(64, 'x');
    for (auto& word : slot.text) {
        word = 0x7878787878787878;  // "xxxxxxxx", and no zero at the end
    }
    slot.pid = 4711;
    const ParticipantText text = read_text(slot);
    EXPECT_EQ(text.process, name);
    EXPECT_EQ(text.pid, 4711U);
}

TEST_F(ParticipantsTest, CountsHowOftenASlotWasJoined) {
    Guest guest(descriptor_);
    EXPECT_EQ(guest.table.joins(0), 0U);
    for (unsigned turn = 1; turn <= 3; ++turn) {
        guest.join(0);
        EXPECT_EQ(guest.table.joins(0), turn);
        guest.leave(0);
        EXPECT_EQ(guest.table.joins(0), turn) << "leaving does not count";
    }
}

TEST_F(ParticipantsTest, AKilledProcessIsDeadEvenUnreaped) {
    const Gate joined;
    Child child([&] {
        Guest guest(descriptor_);
        guest.join(1);
        joined.open();
        for (;;) ::pause();
    });
    joined.pass();
    Guest observer(descriptor_);
    EXPECT_EQ(observer.table.life(1), Life::Alive);
    EXPECT_EQ(observer.table.text(1).pid, static_cast<std::uint32_t>(child.pid()));
    child.stop();
    EXPECT_EQ(observer.table.life(1), Life::Alive) << "lateness is no death";
    child.kill_unreaped();
    EXPECT_EQ(observer.table.life(1), Life::Dead);
    EXPECT_TRUE(observer.table.is_announced(1));
    EXPECT_FALSE(observer.table.anybody_alive());
}

TEST_F(ParticipantsTest, AParticipantThatDropsItsHandleIsDead) {
    Guest observer(descriptor_);
    {
        Guest member(descriptor_);
        member.join(1);
    }
    EXPECT_EQ(observer.table.life(1), Life::Dead);
}

TEST_F(ParticipantsTest, OneJanitorAtATimeReaps) {
    {
        Guest dead(descriptor_);
        dead.join(2);
    }
    Guest janitor(descriptor_);
    Guest late(descriptor_);
    ASSERT_TRUE(janitor.table.try_claim(2));
    EXPECT_FALSE(late.table.try_claim(2));
    EXPECT_TRUE(janitor.table.is_announced(2)) << "the dead participant's slot is still announced";
    EXPECT_EQ(janitor.table.life(2), Life::Dead) << "a janitor does not take itself for the dead";
    janitor.table.retire(2);
    janitor.table.retire(2);  // idempotent: a janitor may die between any two steps
    EXPECT_EQ(late.table.life(2), Life::Free);
    janitor.table.release(2);
    late.join(2);
    EXPECT_EQ(janitor.table.life(2), Life::Alive);
    EXPECT_EQ(janitor.table.joins(2), 2U);
}

TEST_F(ParticipantsTest, AJanitorThatDiesIsFollowedByAnother) {
    {
        Guest dead(descriptor_);
        dead.join(2);
    }
    {
        Guest janitor(descriptor_);
        ASSERT_TRUE(janitor.table.try_claim(2));
    }
    Guest next(descriptor_);
    EXPECT_EQ(next.table.life(2), Life::Dead);
    EXPECT_TRUE(next.table.try_claim(2));
}

TEST_F(ParticipantsTest, ADeathBeforeTheAnnouncementLeavesAFreeSlot) {
    {
        Guest member(descriptor_);
        ASSERT_TRUE(member.table.try_claim(0));
        member.table.sign(0);
    }
    Guest observer(descriptor_);
    EXPECT_EQ(observer.table.life(0), Life::Free);
    EXPECT_TRUE(observer.table.try_claim(0));
}

// life() makes two checks, and the owner may leave between them: it must not be taken for dead.
TEST_F(ParticipantsTest, AnOrderlyLeaveIsNeverTakenForADeath) {
    constexpr int kEnough = 300;  // looks that came at the right moment
    const auto stay = [] {
        for (int i = 0; i < 30; ++i) os::spin_pause();
    };
    const Shared<std::atomic<bool>> is_over;
    Child child([&] {
        Guest guest(descriptor_);
        guest.table.sign(1);
        while (!*is_over) {
            require(guest.table.try_claim(1));
            guest.table.announce(1);
            stay();
            guest.leave(1);
            stay();
        }
    });
    const Guest observer(descriptor_);
    int deaths = 0;
    int lives = 0;
    test::await([&] {
        const Life life = observer.table.life(1);
        if (life == Life::Dead) ++deaths;
        if (life == Life::Alive) ++lives;
        return lives >= kEnough;
    });
    *is_over = true;
    EXPECT_EQ(child.wait(), 0);
    EXPECT_EQ(deaths, 0);
}

TEST_F(ParticipantsTest, ALivingParticipantFoundDeadSeesItInItsSlot) {
    Guest observer(descriptor_);
    Guest member(descriptor_);
    member.join(2);
    observer.table.note_dead(2);  // it is alive
    EXPECT_FALSE(member.table.is_found_dead());
    member.lose_lock(2);
    EXPECT_FALSE(member.table.is_found_dead()) << "not reaped yet";
    ASSERT_TRUE(observer.table.claim(2));
    EXPECT_TRUE(member.table.is_found_dead());
    EXPECT_FALSE(observer.table.is_found_dead());
    observer.leave(2);
    Guest successor(descriptor_);
    successor.join(2);
    EXPECT_TRUE(member.table.is_found_dead());
    EXPECT_FALSE(successor.table.is_found_dead());
    successor.leave(2);
}

// ---- how the dead died

using How = os::ProcessEnd::How;

class DeathNotedTest : public ParticipantsTest {
protected:
    // A process that joins slot 1, and ends by `last_act`, which does not return.
    [[nodiscard]] auto joining(const std::function<void()>& last_act) {
        return [this, last_act] {
            Guest guest(descriptor_);
            guest.join(1);
            joined_.open();
            may_end_.pass();
            last_act();
        };
    }
    const Gate joined_;
    const Gate may_end_;
};

TEST_F(DeathNotedTest, HowAParticipantDiedStaysInItsSlotUntilTheNextDies) {
    Guest observer(descriptor_);
    for (std::uint32_t join = 1; join <= 2; ++join) {
        Child child(joining([join] {
            if (join == 1) test::die_by(SIGSEGV);
            ::_exit(3);
        }));
        joined_.pass();
        const auto pid = static_cast<std::uint32_t>(child.pid());
        if (join == 2) {
            EXPECT_TRUE(observer.table.death(1, 1).is_of(1));
            EXPECT_EQ(observer.table.death(1, 1).end.number, SIGSEGV);
            EXPECT_FALSE(observer.table.death(1, 2).end.is_known()) << "it lives";
        }
        may_end_.open();
        child.await_end();
        ASSERT_TRUE(observer.table.claim(1));
        EXPECT_EQ(child.wait(), join == 1 ? test::killed_by(SIGSEGV) : 3);
        const auto expect_noted = [&] {
            const DeathNote death = observer.table.death(1, join);
            EXPECT_EQ(death.pid, pid);
            EXPECT_EQ(death.end.how, join == 1 ? How::Killed : How::Exited);
            EXPECT_EQ(death.end.number, join == 1 ? SIGSEGV : 3);
        };
        expect_noted();
        observer.leave(1);
        expect_noted();
    }
    EXPECT_FALSE(observer.table.death(1, 1).is_of(2)) << "another participant's";
}

TEST_F(DeathNotedTest, AnotherProcessKnowsWhatTheFinderNoted) {
    Child child(joining([] { ::_exit(3); }));
    joined_.pass();
    may_end_.open();
    child.await_end();
    Child finder([&] {
        Guest own(descriptor_);
        own.table.note_dead(1);
        require(own.table.death(1, 1).end.how == How::Exited);  // a stranger's
    });
    EXPECT_EQ(finder.wait(), 0);
    EXPECT_EQ(child.wait(), 3);
    const Guest late(descriptor_);
    EXPECT_EQ(late.table.death(1, 1).end.how, How::Exited);
    EXPECT_EQ(late.table.death(1, 1).end.number, 3);
}

TEST_F(DeathNotedTest, WhatIsLearnedLaterIsNotedToo) {
    Child child(joining([] { ::_exit(3); }));
    joined_.pass();
    may_end_.open();
    child.await_end();
    Guest observer(descriptor_);
    const std::uint64_t start_time = load_relaxed(observer.slot(1)->start_time);
    store_relaxed(observer.slot(1)->start_time, start_time + 1);  // a reused pid, it seems
    observer.table.note_dead(1);
    const DeathNote vague = observer.table.death(1, 1);
    EXPECT_EQ(vague.pid, static_cast<std::uint32_t>(child.pid()));
    EXPECT_EQ(vague.end, os::ProcessEnd{});
    store_relaxed(observer.slot(1)->start_time, start_time);
    EXPECT_EQ(observer.table.death(1, 1).end.how, How::Exited);
    EXPECT_EQ(child.wait(), 3);
    EXPECT_EQ(observer.table.death(1, 1).end.number, 3);
}

TEST_F(DeathNotedTest, OfAProcessThatIsGoneOnlyThePidIsKnown) {
    Child child(joining([] { ::_exit(3); }));
    joined_.pass();
    may_end_.open();
    const auto pid = static_cast<std::uint32_t>(child.pid());
    EXPECT_EQ(child.wait(), 3);
    const Guest observer(descriptor_);
    observer.table.note_dead(1);
    const DeathNote death = observer.table.death(1, 1);
    EXPECT_EQ(death.pid, pid);
    EXPECT_EQ(death.end, os::ProcessEnd{});
    EXPECT_EQ(death.doubt(),
              "; how it ended is not known here: its exit status had been collected "
              "before a participant looked");
}

// A look from outside says what it sees, and leaves no note.
TEST_F(DeathNotedTest, AnInspectionChangesNothing) {
    Child child(joining([] { ::_exit(3); }));
    joined_.pass();
    may_end_.open();
    child.await_end();
    Guest observer(descriptor_);
    std::error_code error;
    os::SharedFile file = os::SharedFile::reopen(descriptor_, error);
    ASSERT_FALSE(error);
    layout::ParticipantSlot copies[kSlots];
    ASSERT_TRUE(file.read(kOffset, copies, sizeof copies));
    const Participants outside = Participants::of_copy(file, copies, kOffset, kSlots);
    EXPECT_EQ(outside.death(1, 1).end.how, How::Exited);
    EXPECT_EQ(load_relaxed(observer.slot(1)->last_death), 0U);
    observer.table.note_dead(1);
    EXPECT_EQ(child.wait(), 3);
    EXPECT_EQ(outside.death(1, 1).end.number, 3) << "read from the file, as the copy has no note";
}

TEST_F(DeathNotedTest, AParticipantThatLostItsLockHasNotEnded) {
    const Guest observer(descriptor_);
    Guest member(descriptor_);
    member.join(2);
    member.lose_lock(2);
    observer.table.note_dead(2);
    const DeathNote death = observer.table.death(2, 1);
    EXPECT_EQ(death.end.why, os::ProcessEnd::Why::Running);
    member.leave(2);
}

TEST_F(ParticipantsTest, ADamagedNoteIsHarmless) {
    Guest observer(descriptor_);
    for (const std::uint64_t damage : {~std::uint64_t{0}, std::uint64_t{0x7FFFFFFF} << 32U}) {
        {
            Guest dead(descriptor_);
            dead.join(3);
        }
        store_relaxed(observer.slot(3)->last_death, damage);
        ASSERT_TRUE(observer.table.claim(3));
        EXPECT_FALSE(observer.table.death(3, observer.table.joins(3)).predicate().empty());
        observer.leave(3);
    }
}

#ifdef __x86_64__  // for the registers of a system call

// A peer that joins and leaves without end, exactly between the two checks of its slot: a signal
// handler does so while it answers in the kernel's place that the lock is free.
struct Flipping {
    static inline layout::ParticipantSlot* slot = nullptr;
    static inline std::atomic<int> asked{0};

    static void answer(int /*signal*/, siginfo_t* /*info*/, void* context) {
        auto* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
        reinterpret_cast<struct flock*>(registers[REG_RDX])->l_type = F_UNLCK;
        registers[REG_RAX] = 0;
        slot->word.fetch_add(2);
        ++asked;
    }
};

TEST_F(ParticipantsTest, APeerThatFlipsItsWordDoesNotHoldUpALook) {
    Guest observer(descriptor_);
    Guest member(descriptor_);
    member.join(2);
    Child child([&] {
        Guest looking(descriptor_);
        Flipping::slot = looking.slot(2);
        struct sigaction action{};
        action.sa_sigaction = &Flipping::answer;
        action.sa_flags = SA_SIGINFO;
        ::sigaction(SIGSYS, &action, nullptr);
        if (!test::trap_call({SYS_fcntl, 0, 1, ~0U, F_OFD_GETLK})) ::_exit(test::kCannotRefuse);
        require(looking.table.life(2) == Life::Alive);  // no evidence of death
        require(Flipping::asked > 0 && Flipping::asked < 1000);
    });
    const int end = child.wait();
    if (end == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(end, 0);
    member.leave(2);
}

#endif

}  // namespace
}  // namespace penstock::detail

// An attach that finds all slots taken while a janitor reaps a dead participant's: it reports how
// many are alive, and gets the slot as soon as the janitor is done. The same for every concept.
#include <gtest/gtest.h>
#include <signal.h>

#include <functional>
#include <string>

#include "os/crash_point.hpp"
#include "penstock/broadcast.hpp"
#include "penstock/queue.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/concepts.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock {
namespace {

using namespace std::chrono_literals;
using test::Child;
using test::Concept;
using test::Gate;

constexpr const char* kJanitorStops = "membership.reap.locked:1:stop";

class JanitorAtWorkTest : public test::CleanTest {
protected:
    // The error of an attach while the janitor is stopped.
    std::string refusal(const std::function<void()>& attach) {
        try {
            attach();
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::Busy);
            return error.what();
        }
        return "nothing was refused";
    }
    std::string name_ = new_name();
};

class PlaceTest : public JanitorAtWorkTest, public ::testing::WithParamInterface<Concept> {};

TEST_P(PlaceTest, TheLivingAreCounted) {
    const Concept& is = GetParam();
    const std::shared_ptr<void> creator = is.create(name_);
    Gate is_in;
    Gate may_look;
    Child janitor([&] {
        const std::shared_ptr<void> handle = is.attach(name_);
        is_in.open();
        may_look.pass();
        os::arm_crash_point(kJanitorStops);
        is.look(handle.get());
    });
    is_in.pass();
    Child victim([&] {
        const std::shared_ptr<void> handle = is.attach(name_);
        is_in.open();
        for (;;) ::pause();
    });
    is_in.pass();
    EXPECT_NE(refusal([&] { is.attach(name_); }).find("all 3 participants are alive"),
              std::string::npos)
        << is.name;
    victim.kill_unreaped();
    may_look.open();
    janitor.await_stop();
    const std::string said = refusal([&] { is.attach(name_); });
    EXPECT_NE(said.find("of 3 participants 2 are alive, 1 dead, with a process at work"),
              std::string::npos)
        << is.name << ": " << said;
    janitor.resume();
    EXPECT_EQ(janitor.wait(), 0);
    EXPECT_NO_THROW(is.attach(name_)) << is.name;
}

INSTANTIATE_TEST_SUITE_P(Concepts, PlaceTest, ::testing::ValuesIn(test::concepts()),
                         [](const auto& given) { return given.param.name; });

TEST_F(JanitorAtWorkTest, ADeadReaderIsNotReportedAsAlive) {
    Gate is_in;
    Gate may_look;
    Child writer([&] {
        BroadcastWriter made = BroadcastWriter::create(name_, {.readers = 2, .capacity = 4096});
        is_in.open();
        may_look.pass();
        os::arm_crash_point(kJanitorStops);
        static_cast<void>(made.wait_ready(1ms));
    });
    is_in.pass();
    Child reader([&] {
        const BroadcastReader handle = BroadcastReader::attach(name_, 0, 10s);
        is_in.open();
        for (;;) ::pause();
    });
    is_in.pass();
    const auto attach = [&] { BroadcastReader::attach(name_, 0); };
    EXPECT_NE(refusal(attach).find("has a reader already: pid"), std::string::npos);
    reader.kill_unreaped();
    may_look.open();
    writer.await_stop();
    const std::string said = refusal(attach);
    EXPECT_NE(said.find("is not free yet"), std::string::npos) << said;
    writer.resume();
    EXPECT_EQ(writer.wait(), 0);
}

// Attaches, runs `deed`, and keeps its result until the process is killed.
template <typename Attach, typename Deed>
auto doing_and_staying(const Gate& is_in, Attach attach, Deed deed) {
    return [&is_in, attach, deed] {
        auto handle = attach();
        [[maybe_unused]] const auto kept = deed(handle);
        is_in.open();
        for (;;) ::pause();
    };
}

// A participant joins between another's look at the slot and its lock, and dies there.
TEST_F(JanitorAtWorkTest, ADeathBetweenLookAndLockIsReported) {
    BroadcastOptions options;
    options.readers = 1;
    options.capacity = 4096;
    options.on_reader_death = OnReaderDeath::Raise;
    BroadcastWriter writer = BroadcastWriter::create(name_, options);
    Gate is_in;
    const auto attach = [&] { return BroadcastReader::attach(name_, 0, 10s); };
    const auto nothing = [](auto&) { return 0; };
    Child slow([&] {
        os::arm_crash_point("participants.claim.looked:1:stop");
        doing_and_staying(is_in, attach, nothing)();
    });
    slow.await_stop();
    Child quick(doing_and_staying(is_in, attach, nothing));
    is_in.pass();
    quick.kill_unreaped();
    slow.resume();
    is_in.pass();
    EXPECT_EQ(writer.wait_ready(10ms).code(), ErrorCode::PeerDied);
    EXPECT_EQ(writer.stats().reader_deaths, 1U);
    EXPECT_TRUE(test::succeeds(writer.wait_ready(10s)));
}

class StreamEndTest : public JanitorAtWorkTest {
protected:
    // Attaches in the slot of a dead participant, and stops before it reaps that one.
    auto attaching_and_stopping() {
        return [this] {
            os::arm_crash_point("membership.join.locked:1:stop");
            const Queue queue = Queue::attach(name_);
            is_in_.open();
            for (;;) ::pause();
        };
    }
    static Status put_one(Queue& queue) {
        const std::byte content{7};
        return queue.put({&content, 1}, Deadline::after(10s));
    }
    Gate is_in_;
};

TEST_F(StreamEndTest, ADeadProducerWithAStoppedJanitorKeepsNoStreamOpen) {
    Queue queue =
        Queue::create(name_, {.capacity = 4096, .slots = 4, .ends_with = EndsWith::LastProducer});
    const auto attach = [&] { return Queue::attach(name_); };
    Child dead(doing_and_staying(is_in_, attach, &put_one));
    is_in_.pass();
    Gate may_close;
    Child last([&] {
        Queue own = Queue::attach(name_);
        test::require(put_one(own).is_ok());
        is_in_.open();
        may_close.pass();
        own.close();
    });
    is_in_.pass();
    dead.kill_unreaped();
    Child janitor(attaching_and_stopping());
    janitor.await_stop();
    may_close.open();
    EXPECT_EQ(last.wait(), 0);
    for (int i = 0; i < 2; ++i) {
        Result<Delivery> delivery = queue.take(Deadline::now());
        ASSERT_TRUE(test::succeeds(delivery));
        delivery->ack();
    }
    EXPECT_EQ(queue.take(Deadline::after(10s)).code(), ErrorCode::Closed);
}

TEST_F(StreamEndTest, MessagesThatAJanitorReturnsAreWaitedFor) {
    Queue queue = Queue::create(name_, {.capacity = 4096, .slots = 4});
    ASSERT_TRUE(test::succeeds(put_one(queue)));
    const auto attach = [&] { return Queue::attach(name_); };
    Child dead(doing_and_staying(is_in_, attach,
                                 [](Queue& own) { return own.take(Deadline::after(10s)); }));
    is_in_.pass();
    queue.end();
    dead.kill_unreaped();
    Child janitor(attaching_and_stopping());
    janitor.await_stop();
    Child last([&] {
        Queue own = Queue::attach(name_);
        os::arm_crash_point("membership.janitor.awaited:1:stop");
        Result<Delivery> delivery = own.take(Deadline::after(10s));
        test::require(delivery.is_ok() && delivery->is_redelivered());
        delivery->ack();
    });
    last.await_stop();
    janitor.resume();
    is_in_.pass();
    last.resume();
    EXPECT_EQ(last.wait(), 0);
}

}  // namespace
}  // namespace penstock

// The line of the writers and removers of one key.
#include "remote/backlog.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>

#include "tests/unit/remote/tier_fixture.hpp"

namespace penstock::detail {
namespace {

using namespace test;

class BacklogTest : public CleanTest {
protected:
    BacklogTest() { backlog_.start(1 << 20U); }

    void TearDown() override {
        backlog_.stop();
        store_.close();
        CleanTest::TearDown();
    }

    bool forgets(const Backlog::Turn& turn) { return backlog_.forget(turn, Deadline::now(), {}); }
    StoreObject object() {
        static_cast<void>(store_.put("k", {}));
        return *store_.get("k");
    }

    Store store_ = Store::create(new_name(), small_store());
    TierTally tally_;
    std::atomic<unsigned> written_ = 0;
    Backlog backlog_{{.most_bytes = 1 << 20U},
                     tally_,
                     [this](const BacklogItem&) {
                         ++written_;
                         return RedisOutcome{};
                     },
                     [] { return false; }};
};

TEST_F(BacklogTest, ARemovalWaitsForAnAnnouncedWrite) {
    const Backlog::Turn writer = backlog_.announce("k");
    const Backlog::Turn remover = backlog_.announce("k");
    const Backlog::Turn other = backlog_.announce("another");
    EXPECT_FALSE(forgets(remover));
    EXPECT_TRUE(forgets(other));
    backlog_.leave(writer);
    EXPECT_TRUE(forgets(remover));
}

TEST_F(BacklogTest, ALaterWriterWaitsForARemoval) {
    const Backlog::Turn remover = backlog_.announce("k");
    const Backlog::Turn writer = backlog_.announce("k");
    EXPECT_TRUE(forgets(remover));
    EXPECT_FALSE(backlog_.await_turn(writer, Deadline::now()));
    Wait interrupted;
    interrupted.interrupted = [](void*) noexcept { return true; };
    EXPECT_FALSE(backlog_.await_turn(writer, interrupted));
    std::thread adding([&] { EXPECT_TRUE(backlog_.add(writer, object(), 0, {})); });
    backlog_.leave(remover);
    adding.join();
    backlog_.leave(writer);
    EXPECT_TRUE(backlog_.flush(kLong).is_nothing());
    EXPECT_EQ(written_, 1U);
}

TEST_F(BacklogTest, AWriterThatGivesUpLosesItsTurn) {
    const Backlog::Turn first = backlog_.announce("k");
    const Backlog::Turn second = backlog_.announce("k");
    const Backlog::Turn third = backlog_.announce("k");
    EXPECT_TRUE(backlog_.add(second, object(), 0, Deadline::now()));
    EXPECT_EQ(backlog_.flush(kLong).dropped, 1U) << "it was not its turn";
    backlog_.leave(second);
    EXPECT_FALSE(backlog_.await_turn(third, Deadline::now()));
    backlog_.leave(first);
    EXPECT_TRUE(backlog_.await_turn(third, {}));
}

TEST_F(BacklogTest, StoppingEndsTheWaitForATurn) {
    const Backlog::Turn first = backlog_.announce("k");
    const Backlog::Turn second = backlog_.announce("k");
    std::thread waiting([&] { EXPECT_FALSE(backlog_.await_turn(second, {})); });
    backlog_.stop();
    waiting.join();
    backlog_.leave(first);
    backlog_.leave(second);
}

}  // namespace
}  // namespace penstock::detail

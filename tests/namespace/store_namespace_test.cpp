// Writers and readers of a Store in PID namespaces of their own, each of them process 1 there: a
// death in one is noticed in the others, which have its keys, its room and what it had pinned.
#include <gtest/gtest.h>

#include "tests/support/isolation.hpp"
#include "tests/support/premises.hpp"
#include "tests/support/store_actor.hpp"

namespace penstock::trust {
namespace {

class StoreNamespaces : public testing::Test {
protected:
    static constexpr std::int64_t kPromptly = 1'000'000'000;  // ns; 100 ms is the crash walk's
    static constexpr const char* kMax = " 400000";            // two fit, three do not

    void SetUp() override {
        flags_ = isolation_flags();
        if (!flags_) GTEST_SKIP() << "PID namespaces are not permitted here";
        segment_ = premises_.name();
        writer_ = start_isolated("the writer", kStoreRole, *flags_);
        other_ = start_isolated("the other", kStoreRole, *flags_);
        writer_.must("create " + segment_ + " 1048576 64 8 sieve");
        other_.must("attach " + segment_ + " 5000");
    }
    // It reads one object, and writes another.
    void start_worker() {
        worker_ = start_isolated("the worker", kStoreRole, *flags_);
        worker_.must("attach " + segment_ + " 5000");
        writer_.must(std::string("put 1") + kMax);
        worker_.must("get 1");
        worker_.must(std::string("reserve 2") + kMax);
    }
    void kill_worker() {
        worker_.process().kill();
        ASSERT_TRUE(worker_.process().wait(kPatience).has_value());
        death_ = os::monotonic_ns();
    }
    void must_promptly(Actor& actor, const std::string& line) const {
        EXPECT_LT(actor.must(line).number("t") - death_, kPromptly) << line;
    }
    [[nodiscard]] StoreStats look() const { return inspect_store(segment_).stats; }
    void close() {
        writer_.must("clear");
        EXPECT_EQ(look().used_bytes, 0U);
        EXPECT_EQ(look().largest_free, look().capacity);
        other_.must("close");
        writer_.must("close");
        EXPECT_TRUE(premises_.left().empty());
    }

    Premises premises_{"storens"};
    std::optional<int> flags_;
    std::string segment_;
    std::int64_t death_ = 0;
    Actor writer_;
    Actor other_;
    Actor worker_;
};

TEST_F(StoreNamespaces, NobodyIsTakenForDeadAndAStoppedOneKeepsWhatItHas) {
    start_worker();
    for (const Participant& who : inspect_store(segment_).segment.participants) {
        EXPECT_EQ(who.pid, 1U) << who.role;
        EXPECT_TRUE(who.alive) << who.role;
    }
    worker_.process().stop();
    const Answer refused = other_.ask("put 2 10");
    EXPECT_EQ(refused.outcome, "Busy") << refused.line();
    EXPECT_EQ(refused.number("peer"), 2);
    EXPECT_EQ(other_.ask(std::string("put 3") + kMax).outcome, "NoSpace");
    writer_.must("put 4 1000");
    other_.must("read 4");
    worker_.process().resume();
    worker_.must("recheck 1");
    worker_.must("commit 2");
    other_.must("read 2");
    worker_.must("close");
    close();
}

TEST_F(StoreNamespaces, TheKeyOfADeadWriterIsFree) {
    start_worker();
    ASSERT_NO_FATAL_FAILURE(kill_worker());
    must_promptly(other_, "put 2 1000");
    must_promptly(writer_, "read 2");
    EXPECT_EQ(look().in_use, 0U);
    EXPECT_EQ(look().staged, 0U);
    EXPECT_EQ(look().deaths, 1U);
    close();
}

TEST_F(StoreNamespaces, TheRoomOfADeadWriterAndWhatItHadPinnedIsThereForTheNext) {
    start_worker();
    ASSERT_NO_FATAL_FAILURE(kill_worker());
    must_promptly(other_, "room " + std::to_string((1 << 20) - 64));
    EXPECT_EQ(look().objects, 0U);
    close();
}

TEST_F(StoreNamespaces, WhatWasRemovedGoesWithItsDeadReader) {
    start_worker();
    other_.must("remove 1");
    EXPECT_EQ(look().doomed, 1U);
    ASSERT_NO_FATAL_FAILURE(kill_worker());
    other_.must("clear-dead");
    EXPECT_EQ(look().used_bytes, 0U);
    close();
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    constexpr Role kRoles[] = {{kStoreRole, play_store_actor},
                               {"isolation-probe", play_isolation_probe}};
    if (const auto code = play_role(argc, argv, kRoles)) return *code;
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}

// A tmpfs of 16 MiB that fills up: a request for what is not there is told so and how much there
// is, what was promised stays usable to its last byte, and none dies of a SIGBUS.
#include <gtest/gtest.h>

#include "tests/support/broadcast_actor.hpp"
#include "tests/support/premises.hpp"
#include "tests/support/small_tmpfs.hpp"

namespace penstock::trust {
namespace {

class SmallTmpfs : public SmallTmpfsTest {
protected:
    void start_actors() override {
        writer_ = Actor(kBroadcastRole);
        reader_ = Actor(kBroadcastRole);
    }
    void end_actors() override {
        writer_ = Actor();
        reader_ = Actor();
    }
    [[nodiscard]] std::string segment(const std::string& name = "steps") const {
        return "file:" + path(name);
    }
    void start(std::uint64_t capacity) {
        writer_.must("create " + segment() + " 1 " + std::to_string(capacity) + " " +
                     std::to_string(256 * kMiB) + " raise");
        reader_.must("attach " + segment() + " 0 1000");
    }
    void close() {
        writer_.must("close-writer");
        EXPECT_EQ(reader_.ask("drain 1000").outcome, "Closed");
        reader_.must("close-reader");
    }

    Premises premises_{"tmpfs"};
    Actor writer_;
    Actor reader_;
};

TEST_F(SmallTmpfs, ASegmentThatDoesNotFitIsRefusedInWordsAndLeavesNothing) {
    const std::string big = "create " + segment() + " 1 33554432 0 raise";
    expect_no_space(writer_.ask(big));
    const Filler filler(path("filler"), 2 * kMiB);
    expect_no_space(writer_.ask("create " + segment() + " 1 4194304 0 raise"));
    start(kMiB);  // what fits still goes
    writer_.must("send 1 1000 1000");
    reader_.must("recv 1 1000");
    close();
}

TEST_F(SmallTmpfs, ALargeMessageFailsWithNoSpaceAndASmallOneStillGoes) {
    start(kMiB);
    {
        const Filler filler(path("filler"), 2 * kMiB);
        expect_no_space(writer_.ask("send 1 8388608 1000"));
        writer_.must("send 1 1000 1000");
        EXPECT_EQ(reader_.must("recv 1 1000").number("next"), 1);
        writer_.must("send 1 1048576 1000");  // and a large one that fits
        EXPECT_EQ(reader_.must("recv 1 1000").number("next"), 2);
        expect_no_space(writer_.ask("send 1 8388608 1000"));
    }
    writer_.must("send 1 8388608 1000");  // there is room again
    EXPECT_EQ(reader_.must("recv 1 1000").number("next"), 3);
    close();
}

// Everything that create() promised is there, though the file system has no page left.
TEST_F(SmallTmpfs, WhatWasReservedCanBeWrittenToTheLastByteWhenNothingIsLeft) {
    start(4 * kMiB);
    const Filler filler(path("filler"), 0);
    reader_.tell("recv 50 5000");
    writer_.must("send 50 1000000 5000");  // many times round the ring
    EXPECT_EQ(reader_.answer().number("next"), 50);
    expect_no_space(writer_.ask("send 1 2000000 1000"));
    // Death and replacement need no page either.
    reader_.process().kill();
    ASSERT_TRUE(reader_.process().wait(kPatience).has_value());
    EXPECT_EQ(writer_.ask("send 10 1000000 1000").number("deaths"), 1);
    reader_ = Actor(kBroadcastRole);
    reader_.must("attach " + segment() + " 0 1000");
    writer_.must("send 1 1000000 1000");
    reader_.must("recv 1 1000");
    close();
}

TEST_F(SmallTmpfs, SegmentsUntilNothingIsLeftAndAgainWhenOneIsGone) {
    std::vector<Actor> writers;
    Answer last = ok();
    while (last.is_ok() && writers.size() < 20) {
        writers.emplace_back(kBroadcastRole);
        last = writers.back().ask("create " + segment(std::to_string(writers.size())) +
                                  " 1 2097152 0 raise");
    }
    expect_no_space(last);
    ASSERT_GE(writers.size(), 4U);
    writers.front().must("close-writer");
    writers.front() = Actor();  // with its handle goes its mapping
    writers.back().must("create " + segment("again") + " 1 2097152 0 raise");
    for (std::size_t i = 1; i < writers.size(); ++i) writers[i].must("close-writer");
}

// A reader that holds a block is no reason to wait for ever when memory is what is missing.
TEST_F(SmallTmpfs, WithABlockHeldALargeMessageStillComesToAnEnd) {
    start(kMiB);
    writer_.must("send 1 2097152 1000");
    reader_.must("hold 1000");
    reader_.must("keep 0");
    const Filler filler(path("filler"), kMiB);
    const Answer refused = writer_.ask("send 1 8388608 300");
    EXPECT_TRUE(refused.outcome == "NoSpace" || refused.outcome == "Timeout") << refused.line();
    reader_.must("recheck");
    reader_.must("release 0");
    writer_.must("send 1 2097152 1000");  // into the memory that was given back
    reader_.must("recv 1 1000");
    close();
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    ::signal(SIGPIPE, SIG_IGN);
    constexpr Role kRoles[] = {{kBroadcastRole, play_broadcast_actor}};
    if (const auto code = play_role(argc, argv, kRoles)) return *code;
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}

// A Store on a tmpfs of 16 MiB, of which it may use four times as much: a request for what is not
// there is told so and how much there is, what was committed stays, and none dies of a SIGBUS.
#include <gtest/gtest.h>

#include "tests/support/premises.hpp"
#include "tests/support/small_tmpfs.hpp"
#include "tests/support/store_actor.hpp"

namespace penstock::trust {
namespace {

class StoreOnSmallTmpfs : public SmallTmpfsTest {
protected:
    static constexpr const char* kFour = " 4194304";
    static constexpr const char* kEight = " 8388608";

    void start_actors() override {
        writer_ = Actor(kStoreRole);
        reader_ = Actor(kStoreRole);
    }
    void end_actors() override {
        writer_ = Actor();
        reader_ = Actor();
    }
    [[nodiscard]] std::string segment() const { return "file:" + path("kv"); }
    void start(const std::string& eviction) {
        writer_.must("create " + segment() + " " + std::to_string(64 * kMiB) + " 256 8 " +
                     eviction);
        reader_.must("attach " + segment() + " 1000");
    }
    void close() {
        reader_.must("close");
        writer_.must("clear");
        const StoreStats stats = inspect_store(segment()).stats;
        EXPECT_EQ(stats.used_bytes, 0U);
        EXPECT_EQ(stats.largest_free, stats.capacity);
        writer_.must("close");
    }

    Premises premises_{"storetmpfs"};
    Actor writer_;
    Actor reader_;
};

TEST_F(StoreOnSmallTmpfs, GrowthThatDoesNotFitIsRefusedInWordsAndNothingIsLost) {
    start("none");
    writer_.must(std::string("put 1") + kFour);
    writer_.must(std::string("put 2") + kFour);
    expect_no_space(writer_.ask(std::string("put 3") + kEight));
    EXPECT_EQ(reader_.ask("read 3").outcome, "NotFound");
    reader_.must("read 1");
    reader_.must("read 2");
    EXPECT_EQ(inspect_store(segment()).stats.staged, 0U);
    writer_.must("put 4 1000");  // what fits still goes
    reader_.must("read 4");
    reader_.must("remove 1");
    reader_.must("remove 2");
    writer_.must("put 3 8000000");  // into the memory that there is
    reader_.must("read 3");
    close();
}

TEST_F(StoreOnSmallTmpfs, WhatIsThereCanBeUsedToTheLastByteWhenNothingIsLeft) {
    start("sieve");
    writer_.must(std::string("put 1") + kEight);
    const Filler filler(path("filler"), 0);
    for (unsigned turn = 0; turn < 20; ++turn) {  // into the same memory, again and again
        const std::string number = std::to_string(10 + turn);
        writer_.must("put " + number + " 8000000");
        reader_.must("read " + number);
    }
    reader_.must("get 29");
    expect_no_space(writer_.ask(std::string("put 2") + kFour));
    reader_.must("recheck 29");
    // Death, and an heir, need no page either.
    reader_.process().kill();
    ASSERT_TRUE(reader_.process().wait(kPatience).has_value());
    writer_.must(std::string("put 2") + kFour);
    reader_ = Actor(kStoreRole);
    reader_.must("attach " + segment() + " 1000");
    reader_.must("read 2");
    close();
}

TEST_F(StoreOnSmallTmpfs, AReservationThatCannotGrowIsAsItWas) {
    start("sieve");
    writer_.must(std::string("reserve 1") + kFour);
    {
        const Filler filler(path("filler"), kMiB);
        EXPECT_EQ(writer_.ask(std::string("resize 1") + kEight).outcome, "NoSpace");
        EXPECT_EQ(inspect_store(segment()).stats.staged, 1U);
    }
    writer_.must(std::string("resize 1") + kEight);  // there is room again
    writer_.must("commit 1");
    EXPECT_EQ(reader_.must("read 1").number("bytes"), 8388608);
    close();
}

TEST_F(StoreOnSmallTmpfs, MemoryThatIsGivenBackIsThereForOthers) {
    start("none");
    writer_.must(std::string("put 1") + kEight);
    {
        const Filler filler(path("filler"), 0);
        expect_no_space(writer_.ask(std::string("put 2") + kFour));
    }
    writer_.must("remove 1");
    EXPECT_GE(reader_.must("trim").number("bytes"), 8'000'000);
    {
        const Filler filler(path("filler"), 2 * kMiB);
        expect_no_space(writer_.ask(std::string("put 1") + kEight));
        writer_.must("put 2 1000000");
        reader_.must("read 2");
    }
    writer_.must(std::string("put 1") + kEight);
    reader_.must("read 1");
    close();
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    ::signal(SIGPIPE, SIG_IGN);
    constexpr Role kRoles[] = {{kStoreRole, play_store_actor}};
    if (const auto code = play_role(argc, argv, kRoles)) return *code;
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}

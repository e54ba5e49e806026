// Times in shared memory are right for all readers, also for those in another time namespace.
#include <gtest/gtest.h>

#include <chrono>

#include "os/clock.hpp"
#include "penstock/queue.hpp"
#include "tests/unit/store/store_fixture.hpp"
#include "tests/unit/support/time_namespace.hpp"

namespace penstock {
namespace {

using test::require;
using test::succeeds;

// The parameter scales the offset of the other clock by the machine's uptime: ahead, or, in halves,
// behind, since no clock goes below 0. An expiry by the wrong clock would be over at once or never.
class StoreTimeNamespaceTest : public test::CleanTest, public ::testing::WithParamInterface<int> {
protected:
    void SetUp() override {
        if (uptime_ < 100) GTEST_SKIP() << "the machine has been up for " << uptime_ << " s only";
    }
    [[nodiscard]] long long ahead() const { return uptime_ * GetParam() / 2; }
    [[nodiscard]] ReserveOptions soon() const {
        ReserveOptions options;
        options.expires_after = std::chrono::seconds(uptime_ / 4);
        return options;
    }

    long long uptime_ = os::monotonic_ns() / 1'000'000'000;
    std::string name_ = new_name();
};

TEST_P(StoreTimeNamespaceTest, AReservationExpiresByOneClock) {
    Store store = Store::create(name_, test::small_store());
    Result<StoreReservation> ours = store.reserve("ours", 100, soon());
    ASSERT_TRUE(succeeds(ours));
    const int outcome = test::run_ahead(ahead(), [&] {
        Store there = Store::attach(name_);
        require(there.reserve("ours", 100).code() == ErrorCode::Busy);
        Result<StoreReservation> theirs = there.reserve("theirs", 100, soon());
        require(theirs.is_ok());
        require(test::run_ahead(0, [&] {
                    Store back = Store::attach(name_);
                    require(back.reserve("theirs", 100).code() == ErrorCode::Busy);
                }) == 0);
        require(theirs->commit().is_ok());
    });
    if (outcome == test::kNoTimeNamespaces) GTEST_SKIP() << "no time namespaces here";
    EXPECT_EQ(outcome, 0) << "ahead by " << ahead() << " s";
    EXPECT_TRUE(succeeds(ours->commit()));
    EXPECT_TRUE(store.contains("theirs"));
}

TEST_P(StoreTimeNamespaceTest, AMessageHasOneAgeInAllNamespaces) {
    Queue queue = Queue::create(name_, {.capacity = 4096, .slots = 4, .participants = 4});
    ASSERT_TRUE(succeeds(queue.put({})));
    const int outcome = test::run_ahead(ahead(), [&] {
        Queue there = Queue::attach(name_);
        require(there.stats().oldest < static_cast<double>(uptime_) / 4);
        require(there.put({}).is_ok());
    });
    if (outcome == test::kNoTimeNamespaces) GTEST_SKIP() << "no time namespaces here";
    EXPECT_EQ(outcome, 0) << "ahead by " << ahead() << " s";
    queue.discard();
}

INSTANTIATE_TEST_SUITE_P(Ahead, StoreTimeNamespaceTest, ::testing::Values(200, -1));

}  // namespace
}  // namespace penstock

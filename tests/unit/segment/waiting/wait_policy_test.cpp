// Wait policies: their names, and that the participants of every concept follow the one that the
// segment was created with, and count in its statistics what their waits cost.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "os/processor.hpp"
#include "penstock/broadcast.hpp"
#include "penstock/queue.hpp"
#include "penstock/store.hpp"
#include "penstock/trajectories.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock {
namespace {

using namespace std::chrono_literals;
using test::fails;
using test::refuses;
using test::succeeds;

// A wait that is descheduled while it spins must still have time to sleep.
constexpr auto kLongEnough = 300ms;

TEST(WaitPolicyNames, LeadBackToThePolicy) {
    for (const auto policy : {WaitPolicy::Balanced, WaitPolicy::Latency, WaitPolicy::Frugal}) {
        EXPECT_EQ(parse_wait_policy(std::string(to_string(policy))), policy);
    }
    for (const char* unknown : {"", "Latency", "fast", "balanced "}) {
        EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { parse_wait_policy(unknown); },
                            {"'latency', 'balanced' or 'frugal'"}));
    }
}

class WaitPolicyTest : public test::CleanTest, public ::testing::WithParamInterface<WaitPolicy> {
protected:
    // After that many waits, none of which got what it waited for.
    static void expect_costs(const SegmentStats& stats, std::uint64_t waits) {
        EXPECT_EQ(stats.waiting, GetParam());
        EXPECT_EQ(stats.waits_slept, waits);
        EXPECT_EQ(stats.spins_won, 0U);
        const bool spins =
            waits > 0 && GetParam() != WaitPolicy::Frugal && os::online_processors() > 1;
        EXPECT_EQ(stats.spin_seconds > 0, spins);
    }

    const std::string name_ = new_name();
    const std::vector<std::byte> message_ = std::vector<std::byte>(1024);
};

INSTANTIATE_TEST_SUITE_P(Policies, WaitPolicyTest,
                         ::testing::Values(WaitPolicy::Balanced, WaitPolicy::Latency,
                                           WaitPolicy::Frugal),
                         [](const auto& chosen) { return std::string(to_string(chosen.param)); });

TEST_P(WaitPolicyTest, OfABroadcast) {
    BroadcastOptions options;
    options.capacity = 4096;
    options.waiting = GetParam();
    BroadcastWriter writer = BroadcastWriter::create(name_, options);
    {
        BroadcastReader reader = BroadcastReader::attach(name_, 0);
        expect_costs(reader.stats(), 0);
        EXPECT_TRUE(fails(reader.recv(kLongEnough), ErrorCode::Timeout));
        expect_costs(reader.stats(), 1);
        expect_costs(writer.stats(), 0);
    }
    BroadcastReader reader = BroadcastReader::attach(name_, 0);
    expect_costs(reader.stats(), 0);  // its own
    Status full;
    while (full) full = writer.send(message_, kLongEnough);
    EXPECT_EQ(full.code(), ErrorCode::Timeout);
    expect_costs(writer.stats(), 1);
    expect_costs(inspect_broadcast(name_).stats, 2);
}

TEST_P(WaitPolicyTest, OfAQueue) {
    QueueOptions options;
    options.slots = 4;
    options.waiting = GetParam();
    Queue queue = Queue::create(name_, options);
    Queue other = Queue::attach(name_);
    EXPECT_TRUE(fails(other.take(kLongEnough), ErrorCode::Timeout));
    expect_costs(queue.stats(), 1);
    Status full;
    while (full) full = other.put(message_, kLongEnough);
    EXPECT_EQ(full.code(), ErrorCode::Timeout);
    expect_costs(other.stats(), 2);
    expect_costs(inspect_queue(name_).stats, 2);
    queue.discard();
}

TEST_P(WaitPolicyTest, OfAStore) {
    StoreOptions options;
    options.capacity = 1U << 20U;
    options.waiting = GetParam();
    Store store = Store::create(name_, options);
    Store other = Store::attach(name_);
    EXPECT_TRUE(fails(store.wait("key", kLongEnough), ErrorCode::Timeout));
    EXPECT_TRUE(fails(other.wait("key", kLongEnough), ErrorCode::Timeout));
    expect_costs(store.stats(), 2);
    expect_costs(inspect_store(name_).stats, 2);
}

TEST_P(WaitPolicyTest, OfTrajectories) {
    TrajectoryOptions options;
    options.capacity = 1U << 20U;
    options.waiting = GetParam();
    EnvironmentOptions environment;
    environment.name = "math";
    options.max_staleness = 0;
    TrajectoryReader reader = TrajectoryReader::create(name_, options, 4);
    environment.group_size = 4;
    TrajectoryWriter writer = TrajectoryWriter::attach(name_, environment);
    const Result<Rollout> first = writer.begin(Deadline::now());  // all the credit there is
    ASSERT_TRUE(succeeds(first));
    EXPECT_TRUE(fails(writer.begin(kLongEnough), ErrorCode::Timeout));
    expect_costs(writer.stats().queue, 1);
    EXPECT_TRUE(fails(reader.next_batch({}, kLongEnough), ErrorCode::Timeout));
    const SegmentStats stats = inspect_trajectories(name_).trajectories.queue;
    EXPECT_EQ(stats.waiting, GetParam());
    EXPECT_GE(stats.waits_slept, 2U) << "in line, and for the batch";
}

}  // namespace
}  // namespace penstock

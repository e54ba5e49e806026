// Tables of statistics: the structs that follow from them, and what segments of all concepts count.
#include "penstock/statistics.hpp"

#include <gtest/gtest.h>
#include <signal.h>

#include <set>
#include <string>

#include "penstock/broadcast.hpp"
#include "penstock/queue.hpp"
#include "penstock/store.hpp"
#include "penstock/trajectories.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"

namespace penstock {
namespace {

template <typename Stats>
std::set<std::string> names_of() {
    std::set<std::string> names;
    Stats::for_each([&](const auto& row) {
        EXPECT_TRUE(names.insert(row.name).second) << row.name;
        EXPECT_EQ(std::string(row.help).back(), '.') << row.name;
    });
    return names;
}

TEST(Statistics, EachNameIsInATableOnce) {
    const std::set<std::string> common = names_of<SegmentStats>();
    EXPECT_EQ(common,
              (std::set<std::string>{"reserved_bytes", "huge_page_bytes", "joins", "deaths",
                                     "waiting", "spin_seconds", "spins_won", "waits_slept"}));
    for (const auto& names :
         {names_of<BroadcastStats>(), names_of<QueueStats>(), names_of<StoreStats>()}) {
        for (const std::string& name : common) EXPECT_TRUE(names.contains(name)) << name;
        EXPECT_TRUE(names.contains("capacity"));
    }
    EXPECT_FALSE(names_of<TrajectoryStats>().contains("joins")) << "the queue's have it";
    EXPECT_TRUE(names_of<EnvironmentStats>().contains("waiting_groups"));
}

TEST(Statistics, ARowLeadsToItsMember) {
    QueueStats stats;
    stats.accepted = 3;
    stats.joins = 4;
    double sum = 0;
    QueueStats::for_each([&](const auto& row) { sum += static_cast<double>(stats.*row.member); });
    EXPECT_EQ(sum, 7) << "own rows and those of the base";
}

class JoinsTest : public test::CleanTest {
protected:
    const std::string name_ = new_name();
};

// One leaves, and one dies: neither is forgotten.
template <typename Handle, typename Look>
void expect_joins(const std::string& name, Handle& creator, const Look& look) {
    EXPECT_EQ(creator.stats().joins, 1U);
    {
        Handle other = Handle::attach(name);
        EXPECT_EQ(other.stats().joins, 2U);
    }
    EXPECT_EQ(test::Child([&] {
                  const Handle dying = Handle::attach(name);
                  ::raise(SIGKILL);
              }).wait(),
              test::killed_by(SIGKILL));
    Handle last = Handle::attach(name);
    EXPECT_EQ(last.stats().joins, 4U);
    EXPECT_EQ(creator.stats().joins, 4U);
    EXPECT_EQ(look(name).stats.joins, 4U);
    EXPECT_EQ(look(name).stats.deaths, 1U) << "found by the last, which took its place";
}

TEST_F(JoinsTest, OfAQueue) {
    QueueOptions options;
    options.participants = 2;
    Queue queue = Queue::create(name_, options);
    expect_joins(name_, queue, inspect_queue);
}

TEST_F(JoinsTest, OfAStore) {
    StoreOptions options;
    options.capacity = 1U << 20U;
    options.participants = 2;
    Store store = Store::create(name_, options);
    expect_joins(name_, store, inspect_store);
}

TEST_F(JoinsTest, OfABroadcast) {
    BroadcastWriter writer = BroadcastWriter::create(name_);
    EXPECT_EQ(writer.stats().joins, 1U);
    {
        const BroadcastReader reader = BroadcastReader::attach(name_, 0);
        EXPECT_EQ(reader.stats().joins, 2U);
    }
    const BroadcastReader again = BroadcastReader::attach(name_, 0);
    EXPECT_EQ(writer.stats().joins, 3U);
    EXPECT_EQ(inspect_broadcast(name_).stats.joins, 3U);
    EXPECT_EQ(writer.stats().deaths, 0U);
}

}  // namespace
}  // namespace penstock

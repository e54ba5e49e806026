// A cluster of three masters: keys go to the master of their slot, also when slots move.
#include <gtest/gtest.h>

#include <array>
#include <memory>

#include "remote/slots.hpp"
#include "tests/unit/remote/tier_fixture.hpp"

namespace penstock {
namespace {

using namespace test;
using detail::kSlots;
using detail::slot_of;

class ClusterTest : public CleanTest {
protected:
    static constexpr unsigned kMasters = 3;

    void SetUp() override {
        PENSTOCK_NEEDS_SERVER();
        for (auto& node : nodes_) {
            node = make_node();
        }
        for (unsigned i = 0; i < kMasters; ++i) give_slots(i);
        for (unsigned i = 1; i < kMasters; ++i) {
            node(0).say({"CLUSTER", "MEET", "127.0.0.1", port(i)});
        }
        for (unsigned i = 0; i < kMasters; ++i) {
            await([&] { return node(i).say({"CLUSTER", "SLOTS"}).elements.size() == kMasters; });
            await([&] { return info(i).find("cluster_state:ok") != std::string::npos; });
        }
    }
    void TearDown() override {
        for (auto& node : nodes_) node.reset();
        CleanTest::TearDown();
    }

    static std::unique_ptr<RedisServer> make_node() {
        return std::make_unique<RedisServer>(
            free_port(),
            Words{"--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
                  "--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"});
    }
    [[nodiscard]] RedisServer& node(unsigned i) const { return *nodes_[i]; }
    [[nodiscard]] std::string port(unsigned i) const {
        return std::to_string(node(i).endpoint().port);
    }
    [[nodiscard]] std::string info(unsigned i) const {
        return node(i).say({"CLUSTER", "INFO"}).text;
    }
    [[nodiscard]] std::string id(unsigned i) const { return node(i).say({"CLUSTER", "MYID"}).text; }

    // The slots of one third, one argument each: older servers know no ranges.
    void give_slots(unsigned i) const {
        Words words{"CLUSTER", "ADDSLOTS"};
        for (unsigned slot = i * kSlots / kMasters; slot < (i + 1) * kSlots / kMasters; ++slot) {
            words.push_back(std::to_string(slot));
        }
        node(i).say({"CLUSTER", "SET-CONFIG-EPOCH", std::to_string(i + 1)});
        node(i).say(words);
    }
    static unsigned home_of(const std::string& name) { return slot_of(name) * kMasters / kSlots; }

    // A store that knows one master at first.
    [[nodiscard]] Store make_machine(unsigned start = 0) const {
        SecondTierOptions options;
        options.urls = {"redis+cluster://127.0.0.1:" + port(start)};
        options.policy = TierPolicy::WriteThrough;
        options.part_bytes = 200'000;
        options.connect_timeout = kLong;
        options.request_timeout = kLong;
        options.retry_first = std::chrono::milliseconds(1);
        options.retry_most = std::chrono::milliseconds(20);
        return TierTest::make_machine(options);
    }
    // A number whose head belongs to master `home`.
    static std::uint64_t number_at(unsigned home) {
        std::uint64_t number = 0;
        while (home_of(head_of(number)) != home) ++number;
        return number;
    }
    // Begins to move a slot, as redis-cli does, up to the announcement of its new owner.
    void begin_migration(unsigned slot, unsigned from, unsigned to) const {
        node(to).say({"CLUSTER", "SETSLOT", std::to_string(slot), "IMPORTING", id(from)});
        node(from).say({"CLUSTER", "SETSLOT", std::to_string(slot), "MIGRATING", id(to)});
    }
    void move_key(const std::string& name, unsigned from, unsigned to) const {
        EXPECT_EQ(node(from).say({"MIGRATE", "127.0.0.1", port(to), name, "0", "5000"}).text, "OK");
    }
    void end_migration(unsigned slot, unsigned from, unsigned to) const {
        const std::string target = id(to);
        node(to).say({"CLUSTER", "SETSLOT", std::to_string(slot), "NODE", target});
        node(from).say({"CLUSTER", "SETSLOT", std::to_string(slot), "NODE", target});
    }

private:
    std::array<std::unique_ptr<RedisServer>, kMasters> nodes_;
};

TEST_F(ClusterTest, KeysGoWhereTheirSlotsAreAndComeBack) {
    Store here = make_machine(0);
    Store there = make_machine(2);
    constexpr std::uint64_t kObjects = 60;
    for (std::uint64_t i = 0; i < kObjects; ++i) ASSERT_TRUE(succeeds(put(here, i)));
    ASSERT_TRUE(succeeds(put(here, 1000, 200'000)));  // its part has another slot
    for (std::uint64_t i = 0; i < kObjects; ++i) EXPECT_TRUE(has(there, i));
    EXPECT_TRUE(has(there, 1000, 200'000));
    EXPECT_EQ(tier_stats(there).servers, kMasters);
    EXPECT_EQ(tier_stats(here).errors + tier_stats(there).errors, 0U);
    for (unsigned i = 0; i < kMasters; ++i) {
        const Words names = node(i).keys();
        EXPECT_FALSE(names.empty());
        for (const std::string& name : names) EXPECT_EQ(home_of(name), i) << name;
        // The slot map was right from the start: no call was redirected.
        EXPECT_EQ(node(i).say({"INFO", "errorstats"}).text.find("MOVED"), std::string::npos);
    }
    EXPECT_TRUE(succeeds(there.remove(key_of(1000))));
    Store late = make_machine(1);
    EXPECT_TRUE(fails(late.get(key_of(1000)), ErrorCode::NotFound));
}

TEST_F(ClusterTest, ASlotThatMovesIsFollowed) {
    Store here = make_machine();
    const std::uint64_t number = number_at(0);
    const std::string name = head_of(number);
    const unsigned slot = slot_of(name);
    ASSERT_TRUE(succeeds(put(here, number)));

    begin_migration(slot, 0, 1);
    Store early = make_machine();
    EXPECT_TRUE(has(early, number)) << "still where it was";
    move_key(name, 0, 1);
    Store asking = make_machine();
    EXPECT_TRUE(has(asking, number)) << "by ASK";
    Store late = make_machine();  // has the map from before the move
    end_migration(slot, 0, 1);
    EXPECT_TRUE(has(late, number)) << "by MOVED";
    EXPECT_EQ(tier_stats(asking).errors + tier_stats(late).errors, 0U);

    ASSERT_TRUE(succeeds(here.remove(key_of(number))));
    EXPECT_TRUE(node(1).keys(name).empty());
    ASSERT_TRUE(succeeds(put(here, number)));
    EXPECT_EQ(node(1).keys(name), Words{name});
    EXPECT_EQ(tier_stats(here).errors, 0U);
}

TEST_F(ClusterTest, AMissingMasterAffectsOnlyItsOwnKeys) {
    Store here = make_machine();
    std::array<std::uint64_t, kMasters> numbers{};
    for (unsigned i = 0; i < kMasters; ++i) {
        numbers[i] = number_at(i);
        ASSERT_TRUE(succeeds(put(here, numbers[i])));
    }
    Store there = make_machine();
    node(1).kill();
    EXPECT_TRUE(fails(there.get(key_of(numbers[1])), ErrorCode::NotFound));
    EXPECT_EQ(tier_stats(there).circuit, CircuitState::Partial);
    EXPECT_TRUE(has(there, numbers[0]));
    EXPECT_TRUE(has(there, numbers[2]));
    EXPECT_TRUE(fails(here.remove(key_of(numbers[1])), ErrorCode::PeerDied));
    EXPECT_TRUE(succeeds(here.remove(key_of(numbers[2]))));
}

TEST_F(ClusterTest, TheSuccessorOfADeadMasterIsFound) {
    Store here = make_machine();
    const std::uint64_t number = number_at(0);
    ASSERT_TRUE(succeeds(put(here, number)));
    const auto replica = make_node();
    replica->say({"CLUSTER", "MEET", "127.0.0.1", port(0)});
    await([&] { return replica->say({"CLUSTER", "REPLICATE", id(0)}).text == "OK"; });
    await([&] { return replica->say({"DBSIZE"}).integer == 1; });
    const std::string name = replica->say({"CLUSTER", "MYID"}).text;
    for (unsigned i = 1; i < kMasters; ++i) {
        await([&] {
            const std::string known = node(i).say({"CLUSTER", "NODES"}).text;
            return known.find(name) != std::string::npos &&
                   known.find("slave " + id(0)) != std::string::npos;
        });
    }
    Store there = make_machine(1);  // has the map from before the takeover
    node(0).kill();
    // While no master is due for a retry, the others may still be asked for the slots.
    EXPECT_TRUE(fails(there.get(key_of(number)), ErrorCode::NotFound));
    EXPECT_EQ(replica->say({"CLUSTER", "FAILOVER", "TAKEOVER"}).text, "OK");
    await([&] { return there.get(key_of(number)).is_ok(); });
    EXPECT_TRUE(has(there, number));
    EXPECT_EQ(tier_stats(there).servers, kMasters + 1);
}

TEST_F(ClusterTest, WithoutTheOptionTheErrorNamesIt) {
    SecondTierOptions options;
    options.urls = {node(0).url()};
    options.policy = TierPolicy::WriteThrough;
    Store store = TierTest::make_machine(options);
    EXPECT_TRUE(fails(put(store, number_at(1)), ErrorCode::System, {"cluster", "MOVED"}));
    EXPECT_EQ(tier_stats(store).circuit, CircuitState::Closed);
}

}  // namespace
}  // namespace penstock

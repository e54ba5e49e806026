// Sentinels: the master is found through them, and again after a failover.
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "tests/unit/remote/tier_fixture.hpp"

namespace penstock {
namespace {

using namespace test;

class SentinelTest : public CleanTest {
protected:
    void SetUp() override {
        PENSTOCK_NEEDS_SERVER();
        folder_.emplace();
        master_ = std::make_unique<RedisServer>(free_port(), Words{"--requirepass", "secret"});
        sentinel_.host = "127.0.0.1";
        sentinel_.port = free_port();
    }
    void TearDown() override {
        child_.reset();
        folder_.reset();
        master_.reset();
        CleanTest::TearDown();
    }

    static std::string port_of(const RedisServer& server) {
        return std::to_string(server.endpoint().port);
    }
    void start_sentinel() {
        const std::string path = folder_->path() + "/sentinel.conf";
        std::ofstream(path) << "port " << sentinel_.port << "\nbind 127.0.0.1\nlogfile "
                            << folder_->path() + "/log" << "\ndir " << folder_->path()
                            << "\nsentinel monitor kv 127.0.0.1 " << port_of(*master_)
                            << " 1\nsentinel auth-pass kv secret"
                               "\nsentinel down-after-milliseconds kv 300"
                               "\nsentinel failover-timeout kv 2000\n";
        child_ = std::make_unique<Child>([path] {
            become({find_server(), path, "--sentinel"});
            require(false);
        });
        await([this] { return ask(sentinel_, {"PING"}).is_answered(); });
    }
    [[nodiscard]] SecondTierOptions options() const {
        SecondTierOptions options;
        options.urls = {"redis+sentinel://:secret@127.0.0.1:" + std::to_string(sentinel_.port) +
                        "/kv"};
        options.policy = TierPolicy::WriteThrough;
        options.connect_timeout = kLong;
        options.request_timeout = kLong;
        options.retry_first = std::chrono::milliseconds(1);
        options.retry_most = std::chrono::milliseconds(20);
        return options;
    }

    std::optional<TemporaryFolder> folder_;
    std::unique_ptr<RedisServer> master_;
    detail::Endpoint sentinel_;
    std::unique_ptr<Child> child_;
};

TEST_F(SentinelTest, TheMasterIsFoundAlsoWhenTheSentinelComesLate) {
    Store store = TierTest::make_machine(options());
    EXPECT_EQ(tier_stats(store).circuit, CircuitState::Open);
    EXPECT_TRUE(lacks(store, 1));
    EXPECT_EQ(tier_stats(store).skipped, 1U);
    start_sentinel();
    await([&] { return tier_stats(store).circuit == CircuitState::Closed; });
    ASSERT_TRUE(succeeds(put(store, 1)));
    EXPECT_EQ(tier_stats(store).servers, 1U);
    Store there = TierTest::make_machine(options());
    EXPECT_TRUE(has(there, 1));
    EXPECT_EQ(there.keys(), Words{key_of(1)});
}

TEST_F(SentinelTest, AServiceThatNoSentinelKnowsIsAnOutage) {
    start_sentinel();
    SecondTierOptions wanted = options();
    wanted.urls.front() += 'x';
    Store store = TierTest::make_machine(wanted);
    EXPECT_EQ(tier_stats(store).circuit, CircuitState::Open);
    EXPECT_NE(tier_stats(store).last_error.find("no master of 'kvx'"), std::string::npos);
}

TEST_F(SentinelTest, AfterAFailoverTheOtherIsAsked) {
    RedisServer replica(free_port(), {"--requirepass", "secret", "--masterauth", "secret",
                                      "--replicaof", "127.0.0.1 " + port_of(*master_)});
    start_sentinel();
    Store store = TierTest::make_machine(options());
    ASSERT_TRUE(succeeds(put(store, 1)));
    const auto info = [&](const Words& words) { return ask(sentinel_, words).reply; };
    await([&] { return !info({"SENTINEL", "REPLICAS", "kv"}).elements.empty(); });
    detail::Endpoint known = replica.endpoint();
    known.password = "secret";
    await([&] { return ask(known, {"EXISTS", head_of(1)}).reply.integer == 1; });
    master_->kill();
    await([&] {
        static_cast<void>(store.remove(key_of(2)));
        return put(store, 2).is_ok();
    });
    EXPECT_EQ(ask(known, {"EXISTS", head_of(2)}).reply.integer, 1);
    Store there = TierTest::make_machine(options());
    EXPECT_TRUE(has(there, 1));
    EXPECT_TRUE(has(there, 2));
}

}  // namespace
}  // namespace penstock

// Hostile servers: every invalid answer is a miss, and has no other effect.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "remote/value_format.hpp"
#include "tests/unit/remote/impostor.hpp"
#include "tests/unit/remote/tier_fixture.hpp"

namespace penstock {
namespace {

using namespace test;

class HostileServerTest : public CleanTest {
protected:
    void SetUp() override {
        if (!detail::has_redis()) GTEST_SKIP() << "this build is without hiredis";
    }
    // The statistics after a look-up that got this answer.
    TierStats read(const Impostor::Answer& answer) {
        Impostor server(answer);
        SecondTierOptions options;
        options.urls = {"unix:" + server.path()};
        options.request_timeout = kLong;
        Store store = TierTest::make_machine(options);
        EXPECT_TRUE(fails(store.get("key"), ErrorCode::NotFound));
        EXPECT_FALSE(store.contains("key"));
        EXPECT_EQ(store.stats().staged, 0U);
        return tier_stats(store);
    }
    TierStats read(const std::string& answer) {
        SCOPED_TRACE("answer: " + ::testing::PrintToString(answer.substr(0, 60)));
        return read([&](const std::string&) { return answer; });
    }
};

TEST_F(HostileServerTest, AnAnswerOutsideTheProtocolIsAnError) {
    const std::vector<std::string> answers = {
        "",
        "\r\n",
        "garbage\r\n",
        std::string(1000, '\0'),
        "$",
        "$\r\n",
        "$x\r\n",
        "$-5\r\n",
        "$5\r\nab",
        "$3\r\nabc\r\nmore",
        "$-1\r\n$-1\r\n",
        "$99999999999999999999\r\n",
        "$" + std::string(100, '9'),
        "$" + std::string(40, '0') + "3\r\nabc\r\n",
        ":5\r\n",
        ":x\r\n",
        "+OK\r\n",
        "-\r\n",
        "-LOADING the data\r\n",
        "*0\r\n",
        "*-1\r\n",
        "*-2\r\n",
        "*2147483647\r\n",
        "*4294967297\r\n",
        "*262144\r\n*262144\r\n*262144\r\n",
        "*2\r\n$1\r\na\r\n",
        "-MOVED\r\n",
        "-MOVED 1 127.0.0.1:1\r\n",
        "-ASK 1 127.0.0.1:1\r\n",
        "-MOVED 99999 127.0.0.1:1\r\n",
        "+" + std::string(std::size_t{20} << 20U, 'a'),
    };
    for (const std::string& answer : answers) {
        const TierStats stats = read(answer);
        EXPECT_GT(stats.errors, 0U);
        EXPECT_EQ(stats.hits + stats.corrupt + stats.timeouts, 0U);
    }
    std::string nested;
    for (int i = 0; i < 100; ++i) nested += "*1\r\n";
    EXPECT_GT(read(nested).errors, 0U);
}

TEST_F(HostileServerTest, AValueOfImpossibleSizeIsDamageAndIsNotFetched) {
    EXPECT_EQ(read("$9223372036854775807\r\n").corrupt, 1U);
    EXPECT_EQ(read("$" + std::to_string(detail::kHeadMost + 1) + "\r\nxx").corrupt, 1U);
}

TEST_F(HostileServerTest, AServersErrorIsQuotedShortAndPrintable) {
    const std::string last =
        read("-ERR \x1b[2J\xff" + std::string(100'000, 'a') + "\r\n").last_error;
    EXPECT_NE(last.find("ERR \\x1b[2J\\xffaaa"), std::string::npos) << last;
    EXPECT_LT(last.size(), 400U);
}

TEST_F(HostileServerTest, AWriteCountsOnlyIfTheServerSaysOk) {
    for (const char* const answer :
         {"+QUEUED\r\n", "+\r\n", ":1\r\n", "$2\r\nOK\r\n", "*0\r\n", "$-1\r\n"}) {
        SCOPED_TRACE(answer);
        Impostor server([&](const std::string&) { return std::string(answer); });
        SecondTierOptions options;
        options.urls = {"unix:" + server.path()};
        options.policy = TierPolicy::WriteThrough;
        options.request_timeout = kLong;
        Store store = TierTest::make_machine(options);
        EXPECT_TRUE(fails(store.put("key", make_value(1, 100)), ErrorCode::System));
        EXPECT_EQ(tier_stats(store).written, 0U);
        EXPECT_EQ(tier_stats(store).dropped, 1U);
    }
}

TEST_F(HostileServerTest, RandomBytesAreAMiss) {
    trust::Dice dice(20'261'125);
    for (int round = 0; round < 200; ++round) {
        const std::string kinds = "$*+-:x";
        std::string answer(1, kinds[dice.next() % kinds.size()]);
        const std::uint64_t size = dice.between(0, 60);
        const std::string letters = "0123456789\r\n\r\n$*+-:MOVEDASK ";
        for (std::uint64_t i = 0; i < size; ++i) answer += letters[dice.next() % letters.size()];
        EXPECT_EQ(read(answer).hits, 0U);
    }
}

// A well-formed head whose sizes are false.
TEST_F(HostileServerTest, AHeadWithImpossibleSizesIsDamage) {
    const auto with = [](std::uint64_t nbytes, std::uint64_t part_bytes) {
        detail::ValueHead head;
        head.nbytes = nbytes;
        head.part_bytes = part_bytes;
        return bulk(detail::encode_head(head, {}, "key"));
    };
    EXPECT_EQ(read(with(~std::uint64_t{0}, 0)).corrupt, 1U);
    EXPECT_EQ(read(with(100, 0)).corrupt, 1U);
    EXPECT_EQ(read(with(100'000, 1)).corrupt, 1U);
    EXPECT_EQ(read(with(100'000, ~std::uint64_t{0})).corrupt, 1U);
    EXPECT_EQ(read(with(~std::uint64_t{0}, detail::kPartLeast)).corrupt, 1U);
    EXPECT_EQ(read(with(1, detail::kPartLeast)).corrupt, 1U);
}

detail::ValueHead head_with(std::uint64_t nbytes, std::uint64_t part_bytes) {
    detail::ValueHead head;
    head.nbytes = nbytes;
    head.part_bytes = part_bytes;
    return head;
}

// State of a full first tier of 1 MiB after a look-up of "key", with answers by the kind of
// request.
struct Aftermath {
    TierStats tier;
    StoreStats first;
    unsigned parts_asked = 0;
};
class FullTierTest : public HostileServerTest {
protected:
    static Aftermath look_up_when_full(const detail::ValueHead& head, const std::string& exists,
                                       const std::string& part) {
        Aftermath after;
        Impostor server([&](const std::string& request) {
            if (request.find("o:key") != std::string::npos) {
                return bulk(detail::encode_head(head, {}, "key"));
            }
            if (request.find("EXISTS") != std::string::npos) return exists;
            ++after.parts_asked;
            return part;
        });
        SecondTierOptions options;
        options.urls = {"unix:" + server.path()};
        options.policy = TierPolicy::ReadOnly;
        options.request_timeout = kLong;
        Store store = TierTest::make_machine(options, 1 << 20U);
        for (std::uint64_t i = 0; i < 15; ++i) {
            EXPECT_TRUE(succeeds(store.put(key_of(i), make_value(i, 60'000))));
        }
        EXPECT_TRUE(fails(store.get("key"), ErrorCode::NotFound));
        after.tier = tier_stats(store);
        after.first = store.stats();
        return after;
    }
};

TEST_F(FullTierTest, AHeadWithoutItsPartsEvictsNothing) {
    struct Case {
        std::uint64_t part_bytes;
        std::string exists;
        std::string part;
    };
    const std::vector<Case> cases = {
        {1 << 20U, ":1\r\n", "$-1\r\n"},
        {1 << 20U, ":1\r\n", "$5\r\nshort\r\n"},
        {1 << 20U, ":1\r\n", "$9223372036854775807\r\n"},
        {1 << 20U, ":1\r\n", "*3\r\n$-1\r\n$-1\r\n$-1\r\n"},
        {1 << 20U, ":1\r\n", ""},
        {200'000, ":4\r\n", "$-1\r\n"},  // claims parts that it lacks
        {200'000, ":3\r\n", "$200000\r\n" + std::string(200'000, 'x') + "\r\n"},
        {200'000, ":-1\r\n", "$-1\r\n"},
        {200'000, ":9223372036854775807\r\n", "$-1\r\n"},
        {200'000, "$-1\r\n", "$-1\r\n"},
        {200'000, "-ERR no\r\n", "$-1\r\n"},
    };
    for (const Case& one : cases) {
        SCOPED_TRACE(one.exists + one.part.substr(0, 20));
        const Aftermath after =
            look_up_when_full(head_with(900'000, one.part_bytes), one.exists, one.part);
        EXPECT_EQ(after.first.evicted, 0U);
        EXPECT_EQ(after.first.objects, 15U);
        EXPECT_EQ(after.tier.hits + after.tier.timeouts, 0U);
        EXPECT_GT(after.tier.misses + after.tier.errors, 0U);
    }
}

TEST_F(FullTierTest, AHeadLargerThanTheFirstTierIsAMissAndNoneOfItIsFetched) {
    for (const std::uint64_t nbytes : {std::uint64_t{1} << 30U, std::uint64_t{1} << 49U}) {
        const Aftermath after =
            look_up_when_full(head_with(nbytes, detail::kPartMost), ":0\r\n", "$-1\r\n");
        EXPECT_EQ(after.tier.no_room, 1U);
        EXPECT_EQ(after.tier.misses, 0U);
        EXPECT_EQ(after.parts_asked, 0U);
        EXPECT_EQ(after.first.evicted, 0U);
    }
    const Aftermath fits_barely =
        look_up_when_full(head_with(1 << 20U, 1 << 20U), ":0\r\n",
                          "$1048576\r\n" + std::string(1 << 20U, 'x') + "\r\n");
    EXPECT_EQ(fits_barely.tier.no_room, 1U) << "its key and header need room too";
    EXPECT_EQ(fits_barely.first.evicted, 0U);
}

TEST_F(HostileServerTest, SlowPartsShareOneDeadline) {
    constexpr std::uint64_t kParts = 200;
    std::atomic<unsigned> parts_asked = 0;
    Impostor server([&](const std::string& request) -> std::string {
        if (request.find("o:key") != std::string::npos) {
            return bulk(detail::encode_head(head_with(kParts * 4096, 4096), {}, "key"));
        }
        if (request.find("EXISTS") != std::string::npos) return ":199\r\n";
        ++parts_asked;
        std::this_thread::sleep_for(std::chrono::milliseconds(100));  // the delay of this server
        return bulk(std::string(4096, 'x'));
    });
    SecondTierOptions options;
    options.urls = {"unix:" + server.path()};
    options.request_timeout = std::chrono::seconds(1);
    Store store = TierTest::make_machine(options);
    EXPECT_TRUE(fails(store.get("key"), ErrorCode::NotFound));
    EXPECT_EQ(tier_stats(store).timeouts, 1U);
    EXPECT_LT(parts_asked.load(), kParts / 2);
    EXPECT_EQ(store.stats().staged, 0U);
}

TEST_F(HostileServerTest, PartsOfAnotherTypeAreAMiss) {
    detail::ValueHead head;
    head.nbytes = 100'000;
    head.part_bytes = std::uint64_t{1} << 20U;
    const std::string sound = bulk(detail::encode_head(head, {}, "key"));
    const auto with = [&](const std::string& part) {
        return read([&, part](const std::string& request) {
            return request.find("o:key") != std::string::npos ? sound : part;
        });
    };
    EXPECT_EQ(with(bulk(std::string(100'000, 'x'))).corrupt, 1U) << "the checksum";
    EXPECT_EQ(with(bulk(std::string(99'999, 'x'))).corrupt, 1U);
    EXPECT_EQ(with("$100000\r\nshort").corrupt, 0U);
    EXPECT_GT(with("$100000\r\n" + std::string(100'000, 'x') + "XX").errors, 0U);
    EXPECT_GT(with(":1\r\n").errors, 0U);
    EXPECT_EQ(with("$-1\r\n").misses, 1U);
}

}  // namespace
}  // namespace penstock

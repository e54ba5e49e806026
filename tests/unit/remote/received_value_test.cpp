// Values on their way from a server into shared memory: split and cut anywhere, longer or shorter
// than announced, damaged in every region. What is not whole and intact is never seen, and its room
// is given back.
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "remote/value_format.hpp"
#include "tests/unit/remote/impostor.hpp"
#include "tests/unit/remote/tier_fixture.hpp"

namespace penstock {
namespace {

using namespace test;

constexpr std::uint64_t kNumber = 7;
constexpr std::size_t kMeta = 5;

std::string text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Object kNumber as a writer stores it: a head with its data, if it may lie there.
struct Stored {
    explicit Stored(std::size_t size, std::uint64_t part_bytes = 0, std::size_t meta_bytes = kMeta)
        : data(make_value(kNumber, size)), meta(make_value(kNumber, meta_bytes)) {
        head.nbytes = size;
        head.part_bytes = part_bytes;
        head.checksum = detail::checksum_of(data);
        value = detail::encode_head(head, meta, key_of(kNumber));
        if (head.is_inline()) value += text_of(data);
        if (head.is_sealed()) value += text_of(detail::seal_of(head.checksum));
    }

    // What a server answers that has it.
    [[nodiscard]] std::string answer(const std::string& request) const {
        if (request.find("o:key") != std::string::npos) return bulk(value);
        if (request.find("EXISTS") != std::string::npos) {
            return ":" + std::to_string(head.parts() - 1) + "\r\n";
        }
        for (std::uint64_t part = 0; part < head.parts(); ++part) {
            const std::string name = detail::part_name("", key_of(kNumber), head, part);
            if (request.find(name) == std::string::npos) continue;
            return bulk(text_of(head.part(std::span<const std::byte>(data), part)));
        }
        return "-ERR it is not asked for that\r\n";
    }

    std::vector<std::byte> data;
    std::vector<std::byte> meta;
    detail::ValueHead head;
    std::string value;
};

class ReceivedValueTest : public CleanTest {
protected:
    void SetUp() override {
        if (!detail::has_redis()) GTEST_SKIP() << "this build is without hiredis";
    }

    static Store reader_of(const Impostor& server) {
        SecondTierOptions options;
        options.urls = {"unix:" + server.path()};
        options.policy = TierPolicy::ReadOnly;
        options.request_timeout = kLong;
        return TierTest::make_machine(options);
    }
    static void arrives(const Stored& stored, std::size_t split) {
        SCOPED_TRACE("split after " + std::to_string(split) + " bytes");
        Impostor server([&](const std::string& request) { return stored.answer(request); }, split);
        Store store = reader_of(server);
        Result<StoreObject> object = store.get(key_of(kNumber));
        ASSERT_TRUE(succeeds(object));
        EXPECT_TRUE(is_value(object->bytes(), kNumber, stored.data.size()));
        EXPECT_TRUE(is_value(object->meta(), kNumber, stored.meta.size()));
        EXPECT_EQ(tier_stats(store).hits, 1U);
    }
    // Statistics of a look-up that got these answers; the first tier is as it was before.
    static TierStats misses(const Impostor::Answer& answer) {
        Impostor server(answer);
        Store store = reader_of(server);
        const StoreStats before = store.stats();
        EXPECT_TRUE(fails(store.get(key_of(kNumber)), ErrorCode::NotFound));
        const StoreStats after = store.stats();
        EXPECT_EQ(after.free_bytes, before.free_bytes);
        EXPECT_EQ(after.staged, 0U);
        EXPECT_EQ(after.objects, 0U);
        EXPECT_EQ(after.committed, 0U);
        return *after.second_tier;
    }
    static TierStats misses(const std::string& answer) {
        return misses([&](const std::string&) { return answer; });
    }
};

// The sizes of the ways that a head takes: whole in the connection's buffer, inline or sealed, and
// with its data straight into shared memory.
const std::vector<std::size_t> kSizes = {40, 70'000, 300'000};

// Ends of the regions of an answer, and their neighbours.
std::vector<std::size_t> borders_of(const Stored& stored) {
    const std::string answer = bulk(stored.value);
    const std::size_t line = answer.find('\n') + 1;
    const std::size_t data = line + detail::kValueHeader + stored.meta.size();
    const std::size_t seal = data + stored.data.size();
    std::vector<std::size_t> borders;
    for (const std::size_t border : {std::size_t{1}, line, line + detail::kValueHeader, data,
                                     std::size_t{8} << 10U, seal, answer.size() - 2}) {
        for (const std::size_t at : {border - 1, border, border + 1}) {
            if (at > 0 && at < answer.size()) borders.push_back(at);
        }
    }
    return borders;
}

TEST_F(ReceivedValueTest, AnAnswerMayBeSplitAtEveryByte) {
    const Stored small(40);
    for (std::size_t at = 0; at < bulk(small.value).size(); ++at) arrives(small, at);
}

TEST_F(ReceivedValueTest, AValueOfAnySizeMayBeSplit) {
    for (const std::size_t size : kSizes) {
        const Stored stored(size);
        for (const std::size_t at : borders_of(stored)) arrives(stored, at);
    }
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{65'536},
                                   std::size_t{65'537}, std::size_t{1} << 20U}) {
        arrives(Stored(size), size / 2);
    }
}

TEST_F(ReceivedValueTest, PartsMayBeSplit) {
    const Stored stored(300'000, 100'000);
    for (const std::size_t at : {1U, 7U, 8U, 9U, 32U, 33U, 50'000U, 100'008U, 100'009U}) {
        arrives(stored, at);
    }
}

TEST_F(ReceivedValueTest, MetadataMayBeLongerThanWhatIsLookedAt) {
    for (const std::size_t size : kSizes) {
        for (const std::size_t meta : {std::size_t{10'000}, std::size_t{200'000}}) {
            arrives(Stored(size, 0, meta), 9000);
        }
    }
    arrives(Stored(300'000, 100'000, 200'000), 9000);
}

TEST_F(ReceivedValueTest, AConnectionThatEndsWithinAValueLeavesNothing) {
    for (const std::size_t size : kSizes) {
        const Stored stored(size);
        for (const std::size_t at : borders_of(stored)) {
            SCOPED_TRACE("cut after " + std::to_string(at) + " bytes of " + std::to_string(size));
            EXPECT_GT(misses(bulk(stored.value).substr(0, at)).errors, 0U);
        }
    }
}

bool is_for_second_part(const std::string& request) {
    return request.find("GET") != std::string::npos && request.find(":1:key") != std::string::npos;
}

TEST_F(ReceivedValueTest, AConnectionThatEndsWithinAPartLeavesNothing) {
    const Stored stored(300'000, 100'000);
    for (const std::size_t at : {1U, 9U, 50'000U, 100'009U, 100'010U}) {
        const TierStats stats = misses([&](const std::string& request) {
            const std::string answer = stored.answer(request);
            return is_for_second_part(request) ? answer.substr(0, at) : answer;
        });
        EXPECT_GT(stats.errors, 0U) << at;
    }
}

TEST_F(ReceivedValueTest, AnErrorBetweenPartsLeavesNothing) {
    const Stored stored(300'000, 100'000);
    const TierStats stats = misses([&](const std::string& request) {
        return is_for_second_part(request) ? "-ERR not now\r\n" : stored.answer(request);
    });
    EXPECT_EQ(stats.errors, 1U);
    EXPECT_NE(stats.last_error.find("not now"), std::string::npos) << stats.last_error;
}

TEST_F(ReceivedValueTest, AValueOfAnotherLengthThanAnnouncedIsAMiss) {
    for (const std::size_t size : kSizes) {
        SCOPED_TRACE(size);
        const std::string value = Stored(size).value;
        const auto announced = [](std::size_t bytes) {
            return "$" + std::to_string(bytes) + "\r\n";
        };
        EXPECT_EQ(misses(announced(value.size() - 1) + value.substr(1) + "\r\n").hits, 0U);
        EXPECT_EQ(misses(bulk(value.substr(0, value.size() - 1))).corrupt, 1U);
        EXPECT_EQ(misses(bulk(value + "x")).corrupt, 1U);
        EXPECT_GT(misses(announced(value.size()) + value + "x\r\n").errors, 0U) << "longer";
        EXPECT_GT(
            misses(announced(value.size()) + value.substr(0, value.size() - 1) + "\r\n").errors, 0U)
            << "shorter";
    }
}

TEST_F(ReceivedValueTest, EveryRegionOfAValueIsGuarded) {
    for (const std::size_t size : kSizes) {
        const Stored stored(size);
        const std::size_t data = detail::kValueHeader + stored.meta.size();
        for (const std::size_t at : {std::size_t{0}, detail::kValueHeader - 1, data - 1, data,
                                     data + size / 2, data + size - 1, stored.value.size() - 1}) {
            SCOPED_TRACE("byte " + std::to_string(at) + " of " + std::to_string(size));
            std::string damaged = stored.value;
            damaged[at] = static_cast<char>(damaged[at] ^ 0x20);
            EXPECT_EQ(misses(bulk(damaged)).corrupt, 1U);
        }
    }
}

TEST_F(ReceivedValueTest, LengthsThatNoWriterMakesAreRefusedInWords) {
    for (const char* const length : {"2147483649", "4294967297", "9223372036854775807"}) {
        const std::string answer = "$" + std::string(length) + "\r\nabc";
        const TierStats stats = misses(answer);
        EXPECT_EQ(stats.corrupt, 1U) << length;
        EXPECT_NE(stats.last_error.find("longer than any"), std::string::npos) << stats.last_error;
        const Stored stored(300'000, 300'000);
        const TierStats of_part = misses([&](const std::string& request) {
            return request.find("o:key") != std::string::npos ? bulk(stored.value) : answer;
        });
        EXPECT_EQ(of_part.corrupt, 1U) << length;
        EXPECT_NE(of_part.last_error.find("another length"), std::string::npos)
            << of_part.last_error;
    }
}

TEST_F(ReceivedValueTest, AValueLargerThanTheFirstTierIsAMiss) {
    const TierStats stats = misses(bulk(Stored(std::size_t{5} << 20U).value));
    EXPECT_EQ(stats.no_room, 1U);
    EXPECT_EQ(stats.misses, 0U);
    EXPECT_EQ(stats.errors, 0U);
}

// The line of a length has an end, even if it arrives in pieces.
TEST_F(ReceivedValueTest, ALengthWithoutEndIsAnError) {
    std::string answer = "$" + std::string(60, '0') + "3\r\nabc\r\n";
    for (const std::size_t split : {31U, 32U, 33U, 50U}) {
        Impostor server([&](const std::string&) { return answer; }, split);
        Store store = reader_of(server);
        EXPECT_TRUE(fails(store.get(key_of(kNumber)), ErrorCode::NotFound));
        EXPECT_GT(tier_stats(store).errors, 0U);
        EXPECT_NE(tier_stats(store).last_error.find("length"), std::string::npos);
    }
}

// The room of a first attempt, whose connection ended within the value, is given back when the
// second attempt finds another value.
TEST_F(ReceivedValueTest, AnotherAttemptMayFindAnotherValue) {
    const Stored first(300'000);
    const Stored second(200'000);
    std::atomic<unsigned> asked = 0;
    Impostor server([&](const std::string&) {
        return asked++ == 0 ? bulk(first.value).substr(0, 250'000) : bulk(second.value);
    });
    Store store = reader_of(server);  // its trial leaves a connection, which is used first
    EXPECT_TRUE(has(store, kNumber, 200'000));
    EXPECT_EQ(asked.load(), 2U);
    EXPECT_EQ(store.stats().staged, 0U);
    EXPECT_EQ(tier_stats(store).errors, 0U);
}

// ---- with a real server

using SealedTest = TierTest;

TEST_F(SealedTest, AnObjectOfUpTo16MebibytesTakesOneRequest) {
    SecondTierOptions wanted = options();
    wanted.part_bytes = std::uint64_t{64} << 20U;
    Store here = make_machine(wanted, std::uint64_t{64} << 20U);
    Store there = make_machine(wanted, std::uint64_t{64} << 20U);
    for (const std::size_t size : {std::size_t{65'537}, std::size_t{131'072},
                                   static_cast<std::size_t>(detail::kSealedMost)}) {
        const std::uint64_t set = server_->calls("set");
        const std::uint64_t asked = server_->calls("get");
        ASSERT_TRUE(succeeds(put(here, size, size)));
        EXPECT_EQ(there.look(key_of(size)).nbytes, size);
        EXPECT_TRUE(has(there, size, size));
        EXPECT_EQ(server_->calls("set"), set + 1) << size;
        EXPECT_EQ(server_->calls("get"), asked + 1) << size;
    }
    EXPECT_TRUE(server_->keys("penstock:p:").empty());
    ASSERT_TRUE(succeeds(put(here, 1, detail::kSealedMost + 1)));
    EXPECT_EQ(server_->keys("penstock:p:").size(), 1U);
    EXPECT_TRUE(has(there, 1, detail::kSealedMost + 1));
}

// A head that would be longer than a part may be is divided.
TEST_F(SealedTest, AHeadIsNoLongerThanAPart) {
    SecondTierOptions wanted = options();
    wanted.part_bytes = 100'000;
    Store here = make_machine(wanted);
    const std::size_t most = 100'000 - detail::kValueHeader - detail::kSealBytes;
    ASSERT_TRUE(succeeds(put(here, 1, most)));
    EXPECT_TRUE(server_->keys("penstock:p:").empty());
    ASSERT_TRUE(succeeds(put(here, 2, most + 1)));
    EXPECT_EQ(server_->keys("penstock:p:").size(), 1U);
}

TEST_F(SealedTest, LooksAndRemovalsDoNotFetchTheData) {
    SecondTierOptions wanted = options();
    wanted.part_bytes = std::uint64_t{64} << 20U;
    Store here = make_machine(wanted);
    Store there = make_machine(wanted);
    ASSERT_TRUE(succeeds(put(here, 1, 1'000'000)));
    const std::uint64_t asked = server_->calls("get");
    EXPECT_EQ(there.look(key_of(1)).state, StoreLook::State::Remote);
    EXPECT_EQ(there.look(key_of(1)).nbytes, 1'000'000U);
    EXPECT_TRUE(there.touch(key_of(1)));
    EXPECT_TRUE(succeeds(there.remove(key_of(1))));
    EXPECT_TRUE(server_->keys().empty());
    EXPECT_EQ(server_->calls("get"), asked);
    // Metadata beyond what such a call asks for first.
    const std::vector<std::byte> meta = make_value(2, 100'000);
    ReserveOptions with_meta;
    with_meta.meta = meta;
    ASSERT_TRUE(succeeds(put(here, 2, 500'000, with_meta)));
    EXPECT_EQ(there.look(key_of(2)).nbytes, 500'000U);
    EXPECT_TRUE(has(there, 2, 500'000));
    EXPECT_TRUE(succeeds(there.remove(key_of(2))));
    EXPECT_TRUE(server_->keys().empty());
}

// The server takes nothing for a while: the socket is full within the value.
TEST_F(SealedTest, AWriteGoesOnWhereTheSocketWasFull) {
    SecondTierOptions wanted = options();
    wanted.part_bytes = std::uint64_t{64} << 20U;
    Store there = make_machine(wanted, std::uint64_t{16} << 20U);
    for (const std::size_t size : {std::size_t{1'000'000}, std::size_t{3'000'000}}) {
        Store here = make_machine(wanted, std::uint64_t{16} << 20U);
        server_->stop();
        std::thread writer([&] { EXPECT_TRUE(succeeds(put(here, size, size))); });
        await([&] { return first_of(here).contains(key_of(size)); });
        server_->resume();
        writer.join();
        EXPECT_TRUE(has(there, size, size));
    }
}

}  // namespace
}  // namespace penstock

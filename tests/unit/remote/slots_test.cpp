// Slots of keys, checked against the cluster specification, and redirections.
#include "remote/slots.hpp"

#include <gtest/gtest.h>

namespace penstock::detail {
namespace {

TEST(SlotsTest, ASlotIsTheCrcOfTheKeyOrItsTag) {
    EXPECT_EQ(slot_of("123456789"), 0x31C3U % kSlots);  // the specification's own example
    EXPECT_EQ(slot_of(""), 0U);
    EXPECT_EQ(slot_of("foo"), 12182U);
    EXPECT_EQ(slot_of("{user1000}.following"), slot_of("user1000"));
    EXPECT_EQ(slot_of("foo{bar}{zap}"), slot_of("bar"));
    EXPECT_EQ(slot_of("foo{{bar}}zap"), slot_of("{bar"));
    // An empty or unclosed tag: the whole key counts.
    EXPECT_NE(slot_of("foo{}{bar}"), slot_of("bar"));
    EXPECT_NE(slot_of("foo{}{bar}"), slot_of("foo"));
    EXPECT_NE(slot_of("foo{bar"), slot_of("bar"));
}

TEST(SlotsTest, ARedirectionIsUnderstood) {
    const auto moved = parse_redirect("MOVED 3999 127.0.0.1:6381");
    ASSERT_TRUE(moved);
    EXPECT_FALSE(moved->is_ask);
    EXPECT_EQ(moved->slot, 3999U);
    EXPECT_EQ(moved->host, "127.0.0.1");
    EXPECT_EQ(moved->port, 6381);
    const auto ask = parse_redirect("ASK 0 ::1:6381");
    ASSERT_TRUE(ask);
    EXPECT_TRUE(ask->is_ask);
    EXPECT_EQ(ask->host, "::1");
    const auto same_host = parse_redirect("MOVED 1 :6381");
    ASSERT_TRUE(same_host);
    EXPECT_TRUE(same_host->host.empty());
}

TEST(SlotsTest, OtherErrorsAreNoRedirection) {
    for (const char* error :
         {"", "MOVED", "MOVED 1", "MOVED 1 host", "MOVED 1 host:", "MOVED 1 host:x",
          "MOVED 1 host:65536", "MOVED 16384 host:1", "MOVED -1 host:1", "MOVED x host:1",
          "moved 1 host:1", "ERR MOVED 1 host:1", "WRONGTYPE 1 host:1"}) {
        EXPECT_FALSE(parse_redirect(error)) << error;
    }
}

}  // namespace
}  // namespace penstock::detail

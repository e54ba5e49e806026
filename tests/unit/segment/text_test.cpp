// Text from other processes: cut at characters, checked for UTF-8, and shown without control
// characters.
#include "segment/text.hpp"

#include <gtest/gtest.h>

#include <string>

namespace penstock::detail {
namespace {

using namespace std::string_literals;

TEST(TextTest, IsCutAtCharacters) {
    EXPECT_EQ(cut("worker.py", 63), "worker.py");
    EXPECT_EQ(cut("worker", 3), "wor");
    const std::string umlaut = std::string(62, 'x') + "\xc3\xa9";
    EXPECT_EQ(cut(umlaut, 64), umlaut);
    EXPECT_EQ(cut(umlaut, 63), std::string(62, 'x')) << "half a character is none";
    EXPECT_EQ(cut("ab\xf0\x9f\x8c\x8a", 5), "ab");
    EXPECT_EQ(cut("\xc3\xa9", 1), "");
    EXPECT_EQ(cut("\xc3\xa9", 0), "");
}

TEST(TextTest, IsCutAnywhereWhereItIsNoUtf8) {
    EXPECT_EQ(cut(std::string(100, '\x80'), 63).size(), 63U);
    EXPECT_EQ(cut(std::string(100, '\xff'), 63).size(), 63U);
}

TEST(TextTest, TellsUtf8) {
    for (const std::string& text :
         {""s, "plain"s, "\xc3\xa9"s, "\xe6\x95\xb0"s, "\xf0\x9f\x8c\x8a"s, "\xef\xbf\xbd"s,
          "\xf4\x8f\xbf\xbf"s, "a\0b"s}) {
        EXPECT_TRUE(is_utf8(text)) << printable(text);
    }
    for (const std::string& text :
         {"\xff"s, "\x80"s, "\xc3"s, "a\xc3"s, "\xc3("s, "\xc0\xaf"s, "\xe0\x80\xaf"s,
          "\xed\xa0\x80"s, "\xf4\x90\x80\x80"s, "\xf8\x88\x80\x80\x80"s, "\xe6\x95"s}) {
        EXPECT_FALSE(is_utf8(text)) << printable(text);
    }
}

TEST(TextTest, IsPrintable) {
    EXPECT_EQ(printable("a b \xc3\xa9 \xe6\x95\xb0\xe5\xad\xa6 \xf0\x9f\x8c\x8a"),
              "a b \xc3\xa9 \xe6\x95\xb0\xe5\xad\xa6 \xf0\x9f\x8c\x8a");
    EXPECT_EQ(printable("\x1b[2J\r\n\t\x7f"), "\\x1b[2J\\x0d\\x0a\\x09\\x7f");
    EXPECT_EQ(printable("a\0b"s), "a\\x00b");
    EXPECT_EQ(printable("\xc2\x9b"), "\\u009b") << "CSI of eight bits";
    EXPECT_EQ(printable("\xe2\x80\xae"
                        "gpj.exe"),
              "\\u202egpj.exe");
    EXPECT_EQ(printable("\xe2\x81\xa6"), "\\u2066");
    EXPECT_EQ(printable("\xe2\x80\x8b\xe2\x80\xa8\xef\xbb\xbf"), "\\u200b\\u2028\\ufeff");
    EXPECT_EQ(printable("\xf3\xa0\x80\x81"), "\\U000e0001");
    EXPECT_EQ(printable("a\xff\xc3"), "a\\xff\\xc3") << "bytes that are no UTF-8";
    EXPECT_EQ(printable("\xc0\x9b"), "\\xc0\\x9b") << "nor does a longer form hide one";
}

TEST(TextTest, FindsWhatANameMayNotHold) {
    EXPECT_EQ(find_unprintable("a b \xc3\xa9 \xe6\x95\xb0"), "");
    EXPECT_EQ(find_unprintable("\xff"), "");
    EXPECT_EQ(find_unprintable("man\xe2\x80\x8d\xe2\x80\x8c"), "") << "joiners belong to words";
    EXPECT_EQ(find_unprintable("a\nb\x1b"), "\\x0a");
    EXPECT_EQ(find_unprintable("a\xe2\x80\xae"), "\\u202e");
}

}  // namespace
}  // namespace penstock::detail

// Names: the rule, its limits, and an error message for each violation.
#include "segment/life/name.hpp"

#include <gtest/gtest.h>

#include <string>

#include "tests/unit/support/verdict.hpp"

namespace penstock::detail {
namespace {

using test::Parts;
using test::refuses;
using namespace std::string_literals;

TEST(NameTest, LeadsToAFileInSharedMemory) {
    for (const std::string& name :
         {"a"s, "steps"s, "Steps-2.b_c"s, "."s, ".."s, "-"s, "0"s, std::string(200, 'x')}) {
        const Location location = locate(name);
        EXPECT_EQ(location.name, name);
        EXPECT_EQ(location.path, "/dev/shm/penstock." + name);
        EXPECT_EQ(location.directory, "/dev/shm");
    }
}

TEST(NameTest, APathLeadsToThatFile) {
    const Location location = locate("file:/srv/shared/steps");
    EXPECT_EQ(location.name, "file:/srv/shared/steps");
    EXPECT_EQ(location.path, "/srv/shared/steps");
    EXPECT_EQ(location.directory, "/srv/shared");
    EXPECT_EQ(locate("file:/steps").directory, "/");
    EXPECT_EQ(locate("file:/a b/\xc3\xa4").path, "/a b/\xc3\xa4") << "paths may hold any letter";
    EXPECT_EQ(locate("file:/" + std::string(194, 'x')).name.size(), 200U);
}

struct BadName {
    const char* label;
    std::string name;
    std::string reason;
};

void PrintTo(const BadName& bad, std::ostream* out) {
    *out << bad.label;
}

class BadNameTest : public ::testing::TestWithParam<BadName> {};

TEST_P(BadNameTest, IsRefusedWithTheRule) {
    const auto& [label, name, reason] = GetParam();
    EXPECT_TRUE(
        refuses(ErrorCode::InvalidName, [&bad = name] { locate(bad); },
                {reason, "1 to 200 of the characters A-Z a-z 0-9 . _ -", "file:/absolute/path"}));
}

INSTANTIATE_TEST_SUITE_P(
    NameTest, BadNameTest,
    ::testing::Values(
        BadName{"Empty", "", "it is empty"},
        BadName{"TooLong", std::string(201, 'x'), "longer than 200 characters"},
        BadName{"Slash", "a/b", "it holds '/'"},
        BadName{"Climbing", "../etc/passwd", "it holds '/'"},
        BadName{"Blank", "a b", "it holds ' '"}, BadName{"Colon", "a:b", "it holds ':'"},
        BadName{"Star", "*", "it holds '*'"},
        BadName{"NewLine", "a\nb", "the name 'a\\x0ab' can't be used: it holds '\\x0a'"},
        BadName{"ZeroByte", "a\0b"s, "it holds '\\x00'"},
        BadName{"Umlaut", "\xc3\xa4", "it holds '\\xc3'"},
        BadName{"BareFile", "file:", "absolute path"},
        BadName{"FileRoot", "file:/", "absolute path"},
        BadName{"FileRelative", "file:steps", "absolute path"},
        BadName{"FileFolder", "file:/srv/", "absolute path"},
        BadName{"FileEscape", "file:/srv/\x1b[2J", "format character '\\x1b'"},
        BadName{"FileNewLine", "file:/srv/a\nb", "format character '\\x0a'"},
        BadName{"FileRightToLeft",
                "file:/srv/\xe2\x80\xae"
                "a",
                "format character '\\u202e'"},
        BadName{"FileZeroByte", "file:/srv/a\0b"s, "zero byte"},
        BadName{"FileTooLong", "file:/" + std::string(195, 'x'), "longer than 200 characters"}),
    [](const auto& chosen) { return std::string(chosen.param.label); });

TEST(NameTest, IsQuotedInMessages) {
    EXPECT_EQ(quoted("steps"), "'steps'");
    EXPECT_EQ(quoted(""), "an anonymous segment");
}

}  // namespace
}  // namespace penstock::detail

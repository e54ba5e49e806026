// The application name of a queue, from a word that any process may write.
#include <gtest/gtest.h>

#include <cstdint>
#include <initializer_list>
#include <string>

#include "queue/control.hpp"

namespace penstock::detail {
namespace {

TEST(ApplicationTest, ApplicationsAreNamed) {
    EXPECT_EQ(application_text(0), "plain messages");
    EXPECT_EQ(application_text(application_word("trajecto")), "groups of trajectories");
    const std::uint64_t ring = application_word("AT") | (std::uint64_t{512} << 32U);
    EXPECT_EQ(application_text(ring), "single trajectories (a ZeroCopySHMBuffer)");
    EXPECT_EQ(application_text(application_word("mine")), "the application 'mine'");
    EXPECT_EQ(application_text(application_word("eightlet")), "the application 'eightlet'");
}

// Bytes other than letters must not reach a terminal.
TEST(ApplicationTest, AByteThatIsNoLetterEndsTheName) {
    const auto word = [](std::initializer_list<unsigned> bytes) {
        std::uint64_t sum = 0;
        unsigned shift = 0;
        for (const unsigned byte : bytes) {
            sum |= std::uint64_t{byte} << shift;
            shift += 8;
        }
        return sum;
    };
    EXPECT_EQ(application_text(word({'a', 'b', 7, 'c'})), "the application 'ab'");
    EXPECT_EQ(application_text(word({'a', 0, 'c'})), "the application 'a'");
    EXPECT_EQ(application_text(word({'a', 0x7F})), "the application 'a'");
    EXPECT_EQ(application_text(word({0x1B, '[', '2', 'J'})), "an unknown application");
    EXPECT_EQ(application_text(word({0, 0, 0, 0, 0, 0, 0, 9})), "an unknown application");
    for (std::uint64_t byte = 1; byte < 256; ++byte) {
        for (const char letter : application_text(byte * 0x0101010101010101U)) {
            EXPECT_TRUE(letter >= ' ' && letter < 0x7F) << byte;
        }
    }
}

}  // namespace
}  // namespace penstock::detail

// Deaths: as words in shared memory, which anything may have written, and as sentences.
#include "segment/life/death.hpp"

#include <gtest/gtest.h>
#include <signal.h>

#include <cstdint>
#include <string>

#include "segment/layout.hpp"

namespace penstock::detail {
namespace {

using How = os::ProcessEnd::How;
using Why = os::ProcessEnd::Why;

constexpr std::uint32_t kLargestPid = (1U << 22U) - 1;

DeathNote exited(std::uint8_t code) {
    return {1, 4711, {How::Exited, code, Why::Gone}};
}
DeathNote killed(std::uint8_t signal) {
    return {1, 4711, {How::Killed, signal, Why::Gone}};
}
DeathNote unknown(Why why) {
    return {1, 4711, {How::Unknown, 0, why}};
}

void expect_same(const DeathNote& one, const DeathNote& other) {
    EXPECT_EQ(one.join, other.join);
    EXPECT_EQ(one.pid, other.pid);
    EXPECT_EQ(one.end, other.end);
}

TEST(DeathTest, FitsIntoAWord) {
    for (const DeathNote& end : {exited(0), exited(255), killed(9), killed(64), unknown(Why::Gone),
                                 unknown(Why::Elsewhere), unknown(Why::Hidden),
                                 unknown(Why::Running), unknown(Why::Unsupported)}) {
        for (const std::uint32_t join : {1U, 77U, ~0U}) {
            for (const std::uint32_t pid : {0U, 1U, kLargestPid}) {
                const DeathNote note{join, pid, end.end};
                expect_same(decode_death(encode_death(note)), note);
            }
        }
    }
    EXPECT_EQ(decode_death(encode_death({1, kLargestPid + 1, {}})).pid, 0U);
    expect_same(decode_death(0), {});
}

// The words are those of docs/layout.md.
TEST(DeathTest, HasItsPlacesInTheWord) {
    EXPECT_EQ(encode_death({0x12345678, 0x3ABCDE, {How::Killed, 9, Why::Gone}}),
              0x12345678'EAF37A09U);
    EXPECT_EQ(encode_death({1, 0, {How::Exited, 3, Why::Gone}}), 0x1'00000103U);
}

TEST(DeathTest, EveryWordIsADeath) {
    std::uint64_t word = 1;
    for (int i = 0; i < 100'000; ++i) {
        word = word * 6364136223846793005U + 1442695040888963407U;
        const DeathNote note = decode_death(word);
        EXPECT_LE(note.pid, kLargestPid);
        EXPECT_FALSE(note.summary().empty());
        expect_same(decode_death(encode_death(note)), note);
    }
}

TEST(DeathTest, ALaterOneAndABetterKnownOneReplaceANote) {
    const auto of = [](DeathNote note, std::uint32_t join) {
        note.join = join;
        return note;
    };
    const DeathNote known = killed(9);
    const DeathNote vague = unknown(Why::Gone);
    EXPECT_TRUE(DeathNote{}.is_outdone_by(vague));
    EXPECT_TRUE(vague.is_outdone_by(known));
    EXPECT_FALSE(known.is_outdone_by(vague));
    EXPECT_FALSE(known.is_outdone_by(exited(3))) << "the first stays";
    EXPECT_FALSE(vague.is_outdone_by(unknown(Why::Hidden)));
    EXPECT_TRUE(known.is_outdone_by(of(vague, 2)));
    EXPECT_FALSE(of(vague, 2).is_outdone_by(known));
    EXPECT_TRUE(of(known, ~0U).is_outdone_by(of(vague, 0))) << "join numbers wrap";
    EXPECT_FALSE(of(known, 0).is_outdone_by(of(vague, ~0U)));
}

TEST(DeathTest, BelongsToAJoinNumber) {
    EXPECT_TRUE(killed(9).is_of(1));
    EXPECT_TRUE(killed(9).is_of((std::uint64_t{1} << 32U) + 1));
    EXPECT_FALSE(killed(9).is_of(2));
    EXPECT_FALSE(DeathNote{}.is_of(1));
}

TEST(DeathTest, IsSaidInWords) {
    EXPECT_EQ(killed(9).predicate(), "was killed by signal 9 (SIGKILL)");
    EXPECT_EQ(killed(9).summary(), "killed by signal 9 (SIGKILL)");
    EXPECT_EQ(killed(9).doubt(), "");
    const auto real_time = static_cast<std::uint8_t>(SIGRTMIN);
    EXPECT_EQ(killed(real_time).summary(), "killed by signal " + std::to_string(SIGRTMIN));
    EXPECT_EQ(exited(3).predicate(), "ended with exit code 3 without closing");
    EXPECT_EQ(exited(3).summary(), exited(3).predicate());
    EXPECT_EQ(exited(3).doubt(), "");
    for (const Why why : {Why::Gone, Why::Elsewhere, Why::Hidden, Why::Running, Why::Unsupported}) {
        const DeathNote note = unknown(why);
        EXPECT_EQ(note.predicate(), "died");
        EXPECT_EQ(note.doubt(), "; " + note.summary());
        EXPECT_EQ(note.summary().find("how it ended is not known here: "), 0U);
    }
}

TEST(DeathTest, IsGivenInFields) {
    EXPECT_EQ(killed(9).death().pid, 4711U);
    EXPECT_EQ(killed(9).death().signal, 9);
    EXPECT_FALSE(killed(9).death().exit_code.has_value());
    EXPECT_EQ(exited(0).death().exit_code, 0);
    EXPECT_FALSE(exited(0).death().signal.has_value());
    const Death nothing = DeathNote{}.death();
    EXPECT_FALSE(nothing.pid || nothing.exit_code || nothing.signal);
}

}  // namespace
}  // namespace penstock::detail

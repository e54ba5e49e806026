// The batch former against a search of all subsets.
#include "trajectories/former.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <random>

namespace penstock::detail {
namespace {

struct Mix {
    std::vector<Candidate> candidates;
    std::uint64_t sequences = 0;
    std::vector<std::uint64_t> minima;
};

// The first exact fill by age, from all subsets: with the oldest candidate as the highest bit it is
// the largest number.
std::vector<std::uint32_t> brute_force(const Mix& mix) {
    const std::size_t count = mix.candidates.size();
    for (std::uint64_t set = std::uint64_t{1} << count; set-- > 0;) {
        std::uint64_t sum = 0;
        std::vector<std::uint64_t> of(mix.minima.size());
        std::vector<std::uint32_t> chosen;
        for (std::size_t at = 0; at < count; ++at) {
            if ((set >> (count - 1 - at) & 1U) == 0) continue;
            sum += mix.candidates[at].sequences;
            of[mix.candidates[at].share] += mix.candidates[at].sequences;
            chosen.push_back(static_cast<std::uint32_t>(at));
        }
        if (sum != mix.sequences) continue;
        bool is_fair = true;
        for (std::size_t s = 0; s < of.size(); ++s) is_fair = is_fair && of[s] >= mix.minima[s];
        if (is_fair) return chosen;
    }
    return {};
}

Mix random_mix(std::mt19937& random) {
    const auto upto = [&](unsigned most) {
        return std::uniform_int_distribution<unsigned>(0, most)(random);
    };
    Mix mix;
    mix.sequences = 1 + upto(upto(3) == 0 ? 150 : 24);
    const unsigned shares = upto(3);
    mix.minima.assign(1, 0);
    for (unsigned s = 0; s < shares; ++s)
        mix.minima.push_back(upto(static_cast<unsigned>(mix.sequences / shares)));
    const unsigned most = 1 + upto(upto(1) == 0 ? 7 : 40);
    for (unsigned i = upto(11); i > 0; --i)
        mix.candidates.push_back({1 + upto(most - 1), upto(shares)});
    return mix;
}

TEST(FormerTest, AgreesWithBruteForceOnTenThousandMixes) {
    std::mt19937 random(20'260'101);
    unsigned filled = 0;
    unsigned not_the_oldest = 0;
    for (int round = 0; round < 10'000; ++round) {
        const Mix mix = random_mix(random);
        const std::vector<std::uint32_t> expected = brute_force(mix);
        std::vector<std::uint32_t> chosen = {99};
        const bool found = form_batch(mix.candidates, mix.sequences, mix.minima, chosen);
        ASSERT_EQ(found, !expected.empty()) << "round " << round;
        if (!found) continue;
        ASSERT_EQ(chosen, expected) << "round " << round;
        ++filled;
        if (chosen.back() + 1 != chosen.size()) ++not_the_oldest;
    }
    // The mixes are useful: many can be filled, and many of those not by the oldest groups.
    EXPECT_GT(filled, 2'000U);
    EXPECT_GT(not_the_oldest, 500U);
}

TEST(FormerTest, FillsWithGroupsOfAnySize) {
    std::vector<Candidate> candidates(100, Candidate{3, 0});
    candidates.insert(candidates.begin(), Candidate{8, 0});
    const std::vector<std::uint64_t> none = {0};
    std::vector<std::uint32_t> chosen;
    EXPECT_TRUE(form_batch(candidates, 8, none, chosen));
    EXPECT_EQ(chosen, std::vector<std::uint32_t>{0});
    EXPECT_TRUE(form_batch(candidates, 11, none, chosen));
    EXPECT_EQ(chosen, (std::vector<std::uint32_t>{0, 1}));
    EXPECT_FALSE(form_batch(std::span(candidates).subspan(1), 8, none, chosen));
    EXPECT_TRUE(form_batch(std::vector<Candidate>{{6, 0}, {16, 0}, {6, 0}}, 12, none, chosen));
    EXPECT_EQ(chosen, (std::vector<std::uint32_t>{0, 2}));
}

TEST(FormerTest, IsQuickWithManyCandidates) {
    std::vector<Candidate> candidates;
    for (unsigned i = 0; i < 4096; ++i) candidates.push_back({1 + i * 7 % 23, i % 4});
    const std::vector<std::uint64_t> minima = {0, 300, 200, 100};
    std::vector<std::uint32_t> chosen;
    ASSERT_TRUE(form_batch(candidates, 1024, minima, chosen));
    std::vector<std::uint64_t> of(4);
    std::uint64_t sum = 0;
    for (const std::uint32_t at : chosen) {
        of[candidates[at].share] += candidates[at].sequences;
        sum += candidates[at].sequences;
    }
    EXPECT_EQ(sum, 1024U);
    for (std::size_t s = 0; s < of.size(); ++s) EXPECT_GE(of[s], minima[s]);
}

}  // namespace
}  // namespace penstock::detail

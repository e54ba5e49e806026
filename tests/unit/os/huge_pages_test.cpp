// Counting huge pages of a file: exactly what was put into them, at no cost of memory or life.
#include "os/huge_pages.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <system_error>

#include "os/pages.hpp"
#include "os/shared_file.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/huge_pages.hpp"

namespace penstock::os {
namespace {

using test::require;

std::uint64_t huge(std::uint64_t count) {
    return count * huge_page_size();
}

SharedFile make_file(std::uint64_t size) {
    std::error_code error;
    SharedFile file = SharedFile::create_anonymous("penstock-test", error);
    require(!error && !file.set_size(size));
    return file;
}

Mapping map_all(const SharedFile& file, std::uint64_t size) {
    std::error_code error;
    Mapping mapping = Mapping::map(file, 0, size, Mapping::Access::ReadWrite, error);
    require(!error);
    return mapping;
}

std::uint64_t reserved(const SharedFile& file) {
    std::error_code error;
    return file.facts(error).reserved;
}

TEST(HugePagesTest, CountsWhatWasCollapsed) {
    PENSTOCK_NEEDS_HUGE_PAGES();
    SharedFile file = make_file(huge(4));
    ASSERT_FALSE(file.reserve(0, huge(4)));
    Mapping mapping = map_all(file, huge(4));
    std::memset(mapping.data(), 7, huge(4));
    EXPECT_EQ(bytes_in_huge_pages(file, 0, huge(4)), 0U);
    ASSERT_FALSE(mapping.collapse(huge(1), huge(2)));
    EXPECT_EQ(bytes_in_huge_pages(file, 0, huge(4)), huge(2));
    EXPECT_EQ(bytes_in_huge_pages(file, huge(2), huge(2)), huge(1));
    EXPECT_EQ(mapping.data()[huge(2) - 1], std::byte{7}) << "and the bytes stay";
}

TEST(HugePagesTest, CountsWholePagesWithinTheRangeOnly) {
    PENSTOCK_NEEDS_HUGE_PAGES();
    SharedFile file = make_file(huge(3));
    ASSERT_FALSE(file.reserve(0, huge(3)));
    ASSERT_FALSE(map_all(file, huge(3)).collapse(0, huge(3)));
    EXPECT_EQ(bytes_in_huge_pages(file, 0, huge(3)), huge(3));
    EXPECT_EQ(bytes_in_huge_pages(file, page_size(), huge(2)), huge(1));
    EXPECT_EQ(bytes_in_huge_pages(file, page_size(), huge(1)), 0U);
    EXPECT_EQ(bytes_in_huge_pages(file, 0, 0), 0U);
}

TEST(HugePagesTest, APunchedHoleEndsAHugePage) {
    PENSTOCK_NEEDS_HUGE_PAGES();
    SharedFile file = make_file(huge(2));
    ASSERT_FALSE(file.reserve(0, huge(2)));
    ASSERT_FALSE(map_all(file, huge(2)).collapse(0, huge(2)));
    ASSERT_FALSE(file.punch(huge(1) + 16 * page_size(), page_size()));
    EXPECT_EQ(bytes_in_huge_pages(file, 0, huge(2)), huge(1));
    EXPECT_EQ(reserved(file), huge(2) - page_size()) << "and looking does not fill it";
}

TEST(HugePagesTest, LookingTakesNoMemory) {
    SharedFile file = make_file(huge(600));
    ASSERT_FALSE(file.reserve(huge(1), page_size()));
    EXPECT_EQ(bytes_in_huge_pages(file, 0, huge(600)), 0U);
    EXPECT_EQ(reserved(file), page_size());
}

TEST(HugePagesTest, OfALongRangeTheShareIsEstimated) {
    PENSTOCK_NEEDS_HUGE_PAGES();
    constexpr std::uint64_t kPages = 384;  // three for each place that is looked at
    SharedFile file = make_file(huge(kPages));
    for (const std::uint64_t at : {huge(0), huge(1), huge(2), huge(3)}) {
        ASSERT_FALSE(file.reserve(at, page_size()));
    }
    ASSERT_FALSE(map_all(file, huge(4)).collapse(0, huge(4)));
    EXPECT_EQ(bytes_in_huge_pages(file, 0, huge(kPages)), huge(6)) << "2 of 128 places";
}

// Another user may have cut its file short.
TEST(HugePagesTest, BytesBehindTheEndAreNotThere) {
    SharedFile file = make_file(page_size());
    ASSERT_FALSE(file.reserve(0, page_size()));
    EXPECT_EQ(bytes_in_huge_pages(file, 0, huge(2)), 0U);
    EXPECT_EQ(bytes_in_huge_pages(SharedFile(), 0, huge(2)), 0U) << "nor of no file";
}

// A file without any page there is not made larger, and memory for the rest of a page is taken.
TEST(HugePagesTest, CollapsingFillsHolesBesideAPage) {
    PENSTOCK_NEEDS_HUGE_PAGES();
    SharedFile file = make_file(huge(2));
    Mapping mapping = map_all(file, huge(2));
    EXPECT_EQ(mapping.collapse(0, huge(2)), std::errc::invalid_argument);
    EXPECT_EQ(reserved(file), 0U);
    ASSERT_FALSE(file.reserve(huge(1), page_size()));
    EXPECT_FALSE(mapping.collapse(huge(1), huge(1)));
    EXPECT_EQ(reserved(file), huge(1));
}

}  // namespace
}  // namespace penstock::os

// Mappings: access rights, and which processes do not see them.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>

#include "os/shared_file.hpp"
#include "tests/support/tier.hpp"
#include "tests/unit/support/child.hpp"

namespace penstock::os {
namespace {

using test::Child;
using test::killed_by;
using test::require;
using test::Shared;
using Access = Mapping::Access;

const std::uint64_t kSize = 8 * page_size();

SharedFile make_file() {
    std::error_code error;
    SharedFile file = SharedFile::create_anonymous("penstock-test", error);
    require(!error && !file.set_size(kSize) && !file.reserve(0, kSize));
    return file;
}

Mapping map(const SharedFile& file, Access access, std::uint64_t offset = 0,
            std::uint64_t size = kSize) {
    std::error_code error = std::make_error_code(std::errc::io_error);
    Mapping mapping = Mapping::map(file, offset, size, access, error);
    require(!error);
    return mapping;
}

bool is_mapped(const std::byte* address) {
    return ::msync(const_cast<std::byte*>(address), page_size(), MS_ASYNC) == 0;
}

// A value of the mapping's entry in /proc/self/smaps, surrounded by blanks.
std::string smaps_value(const std::byte* address, const std::string& key) {
    std::ostringstream start;
    start << std::hex << reinterpret_cast<std::uintptr_t>(address) << '-';
    std::ifstream file("/proc/self/smaps");
    std::string line;
    while (std::getline(file, line) && !line.starts_with(start.str())) {
    }
    while (std::getline(file, line)) {
        if (line.starts_with(key + ":")) return line.substr(key.size() + 1) + " ";
    }
    return {};
}

TEST(MappingTest, AllHandlesSeeTheSameBytes) {
    const SharedFile file = make_file();
    const Mapping writer = map(file, Access::ReadWrite);
    const Mapping reader = map(file, Access::Read);
    EXPECT_EQ(writer.size(), kSize);
    EXPECT_NE(writer.data(), reader.data());
    std::memcpy(writer.data() + 5000, "hello", 5);
    EXPECT_EQ(std::memcmp(reader.data() + 5000, "hello", 5), 0);
}

TEST(MappingTest, StartsAtItsOffset) {
    const SharedFile file = make_file();
    const Mapping whole = map(file, Access::ReadWrite);
    const Mapping part = map(file, Access::Read, 2 * page_size(), page_size());
    std::memcpy(whole.data() + 2 * page_size(), "part", 4);
    EXPECT_EQ(std::memcmp(part.data(), "part", 4), 0);
}

TEST(MappingTest, WritingToAReadOnlyOneFaults) {
    const Shared<bool> has_read;
    const Shared<bool> has_written;
    Child child([&] {
        ::signal(SIGSEGV, SIG_DFL);
        const SharedFile file = make_file();
        const Mapping reader = map(file, Access::Read);
        auto* first = const_cast<volatile std::byte*>(reader.data());
        *has_read = *first == std::byte{0};
        *first = std::byte{1};
        *has_written = true;
    });
    EXPECT_EQ(child.wait(), killed_by(SIGSEGV));
    EXPECT_TRUE(*has_read);
    EXPECT_FALSE(*has_written);
}

TEST(MappingTest, IsNotInheritedAndNotDumped) {
    const SharedFile file = make_file();
    const Mapping mapping = map(file, Access::ReadWrite);
    ASSERT_TRUE(is_mapped(mapping.data()));
    const std::string flags = smaps_value(mapping.data(), "VmFlags");
    EXPECT_NE(flags.find(" dc "), std::string::npos) << flags;  // not copied at fork
    EXPECT_NE(flags.find(" dd "), std::string::npos) << flags;  // not dumped
    Child child([&] { require(!is_mapped(mapping.data()) && errno == ENOMEM); });
    EXPECT_EQ(child.wait(), 0);
}

TEST(MappingTest, EndsWithItsOwner) {
    const SharedFile file = make_file();
    std::byte* address = nullptr;
    {
        Mapping first = map(file, Access::ReadWrite);
        address = first.data();
        const Mapping second = std::move(first);
        EXPECT_EQ(second.data(), address);
        EXPECT_EQ(first.data(), nullptr);  // NOLINT(bugprone-use-after-move): that is the question
        EXPECT_TRUE(is_mapped(address));
    }
    EXPECT_FALSE(is_mapped(address));
    Mapping target = map(file, Access::ReadWrite);
    std::byte* overwritten = target.data();
    target = map(file, Access::ReadWrite);
    EXPECT_FALSE(is_mapped(overwritten));
    EXPECT_TRUE(is_mapped(target.data()));
}

TEST(MappingTest, AnAbandonedRangeStays) {
    const SharedFile file = make_file();
    std::byte* address = nullptr;
    {
        Mapping mapping = map(file, Access::ReadWrite);
        address = mapping.data();
        mapping.abandon();
    }
    EXPECT_TRUE(is_mapped(address));
    ::munmap(address, kSize);
}

TEST(MappingTest, OutlivesItsFile) {
    SharedFile file = make_file();
    const Mapping mapping = map(file, Access::ReadWrite);
    file.close();
    std::memcpy(mapping.data(), "still here", 10);
    EXPECT_EQ(std::memcmp(mapping.data(), "still here", 10), 0);
}

TEST(MappingTest, AFailedMappingReportsTheReason) {
    const SharedFile file = make_file();
    std::error_code error;
    EXPECT_EQ(Mapping::map(file, 0, 0, Access::Read, error).data(), nullptr);
    EXPECT_EQ(error, std::errc::invalid_argument);
    EXPECT_EQ(Mapping::map(SharedFile(), 0, kSize, Access::Read, error).data(), nullptr);
    EXPECT_EQ(error, std::errc::bad_file_descriptor);
}

TEST(MappingTest, PopulatingFaultsPagesIn) {
    const SharedFile file = make_file();
    Mapping mapping = map(file, Access::ReadWrite);
    EXPECT_TRUE(smaps_value(mapping.data(), "Rss").ends_with(" 0 kB "));
    if (const auto error = mapping.populate(0, kSize / 2)) {
        ASSERT_EQ(error, std::errc::invalid_argument) << error.message();
        GTEST_SKIP() << "no MADV_POPULATE_WRITE here";
    }
    const std::string resident = smaps_value(mapping.data(), "Rss");
    EXPECT_TRUE(resident.ends_with(" " + std::to_string(kSize / 2 / 1024) + " kB ")) << resident;
}

TEST(MappingTest, LockedMemoryIsLocked) {
    if (trust::kIsSanitized) GTEST_SKIP() << "sanitizers turn mlock into nothing";
    const SharedFile file = make_file();
    Mapping mapping = map(file, Access::ReadWrite);
    if (const auto error = mapping.lock_in_memory(0, kSize)) {
        GTEST_SKIP() << "no memory may be locked here: " << error.message();
    }
    EXPECT_NE(smaps_value(mapping.data(), "VmFlags").find(" lo "), std::string::npos);
}

TEST(MappingTest, BindsToExistingNodesOnly) {
    const SharedFile file = make_file();
    Mapping mapping = map(file, Access::ReadWrite);
    EXPECT_EQ(mapping.bind_to_node(-1), std::errc::invalid_argument);
    EXPECT_EQ(mapping.bind_to_node(64), std::errc::invalid_argument);
    EXPECT_TRUE(mapping.bind_to_node(63)) << "this machine can hardly have 64 nodes";
    const auto error = mapping.bind_to_node(0);
    EXPECT_TRUE(!error || error == std::errc::function_not_supported ||
                error == std::errc::operation_not_permitted)
        << error.message();
}

TEST(MappingTest, AsksForHugePages) {
    const SharedFile file = make_file();
    Mapping mapping = map(file, Access::ReadWrite);
    if (const auto error = mapping.use_huge_pages()) {
        GTEST_SKIP() << "no transparent huge pages here: " << error.message();
    }
    EXPECT_NE(smaps_value(mapping.data(), "VmFlags").find(" hg "), std::string::npos);
}

}  // namespace
}  // namespace penstock::os

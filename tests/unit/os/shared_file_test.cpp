// Shared files: private until published, reserved before memory is promised, and never mistaken for
// another file of the same name.
#include "os/shared_file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/refused_calls.hpp"

namespace penstock::os {
namespace {

using test::Child;
using test::require;
using test::TemporaryFolder;

constexpr std::uint64_t kPages = 16;

std::uint64_t in_pages(std::uint64_t count) {
    return count * page_size();
}

SharedFile make_private(const std::string& folder) {
    std::error_code error;
    SharedFile file = SharedFile::create_private(folder, error);
    require(!error && file.is_open());
    return file;
}

SharedFile make_anonymous(std::uint64_t size) {
    std::error_code error;
    SharedFile file = SharedFile::create_anonymous("penstock-test", error);
    require(!error && !file.set_size(size));
    return file;
}

SharedFile::Facts facts_of(const SharedFile& file) {
    std::error_code error;
    const auto facts = file.facts(error);
    require(!error);
    return facts;
}

void write_text(const SharedFile& file, const std::string& text, std::uint64_t offset) {
    require(::pwrite(file.descriptor(), text.data(), text.size(), static_cast<off_t>(offset)) ==
            static_cast<ssize_t>(text.size()));
}

TEST(SharedFileTest, APrivateFileHasNoName) {
    const TemporaryFolder folder;
    const SharedFile file = make_private(folder.path());
    EXPECT_TRUE(folder.names().empty());
    EXPECT_EQ(facts_of(file).links, 0U);
}

TEST(SharedFileTest, PublishingMakesAFileOfItsOwnerAlone) {
    const TemporaryFolder folder;
    SharedFile file = make_private(folder.path());
    ASSERT_FALSE(file.publish(folder / "steps"));
    EXPECT_EQ(folder.names(), std::vector<std::string>{"steps"});
    struct stat status{};
    ASSERT_EQ(::stat((folder / "steps").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777U, 0600U);
    EXPECT_EQ(status.st_ino, facts_of(file).inode);
    EXPECT_EQ(status.st_dev, facts_of(file).device);
    EXPECT_EQ(facts_of(file).links, 1U);
}

TEST(SharedFileTest, PublishingNeverReplaces) {
    const TemporaryFolder folder;
    std::ofstream(folder / "steps") << "somebody's";
    SharedFile file = make_private(folder.path());
    EXPECT_EQ(file.publish(folder / "steps"), std::errc::file_exists);
    std::string content;
    std::ifstream(folder / "steps") >> content;
    EXPECT_EQ(content, "somebody's");
    EXPECT_FALSE(file.publish(folder / "other")) << "a failed try spoils nothing";
}

TEST(SharedFileTest, AFailedCreationReportsTheReason) {
    std::error_code error;
    EXPECT_FALSE(SharedFile::create_private("/nowhere/at/all", error).is_open());
    EXPECT_EQ(error, std::errc::no_such_file_or_directory);
}

// Some file systems have no O_TMPFILE; the file then has a name that look-ups ignore.
TEST(SharedFileTest, WorksWithoutUnnamedFiles) {
    const TemporaryFolder folder;
    Child child([&] {
        if (!test::refuse_calls({test::kNoTemporaryFiles})) ::_exit(test::kCannotRefuse);
        SharedFile dropped = make_private(folder.path());
        require(folder.names().size() == 1 && folder.names()[0].starts_with(".penstock-new-"));
        dropped.close();
        require(folder.names().empty());

        std::ofstream(folder / "taken") << "x";
        SharedFile file = make_private(folder.path());
        SharedFile moved = std::move(file);
        require(moved.publish(folder / "taken") == std::errc::file_exists);
        require(!moved.publish(folder / "steps"));
        auto names = folder.names();
        std::sort(names.begin(), names.end());
        require(names == std::vector<std::string>{"steps", "taken"});
        require(facts_of(moved).links == 1);
        moved.close();
        require(folder.names().size() == 2);
    });
    const int outcome = child.wait();
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

TEST(SharedFileTest, OpensTheFileThatHasTheName) {
    const TemporaryFolder folder;
    SharedFile file = make_private(folder.path());
    write_text(file, "hello", 0);
    ASSERT_FALSE(file.publish(folder / "steps"));
    std::error_code error = std::make_error_code(std::errc::io_error);
    const SharedFile other = SharedFile::open(folder / "steps", error);
    EXPECT_FALSE(error);
    EXPECT_EQ(facts_of(other).inode, facts_of(file).inode);
    EXPECT_NE(other.descriptor(), file.descriptor());
    EXPECT_NE(::fcntl(other.descriptor(), F_GETFD) & FD_CLOEXEC, 0);
    EXPECT_NE(::fcntl(file.descriptor(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(SharedFileTest, OpensNothingButRegularFiles) {
    const TemporaryFolder folder;
    SharedFile file = make_private(folder.path());
    ASSERT_FALSE(file.publish(folder / "steps"));
    ASSERT_EQ(::symlink((folder / "steps").c_str(), (folder / "link").c_str()), 0);
    ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
    std::error_code error;
    EXPECT_FALSE(SharedFile::open(folder / "fifo", error).is_open());  // and does not block
    EXPECT_EQ(error, std::errc::not_supported);
    EXPECT_FALSE(SharedFile::open(folder / "link", error).is_open());
    EXPECT_EQ(error, std::errc::not_supported);
    EXPECT_FALSE(SharedFile::open(folder.path(), error).is_open());
    EXPECT_EQ(error, std::errc::not_supported);
    EXPECT_FALSE(SharedFile::open(folder / "nothing", error).is_open());
    EXPECT_EQ(error, std::errc::no_such_file_or_directory);
    EXPECT_FALSE(SharedFile::open("/dev/null", error).is_open());
    EXPECT_EQ(error, std::errc::not_supported);
}

TEST(SharedFileTest, ReopeningMakesADescriptionOfItsOwn) {
    SharedFile file = make_anonymous(in_pages(1));
    std::error_code error;
    SharedFile other = SharedFile::reopen(file.descriptor(), error);
    ASSERT_FALSE(error);
    EXPECT_EQ(facts_of(other).inode, facts_of(file).inode);
    ASSERT_TRUE(file.try_lock(3));
    EXPECT_FALSE(other.try_lock(3));
}

TEST(SharedFileTest, ReopensNothingButRegularFiles) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    std::error_code error;
    EXPECT_FALSE(SharedFile::reopen(ends[0], error).is_open());
    EXPECT_EQ(error, std::errc::not_supported);
    ::close(ends[0]);
    ::close(ends[1]);
    EXPECT_FALSE(SharedFile::reopen(-1, error).is_open());
    EXPECT_TRUE(error);
}

TEST(SharedFileTest, ReservingTakesMemoryAndPunchingGivesItBack) {
    SharedFile file = make_anonymous(in_pages(kPages));
    EXPECT_EQ(facts_of(file).size, in_pages(kPages));
    EXPECT_EQ(facts_of(file).reserved, 0U);
    ASSERT_FALSE(file.reserve(0, in_pages(kPages)));
    EXPECT_EQ(facts_of(file).reserved, in_pages(kPages));
    write_text(file, "kept", 0);
    write_text(file, "lost", in_pages(4));
    ASSERT_FALSE(file.punch(in_pages(4), in_pages(8)));
    EXPECT_EQ(facts_of(file).reserved, in_pages(kPages - 8));
    EXPECT_EQ(facts_of(file).size, in_pages(kPages));
    std::array<char, 4> text{};
    ASSERT_TRUE(file.read(0, text.data(), text.size()));
    EXPECT_EQ(std::memcmp(text.data(), "kept", 4), 0);
    ASSERT_TRUE(file.read(in_pages(4), text.data(), text.size()));
    EXPECT_EQ(std::memcmp(text.data(), "\0\0\0\0", 4), 0);
}

TEST(SharedFileTest, ReservingNeverChangesTheSize) {
    SharedFile file = make_anonymous(in_pages(1));
    ASSERT_FALSE(file.reserve(0, in_pages(2)));
    EXPECT_EQ(facts_of(file).size, in_pages(1));
}

TEST(SharedFileTest, TellsTheSpaceOfAFileSystem) {
    std::error_code error;
    const Space space = space_at("/dev/shm", error);
    EXPECT_FALSE(error);
    EXPECT_GT(space.total, 0U);
    EXPECT_LE(space.available, space.total);
    EXPECT_EQ(space_at("/nowhere/at/all", error).total, 0U);
    EXPECT_EQ(error, std::errc::no_such_file_or_directory);
}

// An accepted request would fill the machine's memory, so fallocate is made to fail with another
// error: the refusal must come first.
TEST(SharedFileTest, RefusesImpossibleSizesAtOnce) {
    Child child([&] {
        constexpr test::Refusal kNothing{SYS_fallocate, EIO, 0, 0, 0};
        if (!test::refuse_calls({kNothing})) ::_exit(test::kCannotRefuse);
        std::error_code error;
        const std::uint64_t too_much = std::uint64_t{1} << 60U;
        SharedFile named = make_private("/dev/shm");
        require(named.reserve(0, space_at("/dev/shm", error).total + 1) ==
                std::errc::no_space_on_device);
        require(named.reserve(0, too_much) == std::errc::no_space_on_device);
        require(named.reserve(0, 1) == std::errc::io_error);
        SharedFile anonymous = make_anonymous(1);
        require(anonymous.reserve(0, too_much) == std::errc::no_space_on_device);
        require(anonymous.reserve(0, 1) == std::errc::io_error);
    });
    const int outcome = child.wait();
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

TEST(SharedFileTest, ReservesAllOrNothing) {
    Child child([&] {
        constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;
        SharedFile file = make_private("/dev/shm");
        require(!file.set_size(64 * kMiB));
        // Reservation proceeds in steps; the space runs out at the step that starts half way.
        constexpr test::Refusal kHalfWay{SYS_fallocate, ENOSPC, 2, ~0U, 32U << 20U};
        if (!test::refuse_calls({kHalfWay})) ::_exit(test::kCannotRefuse);
        require(file.reserve(0, 64 * kMiB) == std::errc::no_space_on_device);
        require(facts_of(file).reserved == 0);
        require(!file.reserve(0, kMiB));
        require(facts_of(file).reserved == kMiB);
    });
    const int outcome = child.wait();
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

TEST(SharedFileTest, ASealedSizeStays) {
    SharedFile file = make_anonymous(in_pages(2));
    ASSERT_FALSE(file.seal_size());
    EXPECT_TRUE(file.set_size(in_pages(1)));
    EXPECT_TRUE(file.set_size(in_pages(3)));
    EXPECT_EQ(facts_of(file).size, in_pages(2));
    EXPECT_NE(::fcntl(file.descriptor(), F_ADD_SEALS, F_SEAL_WRITE), 0) << "no further seals";
    EXPECT_FALSE(file.reserve(0, in_pages(2)));
    EXPECT_FALSE(file.punch(0, in_pages(2)));
}

TEST(SharedFileTest, ReadsTheWholeRangeOrNothing) {
    SharedFile file = make_anonymous(10);
    write_text(file, "0123456789", 0);
    std::array<char, 11> text{};
    EXPECT_TRUE(file.read(0, text.data(), 10));
    EXPECT_EQ(std::memcmp(text.data(), "0123456789", 10), 0);
    EXPECT_TRUE(file.read(7, text.data(), 3));
    EXPECT_EQ(std::memcmp(text.data(), "789", 3), 0);
    EXPECT_FALSE(file.read(0, text.data(), 11));
    EXPECT_FALSE(file.read(8, text.data(), 3));
    EXPECT_TRUE(file.read(10, text.data(), 0));
}

TEST(SharedFileTest, UnlinksItsOwnNameOnly) {
    const TemporaryFolder folder;
    SharedFile first = make_private(folder.path());
    ASSERT_FALSE(first.publish(folder / "steps"));
    SharedFile second = make_private(folder.path());
    EXPECT_FALSE(unlink_if_same(folder / "steps", second));
    EXPECT_EQ(facts_of(first).links, 1U);
    EXPECT_TRUE(unlink_if_same(folder / "steps", first));
    EXPECT_EQ(facts_of(first).links, 0U);
    EXPECT_FALSE(unlink_if_same(folder / "steps", first)) << "gone already";
    ASSERT_FALSE(second.publish(folder / "steps"));
    EXPECT_FALSE(unlink_if_same(folder / "steps", first)) << "replaced meanwhile";
    EXPECT_EQ(facts_of(second).links, 1U);
}

TEST(SharedFileTest, UnlinksItsOtherNamesInTheDirectoryToo) {
    const TemporaryFolder folder;
    const TemporaryFolder elsewhere;
    SharedFile file = make_private(folder.path());
    ASSERT_FALSE(file.publish(folder / "steps"));
    SharedFile other = make_private(folder.path());
    ASSERT_FALSE(other.publish(folder / "other"));
    ASSERT_EQ(::link((folder / "steps").c_str(), (folder / "steps.link").c_str()), 0);
    ASSERT_EQ(::link((folder / "steps").c_str(), (elsewhere / "link").c_str()), 0);
    EXPECT_TRUE(unlink_if_same(folder / "steps", file));
    EXPECT_EQ(folder.names().size(), 1U) << "they would keep its memory";
    EXPECT_EQ(elsewhere.names().size(), 1U);
    EXPECT_EQ(facts_of(other).links, 1U);
}

TEST(SharedFileTest, UnlinksNoLinkThatLeadsToIt) {
    const TemporaryFolder folder;
    SharedFile file = make_private(folder.path());
    ASSERT_FALSE(file.publish(folder / "steps"));
    ASSERT_EQ(::symlink((folder / "steps").c_str(), (folder / "link").c_str()), 0);
    EXPECT_FALSE(unlink_if_same(folder / "link", file));
    EXPECT_EQ(folder.names().size(), 2U);
}

TEST(SharedFileTest, ListsNamesByPrefix) {
    const TemporaryFolder folder;
    for (const char* name : {"penstock.a", "penstock.b.c", "penstock", "other", "xpenstock.d"}) {
        std::ofstream(folder / name) << "x";
    }
    auto names = list_names(folder.path(), "penstock.");
    std::sort(names.begin(), names.end());
    EXPECT_EQ(names, (std::vector<std::string>{"a", "b.c"}));
    EXPECT_TRUE(list_names("/nowhere/at/all", "").empty());
}

TEST(SharedFileTest, MovingHandsTheDescriptorOver) {
    SharedFile first = make_anonymous(1);
    const int descriptor = first.descriptor();
    SharedFile second = std::move(first);
    EXPECT_EQ(second.descriptor(), descriptor);
    EXPECT_FALSE(first.is_open());  // NOLINT(bugprone-use-after-move): that is the question
    SharedFile third = make_anonymous(2);
    const int overwritten = third.descriptor();
    third = std::move(second);
    EXPECT_EQ(third.descriptor(), descriptor);
    EXPECT_EQ(::fcntl(overwritten, F_GETFD), -1) << "assignment closes what was there";
    third.close();
    EXPECT_EQ(::fcntl(descriptor, F_GETFD), -1);
    third.close();  // idempotent
}

// Runs `body` under a seccomp filter, in a child because filters are permanent; it must hold.
template <typename Body>
void expect_under(std::initializer_list<test::Refusal> refusals, Body&& body) {
    Child child([&] {
        if (!test::refuse_calls(refusals)) ::_exit(test::kCannotRefuse);
        body();
    });
    const int outcome = child.wait();
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

constexpr test::Refusal kNoRandomCall{SYS_getrandom, EPERM, 0, 0, 0};
constexpr test::Refusal kNoReading{SYS_openat, EPERM, 2, O_ACCMODE | O_NOFOLLOW,
                                   O_RDONLY | O_NOFOLLOW};

TEST(SharedFileTest, WithoutGetrandomTheDeviceIsRead) {
    expect_under({kNoRandomCall}, [] {
        std::array<std::byte, 64> bytes{};
        require(!fill_random(bytes.data(), bytes.size()));
        require(std::ranges::count(bytes, std::byte{0}) < 32);
    });
}

TEST(SharedFileTest, WithoutAnyRandomnessThereIsAnError) {
    expect_under({kNoRandomCall, kNoReading}, [] {
        std::array<std::byte, 8> bytes{};
        require(fill_random(bytes.data(), bytes.size()) == std::errc::operation_not_permitted);
    });
}

TEST(SharedFileTest, APlantedFifoIsNotOpened) {
    const TemporaryFolder folder;
    ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
    const int reading = ::open((folder / "fifo").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ASSERT_GE(reading, 0);
    std::error_code error;
    for (const auto access : {SharedFile::Access::Read, SharedFile::Access::ReadWrite}) {
        EXPECT_FALSE(SharedFile::open(folder / "fifo", error, access).is_open());
        EXPECT_EQ(error, std::errc::not_supported);
    }
    pollfd told{reading, POLLIN, 0};
    EXPECT_EQ(::poll(&told, 1, 0), 0) << "POLLHUP: it was opened for writing, and closed again";
    ::close(reading);
}

TEST(SharedFileTest, TheUmaskIsIgnored) {
    const TemporaryFolder folder;
    Child child([&] {
        ::umask(0777);
        const SharedFile file = make_private(folder.path());
        struct stat status{};
        require(::fstat(file.descriptor(), &status) == 0 && (status.st_mode & 07777U) == 0600U);
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST(SharedFileTest, ALimitOnFilesIsAnErrorAndNoSignal) {
    Child child([] {
        ::signal(SIGXFSZ, SIG_DFL);
        SharedFile file = make_anonymous(in_pages(1));
        const struct rlimit limit{in_pages(4), RLIM_INFINITY};
        require(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
        require(file.set_size(in_pages(5)) == std::errc::file_too_large);
        require(!file.set_size(in_pages(4)));
        require(facts_of(file).size == in_pages(4));
        require(file.reserve(in_pages(4), in_pages(1)) == std::errc::file_too_large);
        sigset_t pending;
        require(::sigpending(&pending) == 0 && sigismember(&pending, SIGXFSZ) == 0);
    });
    EXPECT_EQ(child.wait(), 0);
}

// Another thread lowers and raises the limit all the time, so a check before the call proves
// nothing.
TEST(SharedFileTest, ALimitLoweredMeanwhileIsAnErrorAndNoSignal) {
    Child child([] {
        ::signal(SIGXFSZ, SIG_DFL);
        std::atomic<bool> is_over{false};
        std::jthread other([&] {
            for (rlim_t bytes = 0; !is_over; bytes = bytes == 0 ? RLIM_INFINITY : 0) {
                const struct rlimit limit{bytes, RLIM_INFINITY};
                require(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
            }
        });
        SharedFile file = make_anonymous(0);
        for (int i = 0; i < 50'000; ++i) {
            const std::error_code error =
                file.set_size(in_pages(static_cast<std::uint64_t>(i) % 2));
            require(!error || error == std::errc::file_too_large);
        }
        is_over = true;
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST(SharedFileTest, HolesAreNotRead) {
    constexpr std::uint64_t kTebibyte = std::uint64_t{1} << 40U;
    SharedFile file = make_anonymous(kTebibyte);
    write_text(file, "front", 0);
    write_text(file, "back", in_pages(9));
    std::vector<std::byte> copy(in_pages(10));
    ASSERT_FALSE(file.read_sparse(0, copy.data(), copy.size(), in_pages(2)));
    EXPECT_EQ(std::memcmp(copy.data(), "front", 5), 0);
    EXPECT_EQ(copy[in_pages(1)], std::byte{0});
    EXPECT_EQ(std::memcmp(copy.data() + in_pages(9), "back", 4), 0);
    EXPECT_EQ(file.read_sparse(0, copy.data(), copy.size(), in_pages(1)),
              std::errc::file_too_large);
    ASSERT_FALSE(file.set_size(in_pages(8)));
    EXPECT_EQ(file.read_sparse(0, copy.data(), copy.size(), in_pages(10)), std::errc::io_error);
    EXPECT_TRUE(file.is_ours()) << "looking for data moves the offset";
}

TEST(SharedFileTest, OnlyASealKeepsAFileFromShrinking) {
    SharedFile file = make_anonymous(in_pages(2));
    EXPECT_FALSE(file.is_sealed_against_shrinking());
    ASSERT_FALSE(file.seal_size());
    EXPECT_TRUE(file.is_sealed_against_shrinking());
    const TemporaryFolder folder;
    EXPECT_FALSE(make_private(folder.path()).is_sealed_against_shrinking());
}

TEST(SharedFileTest, RandomBytesFillTheWholeRange) {
    for (const std::size_t size : {1U, 7U, 8U, 300U}) {
        std::vector<std::byte> ever_set(size);
        for (int i = 0; i < 64; ++i) {
            std::vector<std::byte> bytes(size);
            ASSERT_FALSE(fill_random(bytes.data(), size));
            for (std::size_t at = 0; at < size; ++at) ever_set[at] |= bytes[at];
        }
        EXPECT_EQ(std::count(ever_set.begin(), ever_set.end(), std::byte{0}), 0) << size;
    }
}

// A program that closes every descriptor and opens its own file under the same number.
class ProgramsOwn {
public:
    ProgramsOwn(const SharedFile& file, const std::string& path) : path_(path) {
        ::close(file.descriptor());
        descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        require(descriptor_ == file.descriptor());
        const std::vector<char> content(in_pages(kPages), 'x');
        require(::write(descriptor_, content.data(), content.size()) ==
                static_cast<ssize_t>(content.size()));
        require(::fstat(descriptor_, &before_) == 0);
    }
    ProgramsOwn(const ProgramsOwn&) = delete;
    ProgramsOwn& operator=(const ProgramsOwn&) = delete;
    ~ProgramsOwn() { ::close(descriptor_); }

    // The file is open and unchanged.
    [[nodiscard]] bool is_untouched() const {
        struct stat now{};
        if (::fstat(descriptor_, &now) != 0 || now.st_ino != before_.st_ino) return false;
        if (now.st_size != before_.st_size || now.st_blocks != before_.st_blocks) return false;
        std::ifstream file(path_, std::ios::binary);
        const std::string content{std::istreambuf_iterator<char>(file), {}};
        return content == std::string(in_pages(kPages), 'x');
    }
    // Whether a lock on that byte is visible through another description.
    [[nodiscard]] bool is_locked(std::uint64_t byte) const {
        std::error_code error;
        return SharedFile::open(path_, error).is_locked_by_other(byte);
    }
    void lock(std::uint64_t byte) const {
        struct flock lock{};
        lock.l_type = F_WRLCK;
        lock.l_start = static_cast<off_t>(byte);
        lock.l_len = 1;
        require(::fcntl(descriptor_, F_OFD_SETLK, &lock) == 0);
    }

private:
    std::string path_;
    int descriptor_ = -1;
    struct stat before_{};
};

TEST(SharedFileTest, AFileOfTheProgramUnderTheNumberIsLeftAlone) {
    const TemporaryFolder folder;
    SharedFile file = make_private(folder.path());
    ASSERT_FALSE(file.set_size(in_pages(kPages)));
    ASSERT_TRUE(file.try_lock(7));
    EXPECT_TRUE(file.is_ours());
    const ProgramsOwn own(file, folder / "own");
    own.lock(3);
    EXPECT_FALSE(file.is_ours());
    EXPECT_EQ(file.reserve(0, in_pages(2 * kPages)), std::errc::bad_file_descriptor);
    EXPECT_EQ(file.punch(0, in_pages(2)), std::errc::bad_file_descriptor);
    EXPECT_FALSE(file.try_lock(8));
    EXPECT_FALSE(file.try_lock_shared(9));
    EXPECT_FALSE(own.is_locked(8));
    EXPECT_TRUE(file.is_locked_by_other(11)) << "no evidence of death";
    file.unlock(3);
    EXPECT_TRUE(own.is_locked(3));
    file.close();
    EXPECT_TRUE(own.is_untouched());
}

TEST(SharedFileTest, MemoryIsGivenBackByWayOfTheMapping) {
    const TemporaryFolder folder;
    SharedFile file = make_private(folder.path());
    ASSERT_FALSE(file.set_size(in_pages(kPages)));
    std::error_code error;
    const Mapping mapping =
        Mapping::map(file, in_pages(4), in_pages(kPages - 4), Mapping::Access::ReadWrite, error);
    ASSERT_FALSE(error);
    file.note_mapping(mapping, in_pages(4));
    ASSERT_FALSE(file.reserve(0, in_pages(kPages)));
    std::fill_n(mapping.data(), mapping.size(), std::byte{1});
    ASSERT_FALSE(file.punch(in_pages(8), in_pages(2)));
    EXPECT_EQ(facts_of(file).reserved, in_pages(kPages - 2));
    ASSERT_FALSE(file.punch(0, in_pages(1))) << "outside of it";
    EXPECT_EQ(facts_of(file).reserved, in_pages(kPages - 3));
    const ProgramsOwn own(file, folder / "own");
    ASSERT_FALSE(file.punch(in_pages(4), in_pages(3)));
    EXPECT_EQ(mapping.data()[0], std::byte{0});
    EXPECT_EQ(mapping.data()[in_pages(3)], std::byte{1});
    file.close();
    EXPECT_TRUE(own.is_untouched());
}

}  // namespace
}  // namespace penstock::os

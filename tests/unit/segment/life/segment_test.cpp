// Segments: made in private, published whole, joined under a lock, removed by the last participant
// to leave, and never replaced while a participant lives.
#include "segment/life/segment.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/refused_calls.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock::detail {
namespace {

using namespace std::chrono_literals;
using test::Child;
using test::Gate;
using test::refuses;
using test::require;
using test::TemporaryFolder;
using Access = os::Mapping::Access;
using Handle = std::unique_ptr<Segment>;

constexpr std::uint64_t kPayload = std::uint64_t{64} << 10U;
constexpr auto kLong = 20s;
const Wanted kQueueToRead{Kind::Queue, Access::Read, {}};

SegmentPlan make_plan() {
    SegmentPlan plan;
    plan.kind = Kind::Queue;
    plan.geometry[0] = 42;
    plan.slots = 4;
    plan.control_bytes = 8192;
    plan.payload_bytes = kPayload;
    plan.payload_reserved = kPayload / 2;
    plan.may_be_anonymous = true;
    return plan;
}

void take_slot(Segment& segment, unsigned slot) {
    require(segment.participants().try_claim(slot));
    segment.participants().sign(slot);
    segment.participants().announce(slot);
}

Handle create(const std::string& name, const MemoryOptions& memory = {}) {
    return Segment::create(name, make_plan(), memory, [](Segment& fresh) { take_slot(fresh, 0); });
}

// Joins like a participant: claims a slot, then permits the removal of the segment again.
Handle join(const std::string& name, unsigned slot) {
    Handle segment = Segment::attach(name, kQueueToRead);
    take_slot(*segment, slot);
    segment->joined();
    return segment;
}

void leave(Handle& segment, unsigned slot) {
    segment->participants().retire(slot);
    segment->participants().release(slot);
    segment->leave();
    segment.reset();
}

class SegmentTest : public test::CleanTest {
protected:
    // create() fails for a name that another file has, and the file survives.
    static void expect_survival(const std::string& name, test::Parts parts) {
        EXPECT_TRUE(refuses(ErrorCode::AlreadyExists, [&] { create(name); }, parts));
        EXPECT_TRUE(std::filesystem::exists(std::filesystem::symlink_status(path_of(name))));
        std::filesystem::remove(path_of(name));
    }
};

TEST_F(SegmentTest, ACreatedSegmentIsACompletePrivateFile) {
    const std::string name = new_name();
    Handle segment = create(name);
    struct stat status{};
    ASSERT_EQ(::stat(path_of(name).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777U, 0600U);
    EXPECT_EQ(segment->name(), name);
    EXPECT_EQ(segment->header().file_size, static_cast<std::uint64_t>(status.st_size));
    EXPECT_EQ(segment->header().geometry[0], 42U);
    EXPECT_EQ(segment->payload_offset(), segment->header().payload_offset);
    EXPECT_EQ(segment->reserved_bytes(), segment->payload_offset() + kPayload / 2);
    EXPECT_EQ(segment->reserved_bytes(), static_cast<std::uint64_t>(status.st_blocks) * 512);
    EXPECT_EQ(segment->instance().size(), 32U);
    EXPECT_EQ(segment->instance().find_first_not_of("0123456789abcdef"), std::string::npos);
    leave(segment, 0);
    EXPECT_FALSE(exists(name));
}

TEST_F(SegmentTest, IsInvisibleUntilItIsFilled) {
    const std::string name = new_name();
    Handle segment = Segment::create(name, make_plan(), {}, [&](Segment& fresh) {
        EXPECT_FALSE(exists(name));
        EXPECT_EQ(fresh.control()[0], std::byte{0});
        std::memcpy(fresh.control(), "filled", 6);
        take_slot(fresh, 0);
    });
    Handle other = join(name, 1);
    EXPECT_EQ(std::memcmp(other->control(), "filled", 6), 0);
    leave(other, 1);
    leave(segment, 0);
}

TEST_F(SegmentTest, LeavesNothingWhenFillingFails) {
    const std::string name = new_name();
    EXPECT_THROW(Segment::create(name, make_plan(), {},
                                 [](Segment&) { throw Error(ErrorCode::System, "no"); }),
                 Error);
    EXPECT_FALSE(exists(name));
}

TEST_F(SegmentTest, AllParticipantsSeeTheSameBytes) {
    const std::string name = new_name();
    Handle writer = create(name);
    Handle reader = join(name, 1);
    EXPECT_EQ(reader->instance(), writer->instance());
    std::memcpy(writer->payload() + 100, "hello", 5);
    EXPECT_EQ(std::memcmp(reader->payload() + 100, "hello", 5), 0);
    std::memcpy(reader->control() + 100, "control", 7);
    EXPECT_EQ(std::memcmp(writer->control() + 100, "control", 7), 0);
    leave(reader, 1);
    leave(writer, 0);
}

TEST_F(SegmentTest, WritingToAReadOnlyPayloadFaults) {
    const std::string name = new_name();
    Handle writer = create(name);
    Child child([&] {
        ::signal(SIGSEGV, SIG_DFL);
        const Handle reader = join(name, 1);
        reader->control()[0] = std::byte{1};
        const_cast<volatile std::byte*>(reader->payload())[0] = std::byte{1};
    });
    EXPECT_EQ(child.wait(), test::killed_by(SIGSEGV));
    EXPECT_EQ(writer->control()[0], std::byte{1});
    EXPECT_EQ(writer->payload()[0], std::byte{0});
    leave(writer, 0);
}

// Also in a process that may write: views for reading lie in a read-only mapping.
TEST_F(SegmentTest, WritingToAViewFaultsAndViewsShowNewBytes) {
    const std::string name = new_name();
    Handle segment = create(name);
    ASSERT_NE(segment->views(), segment->payload());
    segment->payload()[100] = std::byte{7};
    EXPECT_EQ(*segment->view_of(segment->payload() + 100), std::byte{7});
    Child child([&] {
        ::signal(SIGSEGV, SIG_DFL);
        const Handle own = Segment::attach(name, {Kind::Queue, Access::ReadWrite, {}});
        own->payload()[200] = std::byte{8};
        const_cast<volatile std::byte*>(own->views())[100] = std::byte{9};
    });
    EXPECT_EQ(child.wait(), test::killed_by(SIGSEGV));
    EXPECT_EQ(segment->views()[100], std::byte{7});
    EXPECT_EQ(segment->views()[200], std::byte{8});
    leave(segment, 0);
}

TEST_F(SegmentTest, TheLastToLeaveRemovesTheName) {
    const std::string name = new_name();
    Handle first = create(name);
    Handle second = join(name, 1);
    leave(first, 0);
    EXPECT_TRUE(exists(name)) << "one is left";
    Handle third = join(name, 2);
    leave(second, 1);
    EXPECT_TRUE(exists(name));
    leave(third, 2);
    EXPECT_FALSE(exists(name));
}

TEST_F(SegmentTest, ALateLeaveRemovesNoOtherSegment) {
    const std::string name = new_name();
    Handle old = create(name);
    std::filesystem::remove(path_of(name));  // removed by force
    Handle fresh = create(name);
    leave(old, 0);
    EXPECT_TRUE(exists(name));
    leave(fresh, 0);
    EXPECT_FALSE(exists(name));
}

TEST_F(SegmentTest, ANameInUseIsRefusedNamingTheHolder) {
    const std::string name = new_name();
    const Gate created;
    const Gate end;
    Child child([&] {
        Handle segment = create(name);
        created.open();
        end.pass();
        leave(segment, 0);
    });
    created.pass();
    EXPECT_TRUE(
        refuses(ErrorCode::AlreadyExists, [&] { create(name); },
                {"can't create '" + name + "'", "in use by pid " + std::to_string(child.pid()),
                 "attach to it, choose another name, or end that process"}));
    child.stop();
    EXPECT_TRUE(
        refuses(ErrorCode::AlreadyExists, [&] { create(name); }, {std::to_string(child.pid())}));
    child.resume();
    end.open();
    EXPECT_EQ(child.wait(), 0);
    EXPECT_FALSE(exists(name));
}

TEST_F(SegmentTest, ADeadSegmentIsReplaced) {
    const std::string name = new_name();
    const Gate created;
    Child child([&] {
        const Handle segment = create(name);
        std::memcpy(segment->payload(), "dead", 4);
        created.open();
        for (;;) ::pause();
    });
    created.pass();
    Handle old = Segment::attach(name, kQueueToRead);
    old->joined();
    child.kill_unreaped();
    Handle fresh = create(name);
    EXPECT_NE(fresh->instance(), old->instance());
    EXPECT_EQ(fresh->payload()[0], std::byte{0});
    EXPECT_EQ(std::memcmp(old->payload(), "dead", 4), 0) << "a mapping keeps its data";
    leave(fresh, 0);
}

// It continues in a segment without a name: its slot says that it was reaped.
TEST_F(SegmentTest, ALivingParticipantWithoutLockSeesItsRemoval) {
    const std::string name = new_name();
    const Handle lost = create(name);
    ASSERT_TRUE(lost->file().is_ours());
    lost->file().unlock(lost->header().slots_offset);
    EXPECT_FALSE(lost->is_found_dead()) << "not reaped yet";
    EXPECT_TRUE(Visit(name, Visit::Purpose::Remove).remove_if_abandoned());
    EXPECT_FALSE(exists(name));
    EXPECT_TRUE(lost->is_found_dead());
}

TEST_F(SegmentTest, AJoiningParticipantKeepsTheName) {
    const std::string name = new_name();
    {
        Handle dead = create(name);  // dropped without leaving: dead
    }
    Handle joining = Segment::attach(name, kQueueToRead);  // has not claimed a slot yet
    EXPECT_TRUE(
        refuses(ErrorCode::AlreadyExists, [&] { create(name); }, {"somebody is just joining it"}));
    joining->joined();
    Handle fresh = create(name);
    leave(fresh, 0);
}

TEST_F(SegmentTest, AFileThatIsNoSegmentIsNotReplaced) {
    const std::string name = new_name();
    std::ofstream(path_of(name)) << "somebody's notes";
    expect_survival(name, {"the name is taken by " + path_of(name), "is not a Penstock segment"});
    std::ofstream(path_of(name)).flush();
    expect_survival(name, {"it holds 0 bytes only"});
    ASSERT_EQ(::mkfifo(path_of(name).c_str(), 0600), 0);
    expect_survival(name, {"not a regular file"});
    std::filesystem::create_directory(path_of(name));
    expect_survival(name, {"not a regular file"});
    std::filesystem::create_symlink("/nowhere", path_of(name));
    expect_survival(name, {"not a regular file"});
}

TEST_F(SegmentTest, ADamagedSegmentIsNotReplaced) {
    const std::string name = new_name();
    {
        Handle dead = create(name);
    }
    ASSERT_EQ(::truncate(path_of(name).c_str(), 4096), 0);
    expect_survival(name, {"is cut short"});
}

TEST_F(SegmentTest, AttachingToAMissingNameFails) {
    EXPECT_TRUE(refuses(
        ErrorCode::NotFound, [&] { Segment::attach(new_name(), kQueueToRead); },
        {"can't attach to '" + test::run_prefix, "there is no such segment", "penstock ls"}));
    EXPECT_TRUE(refuses(ErrorCode::InvalidName, [] { Segment::attach("a/b", kQueueToRead); }));
}

TEST_F(SegmentTest, AttachingToAnotherFileSaysWhatItIs) {
    const std::string name = new_name();
    const auto attach = [&] { Segment::attach(name, kQueueToRead); };
    std::ofstream(path_of(name)) << std::string(100'000, '#');
    EXPECT_TRUE(refuses(ErrorCode::Incompatible, attach, {"is not a Penstock segment"}));
    std::filesystem::remove(path_of(name));
    ASSERT_EQ(::mkfifo(path_of(name).c_str(), 0600), 0);
    EXPECT_TRUE(refuses(ErrorCode::Incompatible, attach, {"not a regular file"}));
    std::filesystem::remove(path_of(name));
    std::filesystem::create_directory(path_of(name));
    EXPECT_TRUE(refuses(ErrorCode::Incompatible, attach, {"not a regular file"}));
    std::filesystem::remove(path_of(name));
    const std::string target = new_name();
    Handle segment = create(target);
    std::filesystem::create_symlink(path_of(target), path_of(name));
    EXPECT_TRUE(refuses(ErrorCode::Incompatible, attach, {"not a regular file"}));
    std::filesystem::remove(path_of(name));
    leave(segment, 0);
}

TEST_F(SegmentTest, AttachingToAnotherKindSaysWhich) {
    const std::string name = new_name();
    Handle segment = create(name);
    EXPECT_TRUE(
        refuses(ErrorCode::Incompatible,
                [&] { Segment::attach(name, {Kind::Broadcast, Access::Read, {}}); },
                {"'" + name + "' is a queue, not a broadcast", "attach with the matching class"}));
    leave(segment, 0);
    EXPECT_FALSE(exists(name)) << "a failed attach is not in the way";
}

TEST_F(SegmentTest, AttachingToATruncatedOneSaysHowMuchIsThere) {
    const std::string name = new_name();
    {
        Handle dead = create(name);
    }
    constexpr long kHeader = sizeof(layout::SegmentHeader);
    for (const long size : {50'000L, 4096L, kHeader, 100L, 0L}) {
        ASSERT_EQ(::truncate(path_of(name).c_str(), size), 0);
        EXPECT_TRUE(refuses(size < kHeader ? ErrorCode::Incompatible : ErrorCode::Corrupt,
                            [&] { Segment::attach(name, kQueueToRead); },
                            {std::to_string(size) + (size < kHeader ? " bytes only" : " of ")}));
    }
    std::filesystem::remove(path_of(name));
}

TEST_F(SegmentTest, AttachingMayRequireAnInstance) {
    const std::string name = new_name();
    Handle segment = create(name);
    const auto attach = [&](const std::string& instance) {
        return Segment::attach(name, {Kind::Queue, Access::Read, instance});
    };
    EXPECT_EQ(attach(segment->instance())->instance(), segment->instance());
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [&] { attach(std::string(32, '0')); },
                        {"another segment than the one asked for"}));
    leave(segment, 0);
}

TEST_F(SegmentTest, MissingPermissionIsReported) {
    const std::string name = new_name();
    Handle segment = create(name);
    ASSERT_EQ(::chmod(path_of(name).c_str(), 0), 0);
    Child child([&] {
        if (::geteuid() == 0) require(::seteuid(65534) == 0);
        require(static_cast<bool>(
            refuses(ErrorCode::PermissionDenied, [&] { Segment::attach(name, kQueueToRead); },
                    {"belongs to another user", "run as the user who made it"})));
        require(static_cast<bool>(
            refuses(ErrorCode::PermissionDenied, [&] { create(name); }, {"'" + name + "'"})));
    });
    EXPECT_EQ(child.wait(), 0);
    leave(segment, 0);
}

TEST_F(SegmentTest, AnotherUsersSegmentNeedsThatUsersName) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can make files of other users";
    constexpr std::uint32_t kStranger = 65534;
    const std::string name = new_name();
    Handle segment = create(name);
    ASSERT_EQ(::chown(path_of(name).c_str(), kStranger, kStranger), 0);
    const auto attach = [&](const Trust& trust) {
        Segment::attach(name, {Kind::Queue, Access::Read, {}, trust});
    };
    const auto start = Clock::now();
    EXPECT_TRUE(refuses(ErrorCode::PermissionDenied,
                        [&] { attach_when_there(name, kQueueToRead, kLong); },
                        {"can't attach to '" + name + "'", "another user, uid 65534",
                         "run as the user who made it", "owner=65534"}));
    EXPECT_LT(Clock::now() - start, kLong);
    EXPECT_TRUE(refuses(ErrorCode::PermissionDenied, [&] { attach({.owner = 1}); }));
    EXPECT_NO_THROW(attach({.owner = kStranger}));
    EXPECT_TRUE(refuses(ErrorCode::PermissionDenied,
                        [&] { attach({.owner = kStranger, .runs_code = true}); },
                        {"would run that user's code", "without codec='pickle'"}));
    EXPECT_TRUE(refuses(ErrorCode::PermissionDenied, [&] { create(name); },
                        {"can't create '" + name + "'", "the name is taken by", "owner=65534"}));
    EXPECT_EQ(Visit(name).participants().life(0), Life::Alive) << "a look trusts no user";
    leave(segment, 0);
}

TEST_F(SegmentTest, UsersHaveNamesAndNumbers) {
    EXPECT_EQ(parse_user("root"), 0U);
    EXPECT_EQ(parse_user("0"), 0U);
    EXPECT_EQ(parse_user("4000000000"), 4'000'000'000U);
    for (const char* none : {"", "no-such-user", "-1", "1x", "4294967295", "4294967296"}) {
        EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { parse_user(none); },
                            {"there is no user '" + std::string(none) + "'"}));
    }
}

// A call refused by a seccomp filter is not blamed on the file's owner or mode.
TEST_F(SegmentTest, AFailureDespiteOwnerAndModeNamesTheCall) {
    constexpr test::Refusal kNoOpening{SYS_openat, EPERM, 2, O_ACCMODE, O_RDWR};
    constexpr test::Refusal kNoNaming{SYS_linkat, EPERM, 0, 0, 0};
    const std::string name = new_name();
    Handle segment = create(name);
    const auto expect_in_words = [&](const test::Refusal& refusal, const char* call,
                                     const auto& asked) {
        Child child([&] {
            if (!test::refuse_calls({refusal})) ::_exit(test::kCannotRefuse);
            require(static_cast<bool>(
                refuses(ErrorCode::PermissionDenied, asked, {call, "errno 1", "seccomp"})));
        });
        const int outcome = child.wait();
        EXPECT_TRUE(outcome == 0 || outcome == test::kCannotRefuse) << call;
    };
    expect_in_words(kNoOpening, "opening the file (open)",
                    [&] { Segment::attach(name, kQueueToRead); });
    expect_in_words(kNoOpening, "opening a new file", [&] { create(new_name()); });
    expect_in_words(kNoNaming, "giving the file its name (linkat)", [&] { create(new_name()); });
    leave(segment, 0);
}

TEST_F(SegmentTest, MissingRandomnessIsReported) {
    Child child([&] {
        if (!test::refuse_calls(
                {{SYS_getrandom, ENOSYS, 0, 0, 0},
                 {SYS_openat, EACCES, 2, O_ACCMODE | O_NOFOLLOW, O_RDONLY | O_NOFOLLOW}})) {
            ::_exit(test::kCannotRefuse);
        }
        require(static_cast<bool>(refuses(ErrorCode::System, [&] { create(new_name()); },
                                          {"drawing random numbers", "getrandom"})));
    });
    const int outcome = child.wait();
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

TEST_F(SegmentTest, NoSpaceReportsTheNeedAndTheRemedy) {
    const std::string name = new_name();
    Child child([&] {
        if (!test::refuse_calls({test::kNoSpaceLeft})) ::_exit(test::kCannotRefuse);
        require(static_cast<bool>(
            refuses(ErrorCode::NoSpace, [&] { create(name); },
                    {"could not reserve 48 KiB for '" + name + "'", "/dev/shm has ",
                     " KiB free of ", "docker run --shm-size", "penstock gc"})));
        require(static_cast<bool>(
            refuses(ErrorCode::NoSpace, [&] { create(""); }, {"the anonymous segment"})));
        require(!exists(name));
    });
    const int outcome = child.wait();
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

TEST_F(SegmentTest, WorksWithoutMembarrier) {
    const std::string name = new_name();
    Child child([&] {
        if (!test::refuse_calls({test::kNoMembarrier})) ::_exit(test::kCannotRefuse);
        Handle segment = create(name);
        require(!segment->has_asymmetric_fence());
        Handle other = join(name, 1);
        require(!other->has_asymmetric_fence());
        leave(other, 1);
        leave(segment, 0);
    });
    const int outcome = child.wait();
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

TEST_F(SegmentTest, ASegmentThatReliesOnMembarrierRequiresIt) {
    const std::string name = new_name();
    Handle segment = create(name);
    if (!segment->has_asymmetric_fence()) {
        leave(segment, 0);
        GTEST_SKIP() << "no membarrier(2) here";
    }
    Child child([&] {
        if (!test::refuse_calls({test::kNoMembarrier})) ::_exit(test::kCannotRefuse);
        require(static_cast<bool>(refuses(ErrorCode::Incompatible,
                                          [&] { Segment::attach(name, kQueueToRead); },
                                          {"membarrier(2)", "seccomp"})));
    });
    const int outcome = child.wait();
    leave(segment, 0);
    if (outcome == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

TEST_F(SegmentTest, MayLieAnywhere) {
    const TemporaryFolder folder;
    const std::string name = "file:" + (folder / "steps");
    Handle segment = create(name);
    EXPECT_TRUE(std::filesystem::exists(folder / "steps"));
    EXPECT_EQ(segment->name(), name);
    Handle other = join(name, 1);
    EXPECT_EQ(other->instance(), segment->instance());
    leave(segment, 0);
    leave(other, 1);
    EXPECT_TRUE(folder.names().empty());
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [&] { create("file:" + (folder / "no/steps")); }));
}

TEST_F(SegmentTest, NeedsNoName) {
    Handle segment = create("");
    EXPECT_EQ(segment->name(), "");
    Handle other = Segment::attach(segment->lending_descriptor(), kQueueToRead);
    EXPECT_EQ(other->instance(), segment->instance());
    take_slot(*other, 1);
    other->joined();
    EXPECT_EQ(segment->participants().life(1), Life::Alive);
    EXPECT_NE(::ftruncate(segment->lending_descriptor(), 0), 0) << "its size is sealed";
    leave(segment, 0);
    EXPECT_EQ(other->participants().life(0), Life::Free);
    leave(other, 1);
}

TEST_F(SegmentTest, AnInheritedDescriptorKeepsNoParticipantAlive) {
    const std::string name = new_name();
    Handle segment = create(name);
    const int inherited = ::dup(segment->lending_descriptor());
    Handle observer = Segment::attach(inherited, kQueueToRead);
    EXPECT_EQ(observer->participants().life(0), Life::Alive);
    segment.reset();  // as if the owner had died
    EXPECT_EQ(observer->participants().life(0), Life::Dead);
    ::close(inherited);
    observer->joined();
    observer->leave();
}

TEST_F(SegmentTest, AParticipantByDescriptorRemovesTheNameToo) {
    const std::string name = new_name();
    Handle segment = create(name);
    Handle other = Segment::attach(segment->lending_descriptor(), kQueueToRead);
    EXPECT_EQ(other->name(), name);
    take_slot(*other, 1);
    other->joined();
    leave(segment, 0);
    EXPECT_TRUE(exists(name));
    leave(other, 1);
    EXPECT_FALSE(exists(name));
}

TEST_F(SegmentTest, ADescriptorOfSomethingElseIsRefused) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    EXPECT_TRUE(refuses(ErrorCode::Incompatible, [&] { Segment::attach(ends[0], kQueueToRead); },
                        {"not a regular file"}));
    ::close(ends[0]);
    ::close(ends[1]);
    EXPECT_THROW(Segment::attach(-1, kQueueToRead), Error);
    std::error_code error;
    os::SharedFile empty = os::SharedFile::create_anonymous("penstock-test", error);
    EXPECT_TRUE(refuses(ErrorCode::Incompatible,
                        [&] { Segment::attach(empty.descriptor(), kQueueToRead); },
                        {"it holds 0 bytes only"}));
}

TEST_F(SegmentTest, IsForeignToAForkedChild) {
    const std::string name = new_name();
    Handle segment = create(name);
    EXPECT_FALSE(segment->is_foreign());
    Child child([&] {
        require(segment->is_foreign());
        segment->leave();
        segment.reset();
        require(exists(name));
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_EQ(Segment::attach(name, kQueueToRead)->participants().life(0), Life::Alive);
    leave(segment, 0);
    EXPECT_FALSE(exists(name));
}

TEST_F(SegmentTest, PopulatedMemoryIsResidentAtOnce) {
    Handle segment = create(new_name(), {.populate = true});
    EXPECT_EQ(segment->reserved_bytes(), segment->payload_offset() + kPayload / 2);
    leave(segment, 0);
}

TEST_F(SegmentTest, UnavailableOptionsAreErrors) {
    const std::string name = new_name();
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { create(name, {.numa_node = 63}); },
                        {"can't create '" + name + "' with numa_node", "numactl --hardware"}));
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { create(name, {.numa_node = -1}); },
                        {"numa_node"}));
    // 32 KiB are less than a huge page, whatever the kernel allows.
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { create(name, {.huge_pages = true}); },
                        {"huge_pages"}));
    EXPECT_FALSE(exists(name));
}

TEST_F(SegmentTest, AttachingCanWaitForTheName) {
    const std::string name = new_name();
    const Gate gate;
    const Gate end;
    Child child([&] {
        gate.pass();
        Handle segment = create(name);
        end.pass();
        leave(segment, 0);
    });
    std::jthread waiter([&] {
        const Handle segment = attach_when_there(name, kQueueToRead, kLong);
        EXPECT_EQ(segment->name(), name);
    });
    gate.open();
    waiter.join();
    end.open();
    EXPECT_EQ(child.wait(), 0);
}

TEST_F(SegmentTest, AttachingTimesOut) {
    const std::string name = new_name();
    EXPECT_TRUE(refuses(ErrorCode::NotFound,
                        [&] { attach_when_there(name, kQueueToRead, Deadline::now()); }));
    const auto start = Clock::now();
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [&] { attach_when_there(name, kQueueToRead, 100ms); },
                        {name}));
    EXPECT_GE(Clock::now() - start, 100ms);
    Wait wait = kLong;
    wait.interrupted = [](void*) { return true; };
    EXPECT_TRUE(refuses(ErrorCode::Cancelled, [&] { attach_when_there(name, kQueueToRead, wait); },
                        {"waiting for '" + name + "' to appear was cancelled"}));
    Cancel cancel;
    cancel.cancel();
    wait = kLong;
    wait.cancel = &cancel;
    EXPECT_TRUE(
        refuses(ErrorCode::Cancelled, [&] { attach_when_there(name, kQueueToRead, wait); }));
    EXPECT_LT(Clock::now() - start, kLong);
}

TEST_F(SegmentTest, WaitingIsForTheRequestedInstance) {
    const std::string name = new_name();
    Handle first = create(name);
    const Wanted wanted{Kind::Queue, Access::Read, std::string(32, '0')};
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [&] { attach_when_there(name, wanted, 100ms); }));
    leave(first, 0);
}

TEST(VisitTest, ChangesNothing) {
    const std::string name = test::run_prefix + "visit";
    Handle segment = create(name);
    {
        const Visit visit(name);
        EXPECT_EQ(visit.header().geometry[0], 42U);
        EXPECT_EQ(visit.participants().life(0), Life::Alive);
        EXPECT_EQ(visit.participants().life(1), Life::Free);
    }
    EXPECT_EQ(segment->participants().life(0), Life::Alive);
    leave(segment, 0);
}

// Many processes create, join and leave one name at once. Each success must yield a whole segment
// of its own instance, and no call may be refused without a reason.
TEST_F(SegmentTest, ManyComeAndGoAtOnce) {
    constexpr unsigned kProcesses = 3;
    constexpr int kTurns = 60;
    const std::string name = new_name();
    const test::Shared<std::atomic<int>> created;
    const test::Shared<std::atomic<int>> joined;
    const auto come_and_go = [&](unsigned slot) {
        for (int turn = 0; turn < kTurns; ++turn) {
            try {
                Handle segment = create(name);
                require(segment->participants().life(0) == Life::Alive);
                ++*created;
                const int before = *joined;  // stays a while, so that others can join
                for (int look = 0; look < 100 && *joined == before; ++look) {
                    std::this_thread::yield();
                }
                leave(segment, 0);
            } catch (const Error& error) {
                require(error.code() == ErrorCode::AlreadyExists);
            }
            try {
                Handle segment = join(name, slot);
                require(segment->header().geometry[0] == 42);
                ++*joined;
                leave(segment, slot);
            } catch (const Error& error) {
                require(error.code() == ErrorCode::NotFound || error.code() == ErrorCode::Busy);
            }
        }
    };
    std::vector<std::unique_ptr<Child>> children;
    for (unsigned i = 0; i < kProcesses; ++i) {
        children.push_back(std::make_unique<Child>([&, i] { come_and_go(1 + i); }));
    }
    for (auto& child : children) EXPECT_EQ(child->wait(), 0);
    EXPECT_GT(*created, 0);
    EXPECT_GT(*joined, 0);
    EXPECT_FALSE(exists(name));
}

}  // namespace
}  // namespace penstock::detail

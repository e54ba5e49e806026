// Inspection of segments: listing, summary, removal of abandoned ones; sizes as people write them.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "penstock/segment.hpp"
#include "segment/life/segment.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock {
namespace {

using detail::Segment;
using test::Child;
using test::Gate;
using test::refuses;

std::unique_ptr<Segment> create(const std::string& name, Kind kind) {
    detail::SegmentPlan plan;
    plan.kind = kind;
    plan.slots = 3;
    plan.control_bytes = 4096;
    plan.payload_bytes = 1U << 20U;
    plan.payload_reserved = 8192;
    return Segment::create(name, plan, {}, [](Segment& fresh) {
        test::require(fresh.participants().try_claim(0));
        fresh.participants().sign(0);
        fresh.participants().announce(0);
    });
}

void leave(std::unique_ptr<Segment>& segment) {
    segment->participants().retire(0);
    segment->participants().release(0);
    segment->leave();
    segment.reset();
}

class InspectTest : public test::CleanTest {
protected:
    // The segment's row in list_segments(), if it is listed.
    static std::optional<SegmentSummary> find_listed(const std::string& name) {
        const auto all = list_segments();
        const auto found = std::find_if(all.begin(), all.end(),
                                        [&](const auto& each) { return each.name == name; });
        return found == all.end() ? std::nullopt : std::optional(*found);
    }
};

TEST_F(InspectTest, ASegmentIsSummedUp) {
    const std::string name = new_name();
    auto segment = create(name, Kind::Store);
    for (const SegmentSummary& summary : {inspect_segment(name), find_listed(name).value()}) {
        EXPECT_EQ(summary.name, name);
        EXPECT_EQ(summary.kind, Kind::Store);
        EXPECT_EQ(summary.reserved_bytes, segment->reserved_bytes());
        EXPECT_EQ(summary.range_bytes, segment->header().file_size);
        EXPECT_EQ(summary.problem, "");
        EXPECT_FALSE(summary.is_abandoned());
        ASSERT_EQ(summary.participants.size(), 1U);
        const Participant& who = summary.participants[0];
        EXPECT_EQ(who.slot, 0U);
        EXPECT_EQ(who.role, "participant 0");
        EXPECT_TRUE(who.alive);
        EXPECT_FALSE(who.stopped);
        EXPECT_EQ(who.pid, static_cast<std::uint32_t>(::getpid()));
        EXPECT_EQ(who.process, "penstock_unit_tests");
        EXPECT_GT(who.attached_at, 0);
        EXPECT_EQ(who.how_it_died, "");
        EXPECT_TRUE(summary.reaped.empty());
    }
    leave(segment);
    EXPECT_FALSE(find_listed(name).has_value());
}

TEST_F(InspectTest, TellsTheLivingTheStoppedAndTheDead) {
    const std::string name = new_name();
    const Gate created;
    Child child([&] {
        const auto segment = create(name, Kind::Queue);
        created.open();
        for (;;) ::pause();
    });
    created.pass();
    EXPECT_TRUE(inspect_segment(name).participants.at(0).alive);
    EXPECT_FALSE(inspect_segment(name).participants.at(0).stopped);
    child.stop();
    EXPECT_TRUE(inspect_segment(name).participants.at(0).stopped);
    EXPECT_FALSE(inspect_segment(name).is_abandoned()) << "a stopped one may go on";
    EXPECT_FALSE(remove_if_abandoned(name));
    child.kill_unreaped();
    const SegmentSummary summary = inspect_segment(name);
    EXPECT_FALSE(summary.participants.at(0).alive);
    EXPECT_FALSE(summary.participants.at(0).stopped);
    EXPECT_EQ(summary.participants.at(0).pid, static_cast<std::uint32_t>(child.pid()));
    EXPECT_EQ(summary.participants.at(0).signal, SIGKILL);
    EXPECT_EQ(summary.participants.at(0).how_it_died, "killed by signal 9 (SIGKILL)");
    EXPECT_TRUE(summary.reaped.empty());
    EXPECT_TRUE(summary.is_abandoned());
    EXPECT_TRUE(remove_if_abandoned(name));
    EXPECT_FALSE(exists(name));
}

TEST_F(InspectTest, ASegmentInUseIsNotRemoved) {
    const std::string name = new_name();
    auto segment = create(name, Kind::Queue);
    EXPECT_FALSE(remove_if_abandoned(name));
    EXPECT_TRUE(exists(name));
    leave(segment);
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [&] { remove_if_abandoned(name); }, {name}));
}

TEST_F(InspectTest, ASegmentThatIsBeingJoinedIsNotRemoved) {
    const std::string name = new_name();
    create(name, Kind::Queue).reset();  // dropped without leaving: dead
    const auto joining = Segment::attach(name, {Kind::Queue, os::Mapping::Access::Read, {}});
    EXPECT_FALSE(remove_if_abandoned(name));
    joining->joined();
    EXPECT_TRUE(remove_if_abandoned(name));
}

TEST_F(InspectTest, AnUnreadableSegmentIsListedWithItsProblem) {
    const std::string name = new_name();
    std::ofstream(path_of(name)) << "notes";
    const auto listed = find_listed(name);
    ASSERT_TRUE(listed.has_value());
    EXPECT_TRUE(test::says(listed->problem, {"is not a Penstock segment"}));
    EXPECT_FALSE(listed->is_abandoned()) << "gc must not touch it";
    EXPECT_TRUE(refuses(ErrorCode::Incompatible, [&] { inspect_segment(name); }));
    EXPECT_TRUE(refuses(ErrorCode::Incompatible, [&] { remove_if_abandoned(name); }));
    EXPECT_TRUE(exists(name));
    std::filesystem::remove(path_of(name));
}

TEST_F(InspectTest, InspectingAMissingSegmentFails) {
    EXPECT_TRUE(refuses(ErrorCode::NotFound, [&] { inspect_segment(new_name()); }));
    EXPECT_TRUE(refuses(ErrorCode::InvalidName, [] { inspect_segment("a/b"); }));
    EXPECT_TRUE(refuses(ErrorCode::InvalidName, [] { remove_if_abandoned(""); }));
}

TEST_F(InspectTest, FilesElsewhereCanBeInspectedToo) {
    const test::TemporaryFolder folder;
    const std::string name = "file:" + (folder / "steps");
    auto segment = create(name, Kind::Service);
    EXPECT_EQ(inspect_segment(name).kind, Kind::Service);
    EXPECT_FALSE(remove_if_abandoned(name));
    leave(segment);
}

TEST(ParseSizeTest, UnderstandsUsualNotations) {
    const std::pair<const char*, std::uint64_t> sizes[] = {
        {"0", 0},
        {"4096", 4096},
        {"1b", 1},
        {"64KiB", 65536},
        {"64kib", 65536},
        {"64k", 65536},
        {"10KB", 10'000},
        {"4MiB", 4U << 20U},
        {"4M", 4U << 20U},
        {"10MB", 10'000'000},
        {"1.5GiB", 1'610'612'736},
        {"2g", 2ULL << 30U},
        {"1GB", 1'000'000'000},
        {"1TiB", 1ULL << 40U},
        {"1T", 1ULL << 40U},
        {"2TB", 2'000'000'000'000},
        {"16 MiB", 16U << 20U},
        {"0.5KiB", 512},
    };
    for (const auto& [text, size] : sizes) EXPECT_EQ(parse_size(text), size) << text;
}

TEST(ParseSizeTest, RefusesOthersAndShowsTheNotation) {
    const std::pair<const char*, const char*> texts[] = {
        {"", "it must start with a digit"},    {"MiB", "it must start with a digit"},
        {"-1", "it must start with a digit"},  {" 1", "it must start with a digit"},
        {"nan", "it must start with a digit"}, {"inf", "it must start with a digit"},
        {"1 mebibyte", "its unit is unknown"}, {"1.5.2", "its unit is unknown"},
        {"12,5MiB", "its unit is unknown"},    {"1 0", "its unit is unknown"},
        {"99999999TiB", "it is too large"},    {"1e30", "it is too large"},
    };
    for (const auto& [text, reason] : texts) {
        EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&size = text] { parse_size(size); },
                            {std::string("'") + text + "' is no size", reason, "4MiB"}));
    }
}

}  // namespace
}  // namespace penstock

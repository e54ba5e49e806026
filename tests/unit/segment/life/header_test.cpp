// The header: it is read as it was written, and every damage is found before a field is used.
#include "segment/life/header.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <system_error>

#include "os/clock.hpp"
#include "os/fence.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock::detail {
namespace {

using layout::kPage;
using layout::SegmentHeader;
using test::Child;
using test::Parts;
using test::refuses;
using test::require;

SegmentPlan make_plan() {
    SegmentPlan plan;
    plan.kind = Kind::Store;
    plan.geometry = {11, 22, 33, 44, 55, 66, 77, 88};
    plan.slots = 20;
    plan.control_bytes = 5000;
    plan.payload_bytes = 100'000;
    return plan;
}

// As docs/layout.md defines it: FNV-1a over everything before the checksum.
std::uint64_t checksum_of(const SegmentHeader& header) {
    unsigned char bytes[offsetof(SegmentHeader, checksum)];
    std::memcpy(bytes, &header, sizeof bytes);
    std::uint64_t hash = 14695981039346656037U;
    for (const unsigned char byte : bytes) hash = (hash ^ byte) * 1099511628211U;
    return hash;
}

// A file that starts with the given bytes.
os::SharedFile make_file(const void* bytes, std::size_t count, std::uint64_t size) {
    std::error_code error;
    os::SharedFile file = os::SharedFile::create_anonymous("penstock-test", error);
    require(!error && !file.set_size(size));
    require(::pwrite(file.descriptor(), bytes, count, 0) == static_cast<ssize_t>(count));
    return file;
}

os::SharedFile make_file(const SegmentHeader& header) {
    return make_file(&header, sizeof header, make_header("steps", make_plan()).file_size);
}

TEST(HeaderTest, ASegmentWithHugePagesSaysSo) {
    SegmentPlan plan = make_plan();
    plan.huge_pages = true;
    const SegmentHeader header = read_header(make_file(make_header("steps", plan)), "'steps'");
    EXPECT_EQ(header.features & layout::kFeatureHugePages, layout::kFeatureHugePages);
}

TEST(HeaderTest, RoundTrips) {
    const std::int64_t before = os::wall_ns();
    const SegmentHeader made = make_header("steps", make_plan());
    const SegmentHeader header = read_header(make_file(made), "'steps'");
    EXPECT_EQ(std::memcmp(&header, &made, sizeof header), 0);
    EXPECT_EQ(header.magic, 0x4B434F54534E4550U);
    EXPECT_EQ(std::memcmp(&header.magic, "PENSTOCK", 8), 0);
    EXPECT_EQ(header.layout_version, layout::kLayoutVersion);
    EXPECT_EQ(header.kind, static_cast<std::uint32_t>(Kind::Store));
    EXPECT_EQ(header.pointer_bits, 64U);
    EXPECT_EQ(header.features, os::register_asymmetric_fence() ? 1U : 0U);
    EXPECT_EQ(header.slot_count, 20U);
    EXPECT_EQ(header.control_size, 5000U);
    EXPECT_EQ(header.payload_size, 100'000U);
    EXPECT_STREQ(header.name, "steps");
    EXPECT_GE(header.created_at, before);
    EXPECT_LE(header.created_at, os::wall_ns());
    EXPECT_EQ(header.checksum, checksum_of(header));
    for (std::size_t i = 0; i < layout::kGeometryWords; ++i) {
        EXPECT_EQ(header.geometry[i], 11 * (i + 1));
    }
}

TEST(HeaderTest, LaysThePartsOnSuccessivePages) {
    const SegmentHeader header = make_header("steps", make_plan());
    EXPECT_EQ(header.slots_offset, kPage);
    EXPECT_EQ(header.control_offset, 3 * kPage) << "20 slots of 256 bytes take two pages";
    EXPECT_GE(header.payload_offset, header.control_offset + header.control_size);
    EXPECT_EQ(header.payload_offset % os::page_size(), 0U);
    EXPECT_GE(header.file_size, header.payload_offset + header.payload_size);
    EXPECT_EQ(header.file_size % os::page_size(), 0U);
}

TEST(HeaderTest, NoTwoAreTheSameInstance) {
    const SegmentHeader first = make_header("steps", make_plan());
    const SegmentHeader second = make_header("steps", make_plan());
    EXPECT_NE(std::memcmp(first.instance, second.instance, sizeof first.instance), 0);
}

TEST(HeaderTest, CutsLongNamesAndAlwaysEndsThem) {
    const SegmentHeader made = make_header(std::string(300, 'x'), make_plan());
    EXPECT_EQ(std::string(made.name), std::string(layout::kNameBytes - 1, 'x'));
    SegmentHeader hostile = made;
    hostile.name[layout::kNameBytes - 1] = 'x';
    hostile.checksum = checksum_of(hostile);
    const SegmentHeader header = read_header(make_file(hostile), "'steps'");
    EXPECT_EQ(std::string(header.name).size(), layout::kNameBytes - 1);
}

TEST(HeaderTest, AnUnknownWaitPolicyIsBalanced) {
    SegmentPlan plan = make_plan();
    plan.waiting = WaitPolicy::Frugal;
    SegmentHeader header = make_header("steps", plan);
    EXPECT_EQ(waiting_of(read_header(make_file(header), "'steps'")), WaitPolicy::Frugal);
    for (const std::uint64_t hostile : {std::uint64_t{3}, std::uint64_t{256}, ~std::uint64_t{0}}) {
        header.waiting = hostile;
        header.checksum = checksum_of(header);
        EXPECT_EQ(waiting_of(read_header(make_file(header), "'steps'")), WaitPolicy::Balanced);
    }
}

TEST(HeaderTest, EveryFlippedBitIsNoticed) {
    const SegmentHeader made = make_header("steps", make_plan());
    for (std::size_t at = 0; at < sizeof made; ++at) {
        unsigned char bytes[sizeof made];
        std::memcpy(bytes, &made, sizeof bytes);
        bytes[at] ^= static_cast<unsigned char>(1U << (at % 8));
        const os::SharedFile file = make_file(bytes, sizeof bytes, made.file_size);
        EXPECT_THROW(read_header(file, "'steps'"), Error) << "byte " << at;
    }
}

// One fault of a header, with its checksum right or not.
struct Fault {
    const char* label;
    std::function<void(SegmentHeader&)> spoil;
    ErrorCode code = ErrorCode::Corrupt;
    const char* sentence = "its parts do not fit together";
    bool keeps_checksum = false;
};

void PrintTo(const Fault& fault, std::ostream* out) {
    *out << fault.label;
}

class FaultyHeaderTest : public ::testing::TestWithParam<Fault> {};

TEST_P(FaultyHeaderTest, IsRefusedInWords) {
    const Fault& fault = GetParam();
    SegmentHeader header = make_header("steps", make_plan());
    fault.spoil(header);
    if (!fault.keeps_checksum) header.checksum = checksum_of(header);
    const os::SharedFile file = make_file(header);
    EXPECT_TRUE(
        refuses(fault.code, [&] { read_header(file, "'steps'"); }, {"'steps' ", fault.sentence}));
}

constexpr std::uint64_t kHuge = ~std::uint64_t{0} - 4095;

INSTANTIATE_TEST_SUITE_P(
    HeaderTest, FaultyHeaderTest,
    ::testing::Values(
        Fault{"Magic", [](auto& header) { ++header.magic; }, ErrorCode::Incompatible,
              "is not a Penstock segment; choose another name or remove the file"},
        Fault{"NewerVersion", [](auto& header) { ++header.layout_version; },
              ErrorCode::Incompatible, "use the same version on both sides"},
        Fault{"ByteOrder", [](auto& header) { header.byte_order = 0x04030201; },
              ErrorCode::Incompatible, "another byte order or pointer width"},
        Fault{"PointerWidth", [](auto& header) { header.pointer_bits = 32; },
              ErrorCode::Incompatible, "another byte order or pointer width"},
        Fault{"Features", [](auto& header) { header.features |= 1U << 20U; },
              ErrorCode::Incompatible, "needs features that this Penstock does not know"},
        Fault{"Checksum", [](auto& header) { ++header.checksum; }, ErrorCode::Corrupt,
              "is damaged: its header does not match its checksum", true},
        Fault{"Kind", [](auto& header) { ++header.kind; }, ErrorCode::Corrupt, "checksum", true},
        Fault{"FileSize", [](auto& header) { header.file_size += kPage; }, ErrorCode::Corrupt,
              "is cut short: "},
        Fault{"NoSlots", [](auto& header) { header.slot_count = 0; }},
        Fault{"TooManySlots", [](auto& header) { header.slot_count = layout::kMaxSlots + 1; }},
        Fault{"SlotsThatOverflow", [](auto& header) { header.slot_count = 1ULL << 56U; }},
        Fault{"SlotsInTheHeader", [](auto& header) { header.slots_offset = 0; }},
        Fault{"SlotsOffAPage", [](auto& header) { header.slots_offset += 8; }},
        Fault{"SlotsBeyondTheEnd", [](auto& header) { header.slots_offset = header.file_size; }},
        Fault{"SlotsFarOut", [](auto& header) { header.slots_offset = kHuge; }},
        Fault{"ControlInTheSlots",
              [](auto& header) { header.control_offset = header.slots_offset; }},
        Fault{"ControlOffAPage", [](auto& header) { header.control_offset += 64; }},
        Fault{"ControlFarOut", [](auto& header) { header.control_offset = kHuge; }},
        Fault{"ControlTooLarge", [](auto& header) { header.control_size = header.file_size; }},
        Fault{"ControlThatOverflows", [](auto& header) { header.control_size = ~0ULL; }},
        Fault{"PayloadInTheControl",
              [](auto& header) { header.payload_offset = header.control_offset; }},
        Fault{"PayloadOffAPage", [](auto& header) { header.payload_offset -= 8; }},
        Fault{"PayloadBeyondTheEnd",
              [](auto& header) { header.payload_offset = header.file_size + kPage; }},
        Fault{"PayloadTooLarge", [](auto& header) { header.payload_size = header.file_size; }},
        Fault{"PayloadThatOverflows", [](auto& header) { header.payload_size = ~0ULL; }}),
    [](const auto& chosen) { return std::string(chosen.param.label); });

TEST(HeaderTest, NamesBothVersions) {
    SegmentHeader header = make_header("steps", make_plan());
    header.layout_version = 7;
    EXPECT_TRUE(refuses(
        ErrorCode::Incompatible, [&] { read_header(make_file(header), "'steps'"); },
        {"has layout version 7", "speaks version " + std::to_string(layout::kLayoutVersion)}));
}

TEST(HeaderTest, RecognizesAFileTooShortForAHeader) {
    const SegmentHeader header = make_header("steps", make_plan());
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, sizeof header - 1}) {
        EXPECT_TRUE(refuses(
            ErrorCode::Incompatible, [&] { read_header(make_file(&header, 0, size), "'steps'"); },
            {"is not a Penstock segment", "it holds " + std::to_string(size) + " bytes only"}));
    }
}

TEST(HeaderTest, RecognizesATruncatedFile) {
    const SegmentHeader header = make_header("steps", make_plan());
    for (const std::uint64_t size : {sizeof header, kPage, header.file_size - 1}) {
        EXPECT_TRUE(refuses(
            ErrorCode::Corrupt,
            [&] { read_header(make_file(&header, sizeof header, size), "'steps'"); },
            {"is cut short: " + std::to_string(size) + " of " + std::to_string(header.file_size)}));
    }
}

TEST(HeaderTest, OtherFilesAreNoSegments) {
    const std::string text(10'000, '#');
    EXPECT_TRUE(
        refuses(ErrorCode::Incompatible,
                [&] { read_header(make_file(text.data(), text.size(), text.size()), "'steps'"); },
                {"is not a Penstock segment"}));
}

}  // namespace
}  // namespace penstock::detail

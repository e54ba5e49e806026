// Header checks. A hostile file may hold anything, so each number is compared before it is used.
#include "segment/life/header.hpp"

#include <algorithm>
#include <cstring>

#include "os/clock.hpp"
#include "os/fence.hpp"
#include "segment/hash.hpp"
#include "segment/life/refusal.hpp"

namespace penstock::detail {
namespace {

using layout::kPage;
using layout::SegmentHeader;

std::uint64_t checksum_of(const SegmentHeader& header) noexcept {
    return fnv1a({reinterpret_cast<const char*>(&header), offsetof(SegmentHeader, checksum)});
}

[[noreturn]] void refuse(ErrorCode code, const std::string& where, const std::string& why) {
    throw Error(code, where + " " + why);
}

// Pages that parts may begin on.
std::uint64_t part_page() noexcept {
    return std::max(kPage, os::page_size());
}

// start..start+size lies within [from, to) and starts on a page of any machine.
bool is_part(std::uint64_t start, std::uint64_t size, std::uint64_t from,
             std::uint64_t to) noexcept {
    return start % kPage == 0 && start >= from && start <= to && size <= to - start;
}

void check_kind_of_file(const SegmentHeader& header, const std::string& where) {
    if (header.magic != layout::kMagic) {
        refuse(ErrorCode::Incompatible, where,
               "is not a Penstock segment; choose another name or remove the file");
    }
    if (header.layout_version != layout::kLayoutVersion) {
        refuse(ErrorCode::Incompatible, where,
               "has layout version " + std::to_string(header.layout_version) +
                   " and this Penstock speaks version " + std::to_string(layout::kLayoutVersion) +
                   "; use the same version on both sides");
    }
    if (header.byte_order != layout::kByteOrder || header.pointer_bits != 64) {
        refuse(ErrorCode::Incompatible, where,
               "was made by a machine of another byte order or pointer width");
    }
}

void check_numbers(const SegmentHeader& header, std::uint64_t file_size, const std::string& where) {
    if (header.checksum != checksum_of(header)) {
        refuse(ErrorCode::Corrupt, where, "is damaged: its header does not match its checksum");
    }
    if ((header.features & ~layout::kKnownFeatures) != 0) {
        refuse(ErrorCode::Incompatible, where, "needs features that this Penstock does not know");
    }
    if (file_size < header.file_size) {
        refuse(ErrorCode::Corrupt, where,
               "is cut short: " + std::to_string(file_size) + " of " +
                   std::to_string(header.file_size) + " bytes");
    }
    const std::uint64_t slot_bytes = header.slot_count * sizeof(layout::ParticipantSlot);
    const bool adds_up = header.slot_count >= 1 && header.slot_count <= layout::kMaxSlots &&
                         is_part(header.slots_offset, slot_bytes, kPage, header.file_size) &&
                         is_part(header.control_offset, header.control_size,
                                 header.slots_offset + slot_bytes, header.file_size) &&
                         is_part(header.payload_offset, header.payload_size,
                                 header.control_offset + header.control_size, header.file_size);
    if (!adds_up) refuse(ErrorCode::Corrupt, where, "is damaged: its parts do not fit together");
    const std::uint64_t starts =
        header.slots_offset | header.control_offset | header.payload_offset | header.file_size;
    if (starts % part_page() != 0) {
        refuse(ErrorCode::Incompatible, where,
               "was made for smaller pages than the " + std::to_string(part_page() >> 10U) +
                   " KiB that this machine has");
    }
}

}  // namespace

SegmentHeader make_header(const std::string& name, const SegmentPlan& plan) {
    SegmentHeader header{};
    header.magic = layout::kMagic;
    header.layout_version = layout::kLayoutVersion;
    header.kind = static_cast<std::uint32_t>(plan.kind);
    header.byte_order = layout::kByteOrder;
    header.pointer_bits = 64;
    header.features = os::register_asymmetric_fence() ? layout::kFeatureAsymmetricFence : 0;
    if (plan.huge_pages) header.features |= layout::kFeatureHugePages;
    auto* const instance = reinterpret_cast<std::byte*>(header.instance);
    const std::error_code error = os::fill_random(instance, sizeof header.instance);
    if (error) throw_refused(Step::Identify, {name, name, ""}, error);
    const std::uint64_t page = part_page();
    header.slots_offset = page;
    header.slot_count = plan.slots;
    header.control_offset =
        layout::round_up(header.slots_offset + plan.slots * sizeof(layout::ParticipantSlot), page);
    header.control_size = plan.control_bytes;
    header.payload_offset = layout::round_up(header.control_offset + header.control_size,
                                             std::max(page, plan.payload_alignment));
    header.payload_size = plan.payload_bytes;
    header.file_size = layout::round_up(header.payload_offset + header.payload_size, page);
    std::memcpy(header.geometry, plan.geometry.data(), sizeof header.geometry);
    header.created_at = os::wall_ns();
    std::memcpy(header.name, name.data(), std::min(name.size(), layout::kNameBytes - 1));
    header.waiting = static_cast<std::uint64_t>(plan.waiting);
    header.checksum = checksum_of(header);
    return header;
}

SegmentHeader read_header(const os::SharedFile& file, const std::string& where) {
    std::error_code error;
    const auto facts = file.facts(error);
    if (error) refuse(ErrorCode::System, where, "can't be examined: " + error.message());
    SegmentHeader header{};
    if (facts.size < sizeof header || !file.read(0, &header, sizeof header)) {
        refuse(ErrorCode::Incompatible, where,
               "is not a Penstock segment: it holds " + std::to_string(facts.size) + " bytes only");
    }
    check_kind_of_file(header, where);
    check_numbers(header, facts.size, where);
    header.name[layout::kNameBytes - 1] = '\0';
    return header;
}

WaitPolicy waiting_of(const SegmentHeader& header) noexcept {
    constexpr auto kLast = static_cast<std::uint64_t>(WaitPolicy::Frugal);
    return header.waiting <= kLast ? static_cast<WaitPolicy>(header.waiting) : WaitPolicy::Balanced;
}

}  // namespace penstock::detail

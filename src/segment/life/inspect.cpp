// Summaries of segments for display, and human-readable sizes.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <utility>

#include "os/huge_pages.hpp"
#include "os/process.hpp"
#include "penstock/segment.hpp"
#include "segment/life/header.hpp"
#include "segment/life/segment.hpp"

namespace penstock {
namespace detail {
namespace {

std::string role_of(std::uint32_t kind, unsigned slot) {
    if (static_cast<Kind>(kind) != Kind::Broadcast) return "participant " + std::to_string(slot);
    return slot == 0 ? "writer" : "reader " + std::to_string(slot - 1);
}

// "64 MiB", "1.5 GiB": one decimal where there is one.
std::string size_text(std::uint64_t bytes) {
    constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    auto size = static_cast<double>(bytes);
    std::size_t unit = 0;
    for (; size >= 1023.95 && unit + 1 < std::size(kUnits); ++unit) size /= 1024;
    const auto tenths = static_cast<std::uint64_t>(std::llround(size * 10));
    std::string text = std::to_string(tenths / 10);
    if (tenths % 10 != 0) text += "." + std::to_string(tenths % 10);
    return text + " " + kUnits[unit];
}

Participant describe(const Visit& visit, unsigned slot) {
    const ParticipantText text = visit.participants().text(slot);
    Participant who;
    who.slot = slot;
    who.role = role_of(visit.header().kind, slot);
    who.alive = visit.participants().life(slot) == Life::Alive;
    who.stopped = who.alive && os::is_stopped(text.pid, text.pid_namespace, text.start_time);
    who.pid = text.pid;
    who.process = text.process;
    who.attached_at = text.attached_at;
    const Participants& participants = visit.participants();
    if (!who.alive) participants.death(slot, participants.joins(slot)).describe(who);
    return who;
}

// The last participant of a free slot, if it was found dead. The slot may have the signature of a
// process that is joining; the note has a pid of its own.
std::optional<Participant> describe_reaped(const Visit& visit, unsigned slot) {
    const Participants& participants = visit.participants();
    const std::uint64_t join = participants.joins(slot);
    if (join == 0 || participants.found_dead(slot) != join) return std::nullopt;
    const DeathNote death = participants.death(slot, join);
    Participant who;
    who.slot = slot;
    who.role = role_of(visit.header().kind, slot);
    who.pid = death.pid;
    death.describe(who);
    const ParticipantText text = participants.text(slot);
    if (text.pid == who.pid) {
        who.process = text.process;
        who.attached_at = text.attached_at;
    }
    return who;
}

// Only memory that was reserved at creation is put into huge pages, and it comes first.
std::uint64_t huge_page_bytes(const os::SharedFile& file, const layout::SegmentHeader& header,
                              std::uint64_t reserved) noexcept {
    if ((header.features & layout::kFeatureHugePages) == 0) return 0;
    return os::bytes_in_huge_pages(file, header.payload_offset,
                                   std::min(header.payload_size, reserved));
}

}  // namespace

void read_segment_stats(SegmentStats& stats, const layout::SegmentHeader& header,
                        const Participants& participants, const os::SharedFile& file) noexcept {
    std::error_code error;
    stats.reserved_bytes = file.facts(error).reserved;
    stats.huge_page_bytes = huge_page_bytes(file, header, stats.reserved_bytes);
    stats.waiting = waiting_of(header);
    const unsigned slots = participants.count();
    stats.joins = 0;
    WaitCosts costs;
    for (unsigned slot = 0; slot < slots; ++slot) {
        stats.joins += participants.joins(slot);
        costs += participants.wait_costs(slot);
    }
    stats.deaths = participants.deaths(0, slots);
    set_wait_costs(stats, costs);
}

void set_wait_costs(SegmentStats& stats, const WaitCosts& costs) noexcept {
    stats.spin_seconds = static_cast<double>(costs.spun) / 1e9;
    stats.spins_won = costs.spins_won;
    stats.waits_slept = costs.slept;
}

SegmentSummary summarize(Visit& visit, const std::string& name) {
    SegmentSummary summary;
    summary.name = name;
    summary.kind = static_cast<Kind>(visit.header().kind);
    summary.range_bytes = visit.header().file_size;
    std::error_code error;
    const auto facts = visit.file().facts(error);
    summary.reserved_bytes = facts.reserved;
    summary.owner = facts.owner;
    for (unsigned slot = 0; slot < visit.participants().count(); ++slot) {
        if (visit.participants().is_announced(slot)) {
            summary.participants.push_back(describe(visit, slot));
        } else if (auto dead = describe_reaped(visit, slot)) {
            summary.reaped.push_back(std::move(*dead));
        }
    }
    if (summary.is_abandoned()) summary.kept = kept_data(visit);
    return summary;
}

}  // namespace detail

std::string KeptData::describe() const {
    const auto counted = [](std::uint64_t count, const char* thing) {
        return std::to_string(count) + " " + thing + (count == 1 ? "" : "s");
    };
    if (persistent) {
        return counted(objects, "object") + ", " + detail::size_text(bytes) + ", persistent";
    }
    return messages == 0 ? "" : counted(messages, "message");
}

bool SegmentSummary::is_abandoned() const noexcept {
    return problem.empty() && std::none_of(participants.begin(), participants.end(),
                                           [](const Participant& who) { return who.alive; });
}

std::uint64_t parse_size(const std::string& text) {
    const auto refuse = [&](const char* why) -> std::uint64_t {
        throw Error(ErrorCode::InvalidArgument,
                    "'" + text + "' is no size: " + why +
                        "; write bytes or a number with a unit, such as 4096, 64KiB, 4MiB, 1.5GiB");
    };
    const char* start = text.c_str();
    if (text.empty() || (std::isdigit(static_cast<unsigned char>(*start)) == 0)) {
        return refuse("it must start with a digit");
    }
    char* end = nullptr;
    const double number = std::strtod(start, &end);
    std::string unit;
    for (; *end != '\0'; ++end) {
        if (*end != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*end)));
    }
    constexpr std::pair<const char*, double> kUnits[] = {{"", 1},
                                                         {"b", 1},
                                                         {"kib", 1024.0},
                                                         {"k", 1024.0},
                                                         {"kb", 1e3},
                                                         {"mib", 1048576.0},
                                                         {"m", 1048576.0},
                                                         {"mb", 1e6},
                                                         {"gib", 1073741824.0},
                                                         {"g", 1073741824.0},
                                                         {"gb", 1e9},
                                                         {"tib", 1099511627776.0},
                                                         {"t", 1099511627776.0},
                                                         {"tb", 1e12}};
    for (const auto& [name, factor] : kUnits) {
        if (unit != name) continue;
        const double bytes = number * factor;
        if (!(bytes < 9e18)) return refuse("it is too large");
        return static_cast<std::uint64_t>(std::llround(bytes));
    }
    return refuse("its unit is unknown");
}

}  // namespace penstock

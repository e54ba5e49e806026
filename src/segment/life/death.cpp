// A participant's death, as a word in its slot and in words.
#include "segment/life/death.hpp"

#include <string_view>

#include "segment/layout.hpp"

namespace penstock::detail {
namespace {

using How = os::ProcessEnd::How;
using Why = os::ProcessEnd::Why;
using layout::ParticipantSlot;

const char* reason(Why why) noexcept {
    switch (why) {
        case Why::Gone:
            break;
        case Why::Elsewhere:
            return "it ran in another PID namespace";
        case Why::Hidden:
            return "the kernel does not show its exit status to this user";
        case Why::Running:
            return "its process was still ending, or went on without its lock";
        case Why::Unsupported:
            return "this operating system does not tell";
    }
    return "its exit status had been collected before a participant looked";
}

std::string killed_by(int signal) {
    const std::string_view name = os::signal_name(signal);
    std::string text = "killed by signal " + std::to_string(signal);
    if (!name.empty()) text.append(" (").append(name).append(")");
    return text;
}

std::string exited_with(int code) {
    return "ended with exit code " + std::to_string(code) + " without closing";
}

std::string unknown(Why why) {
    return std::string("how it ended is not known here: ") + reason(why);
}

}  // namespace

bool DeathNote::is_outdone_by(const DeathNote& other) const noexcept {
    const std::uint32_t later = other.join - join;  // modulo 2^32
    if (later != 0) return later < std::uint32_t{1} << 31U;
    return !end.is_known() && other.end.is_known();
}

Death DeathNote::death() const noexcept {
    Death known;
    if (pid != 0) known.pid = pid;
    if (end.how == How::Exited) known.exit_code = end.number;
    if (end.how == How::Killed) known.signal = end.number;
    return known;
}

std::string DeathNote::predicate() const {
    if (end.how == How::Exited) return exited_with(end.number);
    return end.how == How::Killed ? "was " + killed_by(end.number) : "died";
}

std::string DeathNote::doubt() const {
    return end.is_known() ? "" : "; " + unknown(end.why);
}

std::string DeathNote::summary() const {
    if (end.how == How::Exited) return exited_with(end.number);
    return end.how == How::Killed ? killed_by(end.number) : unknown(end.why);
}

std::uint64_t encode_death(const DeathNote& note) noexcept {
    const std::uint64_t pid = note.pid <= ParticipantSlot::kMaxDeadPid ? note.pid : 0;
    const auto number =
        note.end.is_known() ? note.end.number : static_cast<std::uint8_t>(note.end.why);
    return std::uint64_t{note.join} << ParticipantSlot::kDeadJoinShift |
           pid << ParticipantSlot::kDeadPidShift |
           static_cast<std::uint64_t>(note.end.how) << ParticipantSlot::kDeadHowShift | number;
}

DeathNote decode_death(std::uint64_t word) noexcept {
    DeathNote note;
    note.join = static_cast<std::uint32_t>(word >> ParticipantSlot::kDeadJoinShift);
    note.pid = static_cast<std::uint32_t>(word >> ParticipantSlot::kDeadPidShift) &
               ParticipantSlot::kMaxDeadPid;
    const auto number = static_cast<std::uint8_t>(word);
    switch (word >> ParticipantSlot::kDeadHowShift & 3U) {
        case static_cast<std::uint64_t>(How::Exited):
            note.end = {How::Exited, number, Why::Gone};
            break;
        case static_cast<std::uint64_t>(How::Killed):
            note.end = {How::Killed, number, Why::Gone};
            break;
        default:
            if (number <= static_cast<std::uint8_t>(Why::Unsupported)) {
                note.end.why = static_cast<Why>(number);
            }
            break;
    }
    return note;
}

}  // namespace penstock::detail

// A participant's death: which process it was, how the process ended, and the words for it. For
// people: nothing is decided by it. See layout::ParticipantSlot::last_death.
#pragma once

#include <cstdint>
#include <string>

#include "os/process_end.hpp"
#include "penstock/error.hpp"

namespace penstock::detail {

struct DeathNote {
    std::uint32_t join = 0;  // the lowest bits of the participant's join number; 0: no note
    std::uint32_t pid = 0;   // in the participant's PID namespace; 0: unknown
    os::ProcessEnd end;

    [[nodiscard]] bool is_of(std::uint64_t join_number) const noexcept {
        return join == static_cast<std::uint32_t>(join_number);
    }
    // Whether `other` is about a later participant, or tells an end that this note does not.
    [[nodiscard]] bool is_outdone_by(const DeathNote& other) const noexcept;
    [[nodiscard]] Death death() const noexcept;
    // "was killed by signal 9 (SIGKILL)", "ended with exit code 3 without closing", "died".
    [[nodiscard]] std::string predicate() const;
    // To be added to a sentence with the predicate: "; how it ended is not known here: " and the
    // reason; empty if the end is known.
    [[nodiscard]] std::string doubt() const;
    // Predicate or doubt alone, for tables: "killed by signal 9 (SIGKILL)".
    [[nodiscard]] std::string summary() const;
    // Fills the fields that a Participant and a BroadcastReaderState have for it.
    template <typename State>
    void describe(State& state) const {
        state.exit_code = death().exit_code;
        state.signal = death().signal;
        state.how_it_died = summary();
    }
};

// The note as a word in shared memory. Any word can be decoded.
std::uint64_t encode_death(const DeathNote& note) noexcept;
DeathNote decode_death(std::uint64_t word) noexcept;

}  // namespace penstock::detail

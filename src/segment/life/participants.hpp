// The participants of a segment, and the kernel's answer whether they live. One slot each; a
// participant lives while it holds the write lock on the first byte of its slot.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "os/shared_file.hpp"
#include "segment/layout.hpp"
#include "segment/life/death.hpp"
#include "segment/waiting/peers.hpp"
#include "segment/waiting/timing.hpp"
#include "segment/waiting/wait_meter.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {

enum class Life : std::uint8_t {
    Free,   // empty, or claimed and not announced yet
    Alive,  // announced, and the kernel holds its lock
    Dead,   // announced, and the lock is free: a janitor may reap it
};

// Contents of a slot, for display.
struct ParticipantText {
    std::uint32_t pid = 0;
    std::uint64_t pid_namespace = 0;
    std::uint64_t start_time = 0;
    std::int64_t attached_at = 0;
    std::string process;
};

// The word in which finders note this participant's death, and the join number that it is compared
// with. Any thread may read it while another joins or leaves.
class OwnMark {
public:
    OwnMark() noexcept = default;
    OwnMark(const std::atomic<std::uint64_t>& found_dead, std::uint64_t join) noexcept
        : found_dead_(&found_dead), join_(join) {}
    OwnMark(const OwnMark& other) noexcept { *this = other; }
    OwnMark& operator=(const OwnMark& other) noexcept {
        store_relaxed(found_dead_, load_relaxed(other.found_dead_));
        store_relaxed(join_, load_relaxed(other.join_));
        return *this;
    }
    ~OwnMark() = default;

    [[nodiscard]] bool is_found_dead() const noexcept {
        return load_acquire(*load_relaxed(found_dead_)) >= load_relaxed(join_);
    }

private:
    static constinit const std::atomic<std::uint64_t> kNobody;  // 0

    std::atomic<const std::atomic<std::uint64_t>*> found_dead_ = &kNobody;
    std::atomic<std::uint64_t> join_ = ~std::uint64_t{0};
};

// A view of the slot table through one file description. Not thread-safe, except life() and text().
// The locks belong to `file`, so each handle needs a file of its own.
class Participants {
public:
    Participants() noexcept = default;
    Participants(os::SharedFile& file, layout::ParticipantSlot* slots, std::uint64_t slots_offset,
                 unsigned count) noexcept
        : file_(&file), slots_(slots), slots_offset_(slots_offset), count_(count) {}
    // For inspection from outside, without a mapping: `copy` was read from the file, and the words
    // of the slots are read from the file again at each query. Nothing can be claimed; a death is
    // noted in the file.
    static Participants of_copy(os::SharedFile& file, layout::ParticipantSlot* copy,
                                std::uint64_t slots_offset, unsigned count) noexcept {
        Participants participants(file, copy, slots_offset, count);
        participants.is_copy_ = true;
        return participants;
    }

    [[nodiscard]] unsigned count() const noexcept { return count_; }

    // Takes the slot's lock. False: its participant lives, or a janitor is reaping it. On success
    // the caller owns whatever the last participant left, and must clear it before announcing.
    bool try_claim(unsigned slot) noexcept;
    // As try_claim(), for a slot whose participant may be dead: its death is noted before the lock
    // is requested, so that has_janitor() is true for others; and once more with the lock held, for
    // a participant that joined and died in between. False also if the participant lives.
    bool claim(unsigned slot) noexcept;
    // Claims the first available slot below `places`. Waits for participants that are joining,
    // leaving or reaping, for kJanitorPatience at most. Nothing: describe() says why.
    std::optional<unsigned> claim_free(unsigned places) noexcept;
    // Lets the lock go. The slot must be free, or given up by the caller.
    void release(unsigned slot) noexcept;

    // Writes this process's identity into the slot, for display. The caller holds its lock.
    void sign(unsigned slot);
    // Makes the slot active. The caller holds its lock and has signed.
    void announce(unsigned slot) noexcept;
    // Makes the slot free. The caller holds its lock (as its owner or its janitor). Idempotent.
    void retire(unsigned slot) noexcept;

    // True from announce() to retire(), whether or not its owner still lives.
    [[nodiscard]] bool is_announced(unsigned slot) const noexcept;
    // How often the slot has been joined: 1 for its first participant.
    [[nodiscard]] std::uint64_t joins(unsigned slot) const noexcept;
    [[nodiscard]] Life life(unsigned slot) const noexcept;
    // A participant that was found dead is still in the slot: its lock, if taken, is a janitor's.
    // life() says Alive then, because the kernel does not tell a janitor's lock from a
    // participant's.
    [[nodiscard]] bool has_janitor(unsigned slot) const noexcept;
    // Notes in the slot that its participant was found dead, and counts it, unless that is outdated
    // by now. Must come before any action that follows from the death: the participant may be alive
    // and have lost its lock, and checks this word.
    void note_dead(unsigned slot) const noexcept;
    // Whether another process found this handle's participant dead. One load, any thread.
    // pairs with: note_dead(): while this is false, nothing has been taken from it
    [[nodiscard]] bool is_found_dead() const noexcept { return own_.is_found_dead(); }
    // Join number of the last participant found dead in the slot; 0: none.
    [[nodiscard]] std::uint64_t found_dead(unsigned slot) const noexcept;
    // The death of the slot's participant with that join number. If the slot does not tell how the
    // process ended, looks at the process and notes what it finds; an inspection notes nothing.
    [[nodiscard]] DeathNote death(unsigned slot, std::uint64_t join) const noexcept;
    // Participants ever found dead in slots `first` to `end` - 1.
    [[nodiscard]] std::uint64_t deaths(unsigned first, unsigned end) const noexcept;
    // What the waits of the slot's participants have cost so far, and where the present one counts
    // them.
    [[nodiscard]] WaitCosts wait_costs(unsigned slot) const noexcept;
    [[nodiscard]] layout::WaitCounts& receiving(unsigned slot) const noexcept {
        return slots_[slot].receiving;
    }
    [[nodiscard]] layout::WaitCounts& sending(unsigned slot) const noexcept {
        return slots_[slot].sending;
    }
    // "3 participants are alive, 1 is dead and being cleared up after": of the slots below
    // `places`.
    [[nodiscard]] std::string describe(unsigned places) const;
    [[nodiscard]] ParticipantText text(unsigned slot) const;
    [[nodiscard]] bool anybody_alive() const noexcept;
    // For a wait that may be ended by the death of a participant in slots `first` to `end` - 1, or
    // by the closing of its handle.
    [[nodiscard]] Peers peers(unsigned first, unsigned end, const Cancel& closing) const noexcept {
        return {slots_, first, end, &closing};
    }

private:
    [[nodiscard]] std::uint64_t lock_byte(unsigned slot) const noexcept;
    [[nodiscard]] bool is_full(unsigned places) const noexcept;
    [[nodiscard]] std::uint64_t word_of(unsigned slot) const noexcept;
    void note_in_file(unsigned slot, std::uint64_t dead) const noexcept;
    [[nodiscard]] DeathNote last_death(unsigned slot) const noexcept;
    [[nodiscard]] DeathNote look_at_process(unsigned slot, std::uint64_t join,
                                            std::chrono::milliseconds patience) const noexcept;
    void write_death(unsigned slot, const DeathNote& death) const noexcept;

    os::SharedFile* file_ = nullptr;
    layout::ParticipantSlot* slots_ = nullptr;
    std::uint64_t slots_offset_ = 0;
    unsigned count_ = 0;
    // this handle's slot; other handles' locks count, its own does not
    std::uint32_t claimed_ = kNone;

    bool is_copy_ = false;

    static constexpr std::uint32_t kNone = ~std::uint32_t{0};
    OwnMark own_;  // of this handle's slot
};

// Fills a ParticipantText from a slot; also from a copy of one.
ParticipantText read_text(const layout::ParticipantSlot& slot);

}  // namespace penstock::detail

// The participants of a segment, and whether they live, by the kernel's word.
// One slot each; a participant lives while it holds the write lock on the first byte of its slot.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

#include "os/shared_file.hpp"
#include "segment/layout.hpp"
#include "segment/waiting/timing.hpp"

namespace penstock::detail {

enum class Life : std::uint8_t {
    Free,   // empty; or claimed by a process that has not announced itself yet
    Alive,  // announced, and the kernel holds its lock
    Dead,   // announced, and the lock is free: a janitor may clear it
};

// What stands in a slot, for people.
struct ParticipantText {
    std::uint32_t pid = 0;
    std::uint64_t pid_namespace = 0;
    std::uint64_t start_time = 0;
    std::int64_t attached_at = 0;
    std::string process;
};

// Where others write that they found this participant dead, and the join that it would be about.
// Any thread may ask while another joins or leaves.
class OwnMark {
public:
    OwnMark() noexcept = default;
    OwnMark(const std::atomic<std::uint64_t>& found_dead, std::uint64_t join) noexcept
        : found_dead_(&found_dead), join_(join) {}
    OwnMark(const OwnMark& other) noexcept { *this = other; }
    OwnMark& operator=(const OwnMark& other) noexcept {
        found_dead_.store(other.found_dead_.load(kRelaxed), kRelaxed);
        join_.store(other.join_.load(kRelaxed), kRelaxed);
        return *this;
    }
    ~OwnMark() = default;

    [[nodiscard]] bool is_found_dead() const noexcept {
        return found_dead_.load(kRelaxed)->load(std::memory_order_acquire) >= join_.load(kRelaxed);
    }

private:
    static constexpr auto kRelaxed = std::memory_order_relaxed;
    static constinit const std::atomic<std::uint64_t> kNobody;  // 0

    std::atomic<const std::atomic<std::uint64_t>*> found_dead_ = &kNobody;
    std::atomic<std::uint64_t> join_ = ~std::uint64_t{0};
};

// A view of the slot table through one file description. Not thread-safe, except life() and
// text(). The locks it takes belong to `file`, so each handle needs a file of its own.
class Participants {
public:
    Participants() noexcept = default;
    Participants(os::SharedFile& file, layout::ParticipantSlot* slots, std::uint64_t slots_offset,
                 unsigned count) noexcept
        : file_(&file), slots_(slots), slots_offset_(slots_offset), count_(count) {}
    // For a look from outside, without a mapping: `copy` was read from the file, and what changes
    // under it, the words of the slots, is read from there each time. Nothing can be claimed; a
    // death is noted in the file.
    static Participants of_copy(os::SharedFile& file, layout::ParticipantSlot* copy,
                                std::uint64_t slots_offset, unsigned count) noexcept {
        Participants participants(file, copy, slots_offset, count);
        participants.is_copy_ = true;
        return participants;
    }

    [[nodiscard]] unsigned count() const noexcept { return count_; }

    // Takes the slot's lock. False: its owner lives, or a janitor is at work in it. On success the
    // caller owns whatever the slot's last owner left and must clear it before announcing.
    bool try_claim(unsigned slot) noexcept;
    // The same where the last owner may be dead: that it was found dead is said before the lock is
    // asked for, so that has_janitor() is true for others; and with the lock held again, of one
    // that joined and died in between. False also if its owner lives.
    bool claim(unsigned slot) noexcept;
    // The first of the slots below `places` that can be had. Waits for participants that are just
    // joining, leaving or clearing up, for kJanitorPatience at most. Nothing: describe() says why.
    std::optional<unsigned> claim_free(unsigned places) noexcept;
    // Lets the lock go; the slot must be free or the caller's to abandon.
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
    // The participant that was found dead is still in the slot: its lock, if taken, is a janitor's.
    // life() says Alive then, for the kernel does not tell a janitor's lock from an owner's.
    [[nodiscard]] bool has_janitor(unsigned slot) const noexcept;
    // Says in the slot that its participant was found dead, and counts it, unless it is not any
    // more. Before anything is done because of that: it may be alive and have lost its lock, and
    // looks at this.
    void note_dead(unsigned slot) const noexcept;
    // This handle's participant was found dead by another. One load, any thread.
    // pairs with: note_dead(): while this is false, nothing has been taken from it
    [[nodiscard]] bool is_found_dead() const noexcept { return own_.is_found_dead(); }
    // Join number of the last participant found dead in the slot; 0: none was.
    [[nodiscard]] std::uint64_t found_dead(unsigned slot) const noexcept;
    // Participants ever found dead in the slots from `first` to before `end`.
    [[nodiscard]] std::uint64_t deaths(unsigned first, unsigned end) const noexcept;
    // "3 participants are alive, 1 is dead and being cleared up after": of those below `places`.
    [[nodiscard]] std::string describe(unsigned places) const;
    [[nodiscard]] ParticipantText text(unsigned slot) const;
    [[nodiscard]] bool anybody_alive() const noexcept;

private:
    [[nodiscard]] std::uint64_t lock_byte(unsigned slot) const noexcept;
    [[nodiscard]] bool is_full(unsigned places) const noexcept;
    [[nodiscard]] std::uint64_t word_of(unsigned slot) const noexcept;
    void note_in_file(unsigned slot, std::uint64_t dead) const noexcept;

    os::SharedFile* file_ = nullptr;
    layout::ParticipantSlot* slots_ = nullptr;
    std::uint64_t slots_offset_ = 0;
    unsigned count_ = 0;
    std::uint32_t claimed_ = kNone;  // the slot this handle lives in; its own lock is no "other"

    bool is_copy_ = false;

    static constexpr std::uint32_t kNone = ~std::uint32_t{0};
    OwnMark own_;  // of the slot it lives in
};

// Fills a ParticipantText from a slot; also from a copy of one.
ParticipantText read_text(const layout::ParticipantSlot& slot);

}  // namespace penstock::detail

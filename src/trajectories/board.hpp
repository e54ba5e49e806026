// The accounts of a queue of trajectories: its environments, the work in progress, and whether
// another rollout may begin.
//
// Work in progress is never counted up and down in one word, which a death between two steps would
// falsify for ever. It is summed on request: what runs stands in the words of the writer that began
// it, and is void when that writer is dead; what was put stands in the Queue's slots until it is
// acknowledged.
#pragma once

#include <string>
#include <vector>

#include "penstock/trajectories.hpp"
#include "queue/core.hpp"
#include "segment/words/atomics.hpp"
#include "trajectories/layout.hpp"

namespace penstock::detail {

inline constexpr std::uint64_t kTrajectories = application_word("trajecto");

// 40 bits of FNV-1a, never 0.
std::uint64_t environment_hash(std::string_view name) noexcept;

class Board {
public:
    // The core must outlive the board.
    explicit Board(QueueCore& core) noexcept
        : Board(core.view, core.segment->has_asymmetric_fence()) {
        core_ = &core;
    }
    // Read-only, for inspection.
    explicit Board(const QueueView& view, bool asymmetric = false) noexcept
        : view_(view), head_(reinterpret_cast<layout::BoardHead*>(view.application())),
          participants_(reinterpret_cast<layout::BoardParticipant*>(view.application() +
                                                                    sizeof(layout::BoardHead))),
          credit_(head_->credit, asymmetric) {}

    static std::uint64_t bytes(unsigned participants) noexcept {
        return sizeof(layout::BoardHead) + participants * sizeof(layout::BoardParticipant);
    }
    // Throws Corrupt if the segment's application has no room for a board.
    static void check(const QueueView& view);

    [[nodiscard]] layout::BoardState& state() const noexcept { return head_->state; }
    // Raises the policy's version; a lower one changes nothing.
    void raise_version(std::uint64_t version) noexcept;
    [[nodiscard]] Signal& credit_signal() noexcept { return credit_; }

    // Fills in the caller's own slot, before it becomes a producer.
    void sign(const EnvironmentOptions& environment) noexcept;
    [[nodiscard]] layout::BoardParticipant& own() const noexcept {
        return participants_[core_->self];
    }

    // One for each environment that lives or has work in progress, by name; environments that have
    // left and whose name is unknown are missing here, but counted in total().
    [[nodiscard]] std::vector<EnvironmentStats> environments() const;
    // Living environments with their minimum shares, for the trainer.
    [[nodiscard]] std::vector<EnvironmentStats> living() const;
    // Whether no living environment has a rollout running.
    [[nodiscard]] bool is_idle() const noexcept;

    // Rollouts of `group_size` sequences that the environment of that slot could begin now.
    [[nodiscard]] std::uint64_t credit(std::uint64_t environment, std::uint64_t group_size) const;
    // Begins a rollout if credit allows: adds it to own().running. One thread of a process at a
    // time. `wakes`: also wakes writers that this request kept from beginning; at the first of
    // several tries only.
    bool try_begin(std::uint64_t environment, std::uint64_t group_size, bool wakes) noexcept;

    // What keeps environments from beginning rollouts, for a trainer that waits.
    struct Appetite {
        bool has_refused = false;      // some living environment has no credit
        bool has_room = false;         // some has credit, or would have it if parts were ignored
        std::uint64_t on_the_way = 0;  // sequences
    };
    [[nodiscard]] Appetite appetite() const;

    // A group in a batch of another trainer, which has not acknowledged it.
    struct Unacknowledged {
        std::uint64_t slot = 0;
        std::uint64_t word = 0;  // of the slot: another one for every delivery
        std::uint64_t sequences = 0;
        bool operator==(const Unacknowledged&) const = default;
    };
    // Of all trainers but the caller's own; in the order of slots.
    [[nodiscard]] std::vector<Unacknowledged> with_other_trainers() const;

private:
    // Work in progress and the environments that count, at one moment.
    struct Census {
        layout::Load total;  // of all environments, including what is being asked for
        layout::Load own;    // of the one environment
        double weights = 0;  // of all living environments, each counted once
        double own_weight = 0;
        double own_share = 0;
        double other_shares = 0;  // minimum shares of the other living environments
        std::uint64_t own_group_size = 0;
        std::uint64_t dead_letters = 0;  // slots that no group can have
        bool has_earlier_asker = false;  // in a lower slot
        bool has_asker = false;          // another writer asks
    };
    [[nodiscard]] Census take_census(std::uint64_t environment) const noexcept;
    // Rollouts of that size that there is room for; what is being asked for counts as taken.
    [[nodiscard]] std::uint64_t room(const Census& census, std::uint64_t group_size,
                                     std::uint64_t shortage) const noexcept;
    [[nodiscard]] bool is_living(unsigned place) const noexcept {
        return load_seq_cst(view_.participant(place).role) != 0 &&
               load_acquire(participants_[place].environment) != 0;
    }
    template <typename Use>
    void for_each_waiting(Use&& use) const noexcept;
    [[nodiscard]] EnvironmentStats describe(unsigned place) const;

    QueueView view_;
    layout::BoardHead* head_;
    layout::BoardParticipant* participants_;
    Signal credit_;
    QueueCore* core_ = nullptr;
};

}  // namespace penstock::detail

// State shared by the handles of trajectories and their rollouts and batches.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "trajectories/board.hpp"

namespace penstock::detail {

// A group that a reader has: a delivery, or a restored message.
class HeldGroup {
public:
    HeldGroup(Delivery delivery, GroupView group)
        : delivery_(std::move(delivery)), group_(std::move(group)) {}
    // `group` refers to `message`'s memory, which stays in place when this object is moved.
    HeldGroup(std::vector<std::byte> message, GroupView group, std::uint64_t order)
        : message_(std::move(message)), group_(std::move(group)), order_(order) {}

    [[nodiscard]] const GroupView& group() const noexcept { return group_; }
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept {
        return delivery_ ? delivery_->bytes() : std::span<const std::byte>(message_);
    }
    [[nodiscard]] unsigned deliveries() const noexcept {
        return delivery_ ? delivery_->deliveries() : 2;
    }
    [[nodiscard]] std::uint64_t sequence() const noexcept {
        return delivery_ ? delivery_->sequence() : order_;
    }
    void ack() noexcept {
        if (delivery_) delivery_->ack();
    }
    // A restored group has no slot: the reader keeps it instead.
    void dead_letter() noexcept {
        is_dead_letter_ = true;
        if (delivery_) delivery_->dead_letter();
    }
    [[nodiscard]] bool is_dead_letter() const noexcept { return is_dead_letter_; }
    void untake() noexcept {
        if (delivery_) delivery_->untake();
    }
    void note_alone() noexcept {
        if (delivery_) delivery_->note_alone();
    }
    [[nodiscard]] bool is_suspect() const noexcept {
        return delivery_ && delivery_->must_come_alone();
    }
    [[nodiscard]] bool is_restored() const noexcept { return !delivery_.has_value(); }

private:
    std::optional<Delivery> delivery_;
    std::vector<std::byte> message_;
    GroupView group_;
    std::uint64_t order_ = 0;
    bool is_dead_letter_ = false;
};

struct Accounts {
    explicit Accounts(Queue attached)
        : queue(std::move(attached)), core(QueueAccess::core(queue)), board(*core) {}

    [[nodiscard]] TrajectoryStats stats() const;
    [[nodiscard]] bool is_foreign() const noexcept { return core->segment->is_foreign(); }

    Queue queue;
    std::shared_ptr<QueueCore> core;  // usable after queue.close(), for rollouts and batches
    Board board;
};

struct WriterState : Accounts {
    WriterState(Queue attached, const EnvironmentOptions& options);

    // Takes a rollout off `running`, after it is void or its group is in the queue.
    void hand_over(std::uint64_t load) noexcept;
    WaitEnd wait_for_credit(const Wait& wait) noexcept;

    EnvironmentOptions environment;
    std::uint64_t hash;
    std::mutex beginning;  // one thread asks at a time; not held in a wait
    CommonSpinBudget spin;
};

struct ReaderState : Accounts {
    ReaderState(Queue attached, std::uint64_t batch_sequences);

    // Keeps a restored group, which is in no queue. Any thread.
    void hold(HeldGroup group);
    // Counts a group that became a dead letter, with the reason.
    void note_dead_letters(std::string why);
    // Whether no trainer is attached in a lower slot: of several trainers, that one reports the
    // groups waiting in the queue.
    [[nodiscard]] bool is_first_trainer() const noexcept;

    std::uint64_t sequences;
    mutable std::mutex mutex;     // of the next four: batches return groups from any thread
    std::vector<HeldGroup> held;  // restored groups that are in no batch, in order of age
    std::uint64_t restored = 0;
    std::uint64_t changes = 0;         // of `held`
    std::vector<std::string> notices;  // reasons for dead letters, until take_notices()
    // The rest belongs to the thread that asks for batches.
    std::vector<std::uint64_t> left;       // slots of groups that the last search left in the queue
    std::map<std::string, double> shares;  // minimum shares that it had to keep
    struct Fruitless {
        SlotRing::Sight sight;
        std::uint64_t changes = 0;
    };
    std::optional<Fruitless> fruitless;  // what the last search saw, if it formed no batch
    // Since when only more credit can help; the sequences that waited then, and the groups that
    // other trainers had not acknowledged.
    std::int64_t stuck_since = 0;
    std::uint64_t stuck_with = 0;
    std::vector<Board::Unacknowledged> stuck_beside;
    // Those of other trainers' groups that once stayed unacknowledged for kStuckPatience, and still
    // do: they don't count against the window.
    std::vector<Board::Unacknowledged> overdue;
};

// Creates the queue of both sides. The returned core is not a producer yet.
Queue create_trajectories(const std::string& name, const TrajectoryOptions& options);
Queue attach_trajectories(const std::string& name, QueueRole role, const Wait& wait,
                          const std::string& instance, const Trust& trust);

// The statistics of a board and of its queue.
TrajectoryStats trajectory_stats(const Board& board, QueueStats queue);

}  // namespace penstock::detail

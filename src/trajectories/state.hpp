// What the handles of trajectories share with their rollouts and batches.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "trajectories/board.hpp"

namespace penstock::detail {

// A group that a reader has: a delivery, or a message of an earlier life.
class HeldGroup {
public:
    HeldGroup(Delivery delivery, GroupView group)
        : delivery_(std::move(delivery)), group_(std::move(group)) {}
    // `message`'s memory stays where it is when this moves.
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
    // Restored groups before those of the queue, then the policy's version, then the queue's order.
    [[nodiscard]] bool is_older_than(const HeldGroup& other) const noexcept {
        if (delivery_.has_value() != other.delivery_.has_value()) return !delivery_.has_value();
        if (group_.begun != other.group_.begun) return group_.begun < other.group_.begun;
        return sequence() < other.sequence();
    }

    void ack() noexcept {
        if (delivery_) delivery_->ack();
    }
    void untake() noexcept {
        if (delivery_) delivery_->untake();
    }
    [[nodiscard]] bool is_restored() const noexcept { return !delivery_.has_value(); }

private:
    std::optional<Delivery> delivery_;
    std::vector<std::byte> message_;
    GroupView group_;
    std::uint64_t order_ = 0;
};

struct Accounts {
    explicit Accounts(Queue attached)
        : queue(std::move(attached)), core(QueueAccess::core(queue)), board(*core) {}

    [[nodiscard]] TrajectoryStats stats() const;
    [[nodiscard]] bool is_foreign() const noexcept { return core->segment->is_foreign(); }

    Queue queue;
    std::shared_ptr<QueueCore> core;  // also after queue.close(), for rollouts and batches
    Board board;
};

struct WriterState : Accounts {
    WriterState(Queue attached, const EnvironmentOptions& options);

    // What a rollout held is free, or lies in the queue: there before it is taken off here.
    void hand_over(std::uint64_t load) noexcept;
    WaitEnd wait_for_credit(const Wait& wait) noexcept;

    EnvironmentOptions environment;
    std::uint64_t hash;
    std::mutex beginning;  // one thread asks at a time; never held in a wait
    SpinBudget spin;       // how it went last; a copy for each wait
};

struct ReaderState : Accounts {
    ReaderState(Queue attached, std::uint64_t batch_sequences);
    ReaderState(const ReaderState&) = delete;
    ReaderState& operator=(const ReaderState&) = delete;
    ~ReaderState() { untake_all(); }

    void hold(HeldGroup group);
    void untake_all() noexcept;

    std::uint64_t sequences;
    std::mutex mutex;             // of `held`: batches return theirs from any thread
    std::vector<HeldGroup> held;  // in order of age
    std::uint64_t restored = 0;
    std::uint64_t changes = 0;            // of `held`
    std::uint64_t fruitless = kNoChange;  // `changes` when no batch could be formed
    static constexpr std::uint64_t kNoChange = ~std::uint64_t{0};
    std::map<std::string, double> shares;  // minimum shares that were wanted of it
    // Since when nothing but more credit can help, and what was held then. By who waits.
    std::int64_t stuck_since = 0;
    std::uint64_t stuck_held = 0;
};

// What both sides create and attach to. The caller's core is no producer's yet.
Queue create_trajectories(const std::string& name, const TrajectoryOptions& options);
Queue attach_trajectories(const std::string& name, QueueRole role, const Wait& wait,
                          const std::string& instance);

// The numbers of a board with those of its queue.
TrajectoryStats trajectory_stats(const Board& board, QueueStats queue);

}  // namespace penstock::detail

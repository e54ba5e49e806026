// Creation, attachment and statistics: the common parts of the writer's and the reader's side.
#include "trajectories/state.hpp"

#include <algorithm>

#include "segment/words/atomics.hpp"

namespace penstock::detail {

Queue create_trajectories(const std::string& name, const TrajectoryOptions& options) {
    if (options.max_staleness != kUnlimited && options.max_staleness > layout::kMaxSequences) {
        throw Error(ErrorCode::InvalidArgument,
                    "max_staleness is " + std::to_string(options.max_staleness) +
                        " versions; give at most " + std::to_string(layout::kMaxSequences) +
                        ", or none");
    }
    QueueOptions queue;
    queue.capacity = options.capacity;
    queue.slots = options.slots;
    queue.inline_bytes = 64;  // the smallest cell: groups lie in blocks
    queue.participants = options.participants;
    queue.max_deliveries = options.max_deliveries;
    queue.ends_with = options.ends_with;
    queue.waiting = options.waiting;
    queue.application = kTrajectories;
    queue.application_bytes = Board::bytes(options.participants);
    queue.memory = options.memory;
    queue.replaces_owner = options.replaces_owner;
    return QueueAccess::handle(QueueCore::create(name, queue, [&](const QueueView& view) {
        store_relaxed(Board(view).state().max_staleness, options.max_staleness);
    }));
}

Queue attach_trajectories(const std::string& name, QueueRole role, const Wait& wait,
                          const std::string& instance, const Trust& trust) {
    Queue queue = Queue::attach(name, role, wait, instance, kTrajectories, trust);
    Board::check(QueueAccess::core(queue)->view);
    return queue;
}

TrajectoryStats trajectory_stats(const Board& board, QueueStats queue) {
    const layout::BoardState& state = board.state();
    TrajectoryStats stats;
    stats.queue = queue;
    stats.version = load_acquire(state.version);
    stats.batch_sequences = load_relaxed(state.batch_sequences);
    if (const auto versions = load_relaxed(state.max_staleness); versions != kUnlimited) {
        stats.max_staleness = versions;
    }
    stats.batches = load_relaxed(state.batches);
    stats.groups = load_relaxed(state.groups);
    stats.sequences = load_relaxed(state.sequences);
    stats.dropped_stale = load_relaxed(state.dropped_stale);
    if (const auto tokens = load_relaxed(state.max_tokens); tokens != 0) stats.max_tokens = tokens;
    stats.dead_lettered = load_relaxed(state.dead_lettered);
    stats.environments = board.environments();
    return stats;
}

TrajectoryStats Accounts::stats() const {
    return trajectory_stats(board, queue.stats());
}

WriterState::WriterState(Queue attached, const EnvironmentOptions& options)
    : Accounts(std::move(attached)), environment(options), hash(environment_hash(options.name)) {
    // A writer receives nothing but credit.
    spin.learn(core->segment->sending_budget(core->self));
}

void WriterState::hand_over(std::uint64_t load) noexcept {
    if (is_foreign()) return;
    // pairs with: take_census(), which sees the slot if it sees this
    fetch_sub_seq_cst(board.own().running, load);
    board.credit_signal().notify();
}

ReaderState::ReaderState(Queue attached, std::uint64_t batch_sequences)
    : Accounts(std::move(attached)), sequences(batch_sequences) {}

void ReaderState::hold(HeldGroup group) {
    const auto is_before = [](const HeldGroup& one, const HeldGroup& other) {
        if (one.group().begun != other.group().begun) {
            return one.group().begun < other.group().begun;
        }
        return one.sequence() < other.sequence();
    };
    {
        const std::lock_guard lock(mutex);
        held.insert(std::ranges::upper_bound(held, group, is_before), std::move(group));
        ++changes;
    }
    if (!is_foreign()) core->data.notify();
}

void ReaderState::note_dead_letters(std::string why) {
    fetch_add_relaxed(board.state().dead_lettered, 1);
    board.credit_signal().notify();  // they are no longer work in progress
    constexpr std::size_t kMaxNotices = 1000;
    const std::lock_guard lock(mutex);
    if (notices.size() < kMaxNotices) notices.push_back(std::move(why));
}

// A trainer is a participant that is not a producer.
bool ReaderState::is_first_trainer() const noexcept {
    for (unsigned place = 0; place < core->self; ++place) {
        const bool is_producer = load_seq_cst(core->view.participant(place).role) != 0;
        if (!is_producer && core->segment->participants().is_announced(place)) return false;
    }
    return true;
}

}  // namespace penstock::detail

namespace penstock {

TrajectoryInfo inspect_trajectories(const std::string& name) {
    detail::Visit visit(name);
    const auto refuse = [&name] {
        return Error(ErrorCode::Incompatible, "'" + name + "' carries no trajectories");
    };
    if (visit.header().kind != static_cast<std::uint32_t>(Kind::Queue)) throw refuse();
    const detail::QueueShape shape = detail::queue_shape_of(visit.header());
    const detail::QueueView view(shape, visit.control());
    if (view.shape().application != detail::kTrajectories) throw refuse();
    detail::Board::check(view);
    TrajectoryInfo info;
    info.queue = inspect_queue(name);
    info.trajectories = detail::trajectory_stats(detail::Board(view), info.queue.stats);
    return info;
}

}  // namespace penstock

// Creation, attachment and numbers: what the writer's and the reader's side have in common.
#include "trajectories/state.hpp"

#include <algorithm>

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
    queue.inline_bytes = 64;  // groups are larger
    queue.participants = options.participants;
    queue.max_deliveries = options.max_deliveries;
    queue.ends_with = options.ends_with;
    queue.application = kTrajectories;
    queue.application_bytes = Board::bytes(options.participants);
    queue.memory = options.memory;
    queue.replaces_owner = options.replaces_owner;
    return QueueAccess::handle(QueueCore::create(name, queue, [&](const QueueView& view) {
        Board(view).state().max_staleness.store(options.max_staleness, std::memory_order_relaxed);
    }));
}

Queue attach_trajectories(const std::string& name, QueueRole role, const Wait& wait,
                          const std::string& instance, const Trust& trust) {
    Queue queue = Queue::attach(name, role, wait, instance, kTrajectories, trust);
    Board::check(QueueAccess::core(queue)->view);
    return queue;
}

TrajectoryStats trajectory_stats(const Board& board, QueueStats queue) {
    constexpr auto kRelaxed = std::memory_order_relaxed;
    const layout::BoardState& state = board.state();
    TrajectoryStats stats;
    stats.queue = queue;
    stats.version = state.version.load(std::memory_order_acquire);
    stats.batch_sequences = state.batch_sequences.load(kRelaxed);
    if (const auto versions = state.max_staleness.load(kRelaxed); versions != kUnlimited) {
        stats.max_staleness = versions;
    }
    stats.batches = state.batches.load(kRelaxed);
    stats.groups = state.groups.load(kRelaxed);
    stats.sequences = state.sequences.load(kRelaxed);
    stats.dropped_stale = state.dropped_stale.load(kRelaxed);
    if (const auto tokens = state.max_tokens.load(kRelaxed); tokens != 0) stats.max_tokens = tokens;
    stats.dead_lettered = state.dead_lettered.load(kRelaxed);
    stats.environments = board.environments();
    return stats;
}

TrajectoryStats Accounts::stats() const {
    return trajectory_stats(board, queue.stats());
}

WriterState::WriterState(Queue attached, const EnvironmentOptions& options)
    : Accounts(std::move(attached)), environment(options), hash(environment_hash(options.name)) {}

void WriterState::hand_over(std::uint64_t load) noexcept {
    if (is_foreign()) return;
    // pairs with: the looks in take_census(), which sees the slot if it sees this
    board.own().running.fetch_sub(load, std::memory_order_seq_cst);
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
    board.state().dead_lettered.fetch_add(1, std::memory_order_relaxed);
    board.credit_signal().notify();  // it is on its way no more
    constexpr std::size_t kMaxNotices = 1000;
    const std::lock_guard lock(mutex);
    if (notices.size() < kMaxNotices) notices.push_back(std::move(why));
}

// A trainer is a participant that is no producer.
bool ReaderState::is_first_trainer() const noexcept {
    for (unsigned place = 0; place < core->self; ++place) {
        const bool is_producer =
            core->view.participant(place).role.load(std::memory_order_seq_cst) != 0;
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

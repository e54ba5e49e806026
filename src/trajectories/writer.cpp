// An environment's side: credit, rollouts, and groups on their way into the queue.
#include <cmath>
#include <utility>

#include "queue/dead_letters.hpp"
#include "segment/closed_handle.hpp"
#include "segment/text.hpp"
#include "segment/words/atomics.hpp"
#include "trajectories/state.hpp"

namespace penstock {

using detail::WaitEnd;
using detail::WriterState;

namespace {

constexpr std::size_t kMaxNameBytes = layout::BoardParticipant::kNameWords * sizeof(std::uint64_t);

Error refuse(const std::string& why) {
    return {ErrorCode::InvalidArgument, "can't be an environment: " + why};
}

void check(const EnvironmentOptions& environment) {
    const std::string& name = environment.name;
    if (name.empty() || name.size() > kMaxNameBytes || name.find('\0') != std::string::npos) {
        throw refuse("its name has 1 to " + std::to_string(kMaxNameBytes) + " bytes, not " +
                     std::to_string(name.size()));
    }
    if (!detail::is_utf8(name))
        throw refuse("its name '" + detail::printable(name) + "' is no UTF-8");
    if (const std::string found = detail::find_unprintable(name); !found.empty()) {
        throw refuse("its name holds the control or format character '" + found + "'");
    }
    if (!std::isfinite(environment.weight) || environment.weight <= 0) {
        throw refuse("weight must be above 0, not " + std::to_string(environment.weight));
    }
    if (!std::isfinite(environment.min_share) || environment.min_share < 0 ||
        environment.min_share > 1) {
        throw refuse("min_share is a part of a batch, 0 to 1, not " +
                     std::to_string(environment.min_share));
    }
    if (environment.group_size < 1 || environment.group_size > layout::kMaxSequences) {
        throw refuse("group_size must be 1 to " + std::to_string(layout::kMaxSequences) + ", not " +
                     std::to_string(environment.group_size));
    }
}

// Two writers that join at once may both pass: the trainer then scales shares down.
void check_shares(const WriterState& state) {
    double sum = state.environment.min_share;
    std::string others;
    for (const EnvironmentStats& other : state.board.living()) {
        if (other.name == state.environment.name || other.min_share <= 0) continue;
        sum += other.min_share;
        others += (others.empty() ? "" : ", ") + other.name;
    }
    constexpr double kRounding = 1e-9;
    if (sum <= 1 + kRounding) return;
    throw refuse("with the minimum shares of " + others + " it would make " + std::to_string(sum) +
                 " of each batch; all together may ask for 1");
}

std::shared_ptr<WriterState> join(Queue queue, const EnvironmentOptions& environment) {
    auto state = std::make_shared<WriterState>(std::move(queue), environment);
    if (!environment.scales_shares) check_shares(*state);
    if (!environment.env_id) {
        state->environment.env_id = static_cast<std::int64_t>(
            detail::fetch_add_relaxed(state->board.state().next_env_id, 1));
    }
    state->board.sign(environment);
    state->core->become_producer();         // from here on the shares count
    state->board.credit_signal().notify();  // so that waits for credit watch this one, too
    return state;
}

Status closed() noexcept {
    return detail::closed_handle("trajectory writer");
}

}  // namespace

namespace detail {

// Ready: begun. PeerGone: the stream has ended.
WaitEnd WriterState::wait_for_credit(const Wait& wait) noexcept {
    std::uint64_t sleeps = 0;
    bool has_ended = false;
    bool is_first = true;
    const auto is_settled = [&] {
        has_ended = core->is_ended();
        if (has_ended) return true;
        const std::lock_guard lock(beginning);
        return board.try_begin(hash, environment.group_size, std::exchange(is_first, false));
    };
    // No death ends this wait. Credit of the dead becomes free: then this waiter's announcement is
    // cleared along with the others', so that it looks again at once and not after another slice.
    const auto reap = [this] {
        if (core->reap()) board.credit_signal().notify();
        return core->closing.is_cancelled() || core->segment->is_foreign();
    };
    SpinBudget budget = spin.copy();
    // Not notified: a writer that withdrew for another's request, and any writer of a death
    // found by a process that does not wait for credit.
    Peers peers =
        core->segment->participants().peers(0, core->view.shape().participants, core->closing);
    peers.slices = Slices::Growing;
    WaitEnd end = wait_until(board.credit_signal(), budget, wait, sleeps, is_settled, reap, peers);
    spin.learn(budget);
    if (end == WaitEnd::PeerGone) return WaitEnd::Cancelled;
    if (end == WaitEnd::Timeout && is_settled()) end = WaitEnd::Ready;
    return end == WaitEnd::Ready && has_ended ? WaitEnd::PeerGone : end;
}

}  // namespace detail

TrajectoryWriter TrajectoryWriter::create(const std::string& name, const TrajectoryOptions& options,
                                          const EnvironmentOptions& environment) {
    check(environment);
    return TrajectoryWriter(join(detail::create_trajectories(name, options), environment));
}

TrajectoryWriter TrajectoryWriter::attach(const std::string& name,
                                          const EnvironmentOptions& environment, const Wait& wait,
                                          const std::string& instance, const Trust& trust) {
    check(environment);
    return TrajectoryWriter(join(
        detail::attach_trajectories(name, QueueRole::Any, wait, instance, trust), environment));
}

TrajectoryWriter::TrajectoryWriter(std::shared_ptr<WriterState> state)
    : state_(std::move(state)), instance_(state_->queue.instance()),
      environment_(state_->environment.name) {}

std::uint64_t TrajectoryWriter::credit() const {
    if (state_ == nullptr) closed().or_throw();
    if (!state_->core->segment->check_place()) state_->core->segment->why_foreign().or_throw();
    if (state_->core->is_ended()) return 0;
    state_->core->look_around(os::coarse_ns());
    return state_->board.credit(state_->hash, state_->environment.group_size);
}

Result<Rollout> TrajectoryWriter::begin(const Wait& wait) noexcept {
    if (state_ == nullptr) return closed();
    if (state_->is_foreign()) return state_->core->segment->why_foreign();
    const std::uint64_t group_size = state_->environment.group_size;
    const WaitEnd end = state_->wait_for_credit(wait);
    if (end == WaitEnd::Ready) {
        return Rollout(state_, layout::encode_load({1, group_size}), version());
    }
    const std::string name = detail::quoted(state_->queue.name());
    if (end == WaitEnd::PeerGone) {
        return Status(ErrorCode::Closed, name + " has ended; nothing more is wanted");
    }
    if (end == WaitEnd::Cancelled) {
        return state_->core->cancelled("waiting for credit was cancelled; nothing was begun");
    }
    const auto& board = state_->board.state();
    if (detail::load_relaxed(board.max_staleness) != kUnlimited &&
        detail::load_acquire(board.batch_sequences) == 0) {
        return Status(ErrorCode::Timeout, "no credit: no trainer has attached to " + name + " yet");
    }
    return Status(ErrorCode::Timeout,
                  "no credit for a group of " + std::to_string(group_size) + " sequences in " +
                      name + ": enough is on the way to the trainer; nothing was begun" +
                      detail::slots_of_dead_letters(state_->core->view));
}

Result<QueueLoan> TrajectoryWriter::loan(std::size_t nbytes, const Wait& wait) noexcept {
    if (state_ == nullptr) return closed();
    return state_->queue.loan(nbytes, wait);
}

namespace {

// Refuses a group that no batch of the trainer could have.
Status check_serveable(const GroupView& group, const layout::BoardState& board) {
    const std::uint64_t sequences = detail::load_relaxed(board.batch_sequences);
    if (sequences != 0 && group.sequences() > sequences) {
        return {ErrorCode::TooLarge, group.title() + " has " + std::to_string(group.sequences()) +
                                         " sequences and the trainer's batch " +
                                         std::to_string(sequences) + "; nothing was put"};
    }
    const std::uint64_t tokens = detail::load_relaxed(board.max_tokens);
    if (tokens != 0 && group.longest() > tokens) {
        return {ErrorCode::TooLarge, group.title() + " has a sequence of " +
                                         std::to_string(group.longest()) +
                                         " tokens and the trainer takes " + std::to_string(tokens) +
                                         "; nothing was put"};
    }
    return Status::ok();
}

}  // namespace

Status TrajectoryWriter::commit(QueueLoan& loan, Rollout* rollout, const Wait& wait) noexcept try {
    if (state_ == nullptr) return closed();
    if (!loan.is_open()) return loan.commit();  // commit() of a closed loan reports why
    const auto drop = [&loan] { const QueueLoan dropped = std::move(loan); };
    const Result<GroupView> group = read_group(loan.bytes());
    if (!group) {
        drop();
        return group.status();
    }
    if (Status status = check_serveable(*group, state_->board.state()); !status) {
        drop();
        return status;
    }
    const std::uint64_t tag =
        layout::encode_tag({group->sequences(), detail::environment_hash(group->environment)});
    Status accepted = loan.commit(Format::Typed, wait, tag, group->begun);
    PENSTOCK_CRASH_POINT("trajectories.put.put");
    if (accepted && rollout != nullptr) rollout->release();
    return accepted;
} catch (const std::bad_alloc&) {
    return {ErrorCode::System, "no memory to check a group; nothing was put"};
}

Status TrajectoryWriter::put(const codec::MessageWriter& message, Rollout* rollout,
                             const Wait& wait) noexcept {
    Result<QueueLoan> room = loan(message.nbytes(), wait);
    if (!room) return room.status();
    message.write(room->bytes().data());
    return commit(*room, rollout, wait);
}

Status TrajectoryWriter::wait_room(std::size_t nbytes, const Wait& wait) noexcept {
    return state_ == nullptr ? closed() : state_->queue.wait_room(nbytes, wait);
}

bool TrajectoryWriter::has_room() const noexcept {
    return state_ != nullptr && state_->queue.has_room();
}

std::uint64_t TrajectoryWriter::version() const noexcept {
    return state_ == nullptr ? 0 : detail::load_acquire(state_->board.state().version);
}

const std::string& TrajectoryWriter::environment() const noexcept {
    return environment_;
}

std::int64_t TrajectoryWriter::env_id() const noexcept {
    return state_ == nullptr ? 0 : *state_->environment.env_id;
}

TrajectoryStats TrajectoryWriter::stats() const {
    if (state_ == nullptr) closed().or_throw();
    return state_->stats();
}

void TrajectoryWriter::close() noexcept {
    if (state_ == nullptr) return;
    if (!state_->core->segment->check_place()) return state_.reset();
    detail::store_release(state_->board.own().environment, 0);
    state_->queue.close();
    // After both: credit may be free, and the stream may have ended.
    state_->board.credit_signal().notify();
    state_.reset();
}

void TrajectoryWriter::end() noexcept {
    if (state_ == nullptr || state_->is_foreign()) return;
    state_->queue.end();
    state_->board.credit_signal().notify();  // after the end, so that waiters for credit see it
}

void TrajectoryWriter::request_close() noexcept {
    if (state_ != nullptr) state_->queue.request_close();
}

KeptData TrajectoryWriter::replaced() const {
    return state_ == nullptr ? KeptData{} : state_->queue.replaced();
}

std::string TrajectoryWriter::instance() const {
    return instance_;
}

Rollout::Rollout(Rollout&& other) noexcept = default;

Rollout& Rollout::operator=(Rollout&& other) noexcept {
    if (this != &other) {
        release();
        state_ = std::move(other.state_);
        load_ = other.load_;
        version_ = other.version_;
    }
    return *this;
}

Rollout::~Rollout() {
    release();
}

void Rollout::release() noexcept {
    if (state_ == nullptr) return;
    std::exchange(state_, nullptr)->hand_over(load_);
}

}  // namespace penstock

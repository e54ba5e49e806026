// The trainer's side: the public interface of TrajectoryReader.
#include <utility>

#include "segment/closed_handle.hpp"
#include "segment/words/atomics.hpp"
#include "trajectories/search.hpp"

namespace penstock {

using detail::HeldGroup;
using detail::ReaderState;

namespace {

Status closed() noexcept {
    return detail::closed_handle("trajectory reader");
}

std::shared_ptr<ReaderState> join(Queue queue, std::uint64_t sequences) {
    auto state = std::make_shared<ReaderState>(std::move(queue), sequences);
    detail::store_release(state->board.state().batch_sequences, sequences);
    state->board.credit_signal().notify();  // wakes writers that waited for a trainer
    return state;
}

}  // namespace

TrajectoryReader TrajectoryReader::create(const std::string& name, const TrajectoryOptions& options,
                                          std::uint64_t sequences) {
    detail::check_sequences(sequences);
    return TrajectoryReader(join(detail::create_trajectories(name, options), sequences));
}

TrajectoryReader TrajectoryReader::attach(const std::string& name, std::uint64_t sequences,
                                          const Wait& wait, const std::string& instance,
                                          const Trust& trust) {
    detail::check_sequences(sequences);
    return TrajectoryReader(join(
        detail::attach_trajectories(name, QueueRole::Consumer, wait, instance, trust), sequences));
}

TrajectoryReader::TrajectoryReader(std::shared_ptr<ReaderState> state)
    : state_(std::move(state)), instance_(state_->queue.instance()) {}

Result<TrajectoryBatch> TrajectoryReader::next_batch(const BatchRequest& request,
                                                     const Wait& wait) try {
    if (state_ == nullptr) return closed();
    if (state_->is_foreign()) return state_->core->segment->why_foreign();
    return detail::search_batch(state_, request, wait);
} catch (const Error& error) {
    return Status(error.code(), error.what());
}

bool TrajectoryReader::is_ready() const noexcept {
    if (state_ == nullptr) return false;
    if (state_->is_foreign()) return state_->core->segment->is_lost();  // next_batch() reports it
    return detail::may_find_batch(state_);
}

Status TrajectoryReader::wait_ready(const Wait& wait) noexcept try {
    if (state_ == nullptr) return closed();
    if (state_->is_foreign()) return state_->core->segment->why_foreign();
    return detail::wait_for_more(state_, wait);
} catch (const std::bad_alloc&) {
    return {ErrorCode::System, "no memory to look at who waits"};
}

std::vector<std::vector<std::byte>> TrajectoryReader::held_messages(Held which) const {
    std::vector<std::vector<std::byte>> messages;
    if (state_ == nullptr || state_->is_foreign()) return messages;
    {
        const std::lock_guard lock(state_->mutex);
        for (const HeldGroup& group : state_->held) {
            messages.emplace_back(group.bytes().begin(), group.bytes().end());
        }
    }
    if (which == Held::All && state_->is_first_trainer()) detail::copy_left(state_, messages);
    return messages;
}

Status TrajectoryReader::restore(std::vector<std::byte> message) {
    if (state_ == nullptr) return closed();
    Result<GroupView> group = read_group(message);
    if (!group) return group.status();
    state_->hold(HeldGroup(std::move(message), *std::move(group), state_->restored++));
    return Status::ok();
}

void TrajectoryReader::raise_version(std::uint64_t version) noexcept {
    if (state_ == nullptr || state_->is_foreign()) return;
    state_->board.raise_version(version);
    state_->board.credit_signal().notify();
}

void TrajectoryReader::limit_tokens(std::uint64_t max_tokens) noexcept {
    if (state_ == nullptr || state_->is_foreign()) return;
    detail::store_relaxed(state_->board.state().max_tokens, max_tokens);
}

std::vector<std::string> TrajectoryReader::take_notices() {
    if (state_ == nullptr) return {};
    const std::lock_guard lock(state_->mutex);
    return std::exchange(state_->notices, {});
}

Result<std::uint64_t> TrajectoryReader::drop_waiting() try {
    if (state_ == nullptr) return closed();
    if (state_->is_foreign()) return state_->core->segment->why_foreign();
    return detail::drop_waiting(state_);
} catch (const std::bad_alloc&) {
    return Status(ErrorCode::System, "no memory to look at what waits; nothing was dropped");
}

std::uint64_t TrajectoryReader::version() const noexcept {
    return state_ == nullptr ? 0 : detail::load_acquire(state_->board.state().version);
}

std::uint64_t TrajectoryReader::sequences() const noexcept {
    return state_ == nullptr ? 0 : state_->sequences;
}

TrajectoryStats TrajectoryReader::stats() const {
    if (state_ == nullptr) closed().or_throw();
    return state_->stats();
}

Result<std::vector<DeadLetter>> TrajectoryReader::dead_letters(std::size_t limit) const {
    if (state_ == nullptr) return closed();
    return state_->queue.dead_letters(limit);
}

Result<std::vector<std::byte>> TrajectoryReader::copy_dead_letter(std::uint64_t sequence) const {
    if (state_ == nullptr) return closed();
    return state_->queue.copy_dead_letter(sequence);
}

Result<std::uint64_t> TrajectoryReader::requeue_dead_letters() noexcept {
    if (state_ == nullptr) return closed();
    return state_->queue.requeue_dead_letters();
}

Result<std::uint64_t> TrajectoryReader::requeue_dead_letters(
    std::span<const std::uint64_t> sequences) noexcept {
    if (state_ == nullptr) return closed();
    return state_->queue.requeue_dead_letters(sequences);
}

Result<std::uint64_t> TrajectoryReader::drop_dead_letters() noexcept {
    if (state_ == nullptr) return closed();
    Result<std::uint64_t> dropped = state_->queue.drop_dead_letters();
    state_->board.credit_signal().notify();  // slots are free
    return dropped;
}

Result<std::uint64_t> TrajectoryReader::drop_dead_letters(
    std::span<const std::uint64_t> sequences) noexcept {
    if (state_ == nullptr) return closed();
    Result<std::uint64_t> dropped = state_->queue.drop_dead_letters(sequences);
    state_->board.credit_signal().notify();
    return dropped;
}

std::uint64_t TrajectoryReader::discard() noexcept {
    if (state_ == nullptr || state_->is_foreign()) return 0;
    std::uint64_t dropped = state_->queue.discard();
    const std::lock_guard lock(state_->mutex);
    dropped += state_->held.size();
    state_->held.clear();
    ++state_->changes;
    state_->board.credit_signal().notify();  // after the end, so that waiters for credit see it
    return dropped;
}

void TrajectoryReader::close() noexcept {
    if (state_ == nullptr) return;
    state_->queue.close();
    // leaving may end the stream
    if (!state_->is_foreign()) state_->board.credit_signal().notify();
    state_.reset();
}

void TrajectoryReader::end() noexcept {
    if (state_ == nullptr || state_->is_foreign()) return;
    state_->queue.end();
    state_->board.credit_signal().notify();
}

bool TrajectoryReader::reopen() noexcept {
    return state_ != nullptr && !state_->is_foreign() && state_->queue.reopen();
}

void TrajectoryReader::request_close() noexcept {
    if (state_ != nullptr) state_->queue.request_close();
}

KeptData TrajectoryReader::replaced() const {
    return state_ == nullptr ? KeptData{} : state_->queue.replaced();
}

std::string TrajectoryReader::instance() const {
    return instance_;
}

}  // namespace penstock

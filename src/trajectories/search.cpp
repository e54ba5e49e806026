#include "trajectories/search.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "os/clock.hpp"
#include "trajectories/former.hpp"

namespace penstock::detail {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// One call of next_batch(): the reader, and what is asked of it.
class Search {
public:
    Search(std::shared_ptr<ReaderState> state, const BatchRequest& request)
        : state_(std::move(state)), request_(request),
          sequences_(request.sequences == 0 ? state_->sequences : request.sequences) {}

    Result<TrajectoryBatch> run(const Wait& wait) {
        check_sequences(sequences_);
        for (;;) {
            if (Status status = take_what_is_there(); !status) return status;
            if (Status status = look_for_oversized(); !status) return status;
            if (std::vector<HeldGroup> groups = pick(); !groups.empty()) {
                state_->board.state().shortage.store(0, std::memory_order_release);
                return TrajectoryBatch(std::move(groups), request_.causal_shift, state_);
            }
            if (has_ended_) return ended();
            if (Status status = take_one(wait); !status) return status;
        }
    }

    // Until another run() may find more than the last one did.
    Status wait(const Wait& wait) {
        for (Clock::duration slice = kFirstSlice;; slice = longer(slice)) {
            allow_more_if_stuck();
            Status status = state_->queue.wait_ready(slice_of(wait, slice));
            if (status.code() != ErrorCode::Timeout || has_changed()) {
                return status.code() == ErrorCode::Timeout ? Status::ok() : std::move(status);
            }
            if (wait.deadline.has_passed(Clock::now())) return status;
        }
    }

private:
    // Short at first: a message is seen before its writer has said that the rollout has ended, so
    // that nobody may run any more right after a look that found somebody running.
    static constexpr Clock::duration kFirstSlice = std::chrono::milliseconds(1);
    static Clock::duration longer(Clock::duration slice) {
        return std::min<Clock::duration>(2 * slice, kSlice);
    }
    static Wait slice_of(const Wait& wait, Clock::duration most) {
        Wait slice = wait;
        if (!wait.deadline.is_try()) {
            slice.deadline = Deadline::after(wait.deadline.left(Clock::now(), most));
        }
        return slice;
    }

    [[nodiscard]] std::size_t held() const {
        const std::lock_guard lock(state_->mutex);
        return state_->held.size();
    }

    Status take_what_is_there() {
        while (held() < request_.lookahead) {
            Result<Delivery> delivery = state_->queue.take(Deadline::now());
            if (delivery.code() == ErrorCode::Timeout) break;
            if (delivery.code() == ErrorCode::Closed) {
                has_ended_ = true;
                break;
            }
            if (!delivery) return delivery.status().copy();
            if (Status status = keep(*std::move(delivery)); !status) return status;
        }
        return Status::ok();
    }

    Status take_one(const Wait& wait) {
        if (held() >= request_.lookahead) return {ErrorCode::Timeout, no_fill()};
        for (Clock::duration slice = kFirstSlice;; slice = longer(slice)) {
            allow_more_if_stuck();
            Result<Delivery> delivery = state_->queue.take(slice_of(wait, slice));
            if (delivery) return keep(*std::move(delivery));
            if (delivery.code() == ErrorCode::Closed) {
                has_ended_ = true;
                return Status::ok();
            }
            if (delivery.code() != ErrorCode::Timeout) return delivery.status().copy();
            // Without a message too: somebody with a minimum share may have gone, and other threads
            // bring back what was in their batches.
            if (has_changed()) return Status::ok();
            if (wait.deadline.has_passed(Clock::now())) return {ErrorCode::Timeout, no_fill()};
        }
    }

    // Since pick() found nothing.
    [[nodiscard]] bool has_changed() const {
        {
            const std::lock_guard lock(state_->mutex);
            if (state_->held.empty()) return false;
            if (state_->changes != state_->fruitless) return true;
        }
        return shares() != state_->shares;
    }

    // Credit may end before the sizes of groups add up to a batch: then everybody would wait for
    // everybody. Where nothing runs any more, and somebody lives who may begin nothing, parts by
    // weight don't count until a batch is formed; and if that helps nobody, what is held does not
    // either. A pause between two rollouts is no such case: who has credit is waited for. But an
    // environment that begins nothing with it, or a batch that is not acknowledged, keeps the
    // others no longer than kPatience; nor does somebody who was stopped while asking.
    void allow_more_if_stuck() {
        constexpr std::int64_t kPatience = 1'000'000'000;  // ns
        const Board& board = state_->board;
        if (state_->queue.is_ready() || !board.is_idle()) return forget_stuck();
        const std::uint64_t sequences = held_sequences();
        if (sequences == 0) return forget_stuck();
        const Board::Appetite appetite = board.appetite();
        // After the sums: what was begun before them still runs, or was put and is found here.
        if (!appetite.has_refused || !board.is_idle() || state_->queue.is_ready()) {
            return forget_stuck();
        }
        const std::int64_t now = os::coarse_ns();
        if (state_->stuck_since == 0 || state_->stuck_held != sequences) {
            state_->stuck_since = now;
            state_->stuck_held = sequences;
        }
        const bool is_all_held = appetite.on_the_way == sequences;
        const bool is_helpless = is_all_held && !appetite.has_room;
        const bool is_late = now - state_->stuck_since > kPatience;
        auto& shortage = state_->board.state().shortage;
        const std::uint64_t known = shortage.load(kRelaxed);
        const std::uint64_t wanted =
            is_helpless || is_late ? layout::kStuck + sequences : std::max(known, layout::kStuck);
        if (known == wanted) return;
        shortage.store(wanted, std::memory_order_release);
        state_->board.credit_signal().notify();
    }

    void forget_stuck() noexcept { state_->stuck_since = 0; }

    // Those that came from the queue, and are in the accounts.
    [[nodiscard]] std::uint64_t held_sequences() const {
        const std::lock_guard lock(state_->mutex);
        std::uint64_t sequences = 0;
        for (const HeldGroup& group : state_->held) {
            if (!group.is_restored()) sequences += group.group().sequences();
        }
        return sequences;
    }

    Status keep(Delivery delivery) {
        // A batch of an exact size can't leave a group to itself, so every delivery counts in full.
        delivery.note_alone();
        Result<GroupView> group = read_group(delivery.bytes());
        if (!group) {
            const std::string why(group.status().message());
            delivery.set_aside();
            return {ErrorCode::Corrupt, "message " + std::to_string(delivery.sequence()) + " of " +
                                            quoted(state_->queue.name()) +
                                            " was set aside: " + why};
        }
        if (request_.drops_stale && is_stale(*group)) {
            state_->board.state().dropped_stale.fetch_add(1, kRelaxed);
            delivery.ack();
            state_->board.credit_signal().notify();
            return Status::ok();
        }
        state_->hold(HeldGroup(std::move(delivery), *std::move(group)));
        return Status::ok();
    }

    [[nodiscard]] bool is_stale(const GroupView& group) const noexcept {
        const layout::BoardState& board = state_->board.state();
        const std::uint64_t staleness = board.max_staleness.load(kRelaxed);
        const std::uint64_t version = board.version.load(std::memory_order_acquire);
        return staleness != kUnlimited && version > group.begun &&
               version - group.begun > staleness;
    }

    // It would wait for ever, with nobody told.
    [[nodiscard]] Status look_for_oversized() const {
        const std::lock_guard lock(state_->mutex);
        for (const HeldGroup& group : state_->held) {
            const std::size_t has = group.group().sequences();
            if (has <= sequences_) continue;
            return {ErrorCode::TooLarge, group.group().title() + " has " + std::to_string(has) +
                                             " sequences and a batch " +
                                             std::to_string(sequences_) +
                                             "; it stays: ask for a larger batch"};
        }
        return Status::ok();
    }

    // Minimum shares of the living.
    [[nodiscard]] std::map<std::string, double> shares() const {
        std::map<std::string, double> shares;
        for (const EnvironmentStats& environment : state_->board.living()) {
            const double share = environment.min_share;
            if (share > 0 && share <= 1) shares.emplace(environment.name, share);
        }
        return shares;
    }

    // The same in sequences.
    [[nodiscard]] std::map<std::string, std::uint64_t> minima(
        const std::map<std::string, double>& shares) const {
        double sum = 0;
        for (const auto& [environment, share] : shares) sum += share;
        std::map<std::string, std::uint64_t> sequences;
        constexpr double kRounding = 1e-9;  // 0.7 of 10 is 7
        for (const auto& [environment, share] : shares) {
            const double scaled = sum > 1 + kRounding ? share / sum : share;
            const auto least =
                static_cast<std::uint64_t>(scaled * static_cast<double>(sequences_) + kRounding);
            if (least > 0) sequences.emplace(environment, least);
        }
        return sequences;
    }

    std::vector<HeldGroup> pick() {
        std::map<std::string, double> current = shares();
        const std::map<std::string, std::uint64_t> wanted = minima(current);
        std::vector<std::uint64_t> least(1, 0);
        std::map<std::string, std::uint32_t> share_of;
        for (const auto& [environment, sequences] : wanted) {
            share_of.emplace(environment, static_cast<std::uint32_t>(least.size()));
            least.push_back(sequences);
        }
        const std::lock_guard lock(state_->mutex);
        std::vector<Candidate> candidates;
        candidates.reserve(state_->held.size());
        for (const HeldGroup& group : state_->held) {
            const auto share = share_of.find(group.group().environment);
            candidates.push_back(
                {group.group().sequences(), share == share_of.end() ? 0 : share->second});
        }
        std::vector<std::uint32_t> chosen;
        std::vector<HeldGroup> groups;
        state_->fruitless = state_->changes;
        state_->shares = std::move(current);
        if (!form_batch(candidates, sequences_, least, chosen)) return groups;
        ++state_->changes;
        groups.reserve(chosen.size());
        for (const std::uint32_t at : chosen) groups.push_back(std::move(state_->held[at]));
        std::size_t next = 0;
        std::size_t kept = 0;
        for (std::size_t at = 0; at < state_->held.size(); ++at) {
            if (next < chosen.size() && chosen[next] == at) {
                ++next;
            } else {
                if (kept != at) state_->held[kept] = std::move(state_->held[at]);
                ++kept;
            }
        }
        state_->held.erase(state_->held.begin() + static_cast<std::ptrdiff_t>(kept),
                           state_->held.end());
        return groups;
    }

    // What waits, by environment and size of group, and what is wanted of whom.
    [[nodiscard]] std::string waiting() const {
        std::map<std::string, std::map<std::size_t, std::size_t>> sizes;
        std::size_t sequences = 0;
        std::map<std::string, std::size_t> of;
        {
            const std::lock_guard lock(state_->mutex);
            for (const HeldGroup& group : state_->held) {
                const GroupView& view = group.group();
                ++sizes[view.environment][view.sequences()];
                of[view.environment] += view.sequences();
                sequences += view.sequences();
            }
        }
        std::string text = std::to_string(sequences) + " sequences wait";
        for (const auto& [environment, groups] : sizes) {
            text += "; of '" + environment + "'";
            std::string separator = " ";
            for (const auto& [size, count] : groups) {
                text += separator + std::to_string(count) + " x " + std::to_string(size);
                separator = ", ";
            }
        }
        for (const auto& [environment, least] : minima(shares())) {
            if (of[environment] >= least) continue;
            text += "; '" + environment + "' is to have " + std::to_string(least) + " and has " +
                    std::to_string(of[environment]);
        }
        return text;
    }

    [[nodiscard]] std::string no_fill() const {
        return "no whole groups make exactly " + std::to_string(sequences_) + " sequences from " +
               quoted(state_->queue.name()) + ": " + waiting();
    }

    [[nodiscard]] Status ended() const {
        const std::string name = quoted(state_->queue.name());
        if (held() == 0) return {ErrorCode::Closed, name + " has ended and everything was taken"};
        return {ErrorCode::Closed, name + " has ended, and what is left makes no batch of " +
                                       std::to_string(sequences_) + ": " + waiting() +
                                       "; ask for another number of sequences"};
    }

    std::shared_ptr<ReaderState> state_;
    const BatchRequest& request_;
    std::uint64_t sequences_;
    bool has_ended_ = false;
};

}  // namespace

void check_sequences(std::uint64_t sequences) {
    if (sequences >= 1 && sequences <= kMostBatchSequences) return;
    throw Error(ErrorCode::InvalidArgument, "a batch has 1 to " +
                                                std::to_string(kMostBatchSequences) +
                                                " sequences, not " + std::to_string(sequences));
}

Result<TrajectoryBatch> search_batch(const std::shared_ptr<ReaderState>& state,
                                     const BatchRequest& request, const Wait& wait) {
    return Search(state, request).run(wait);
}

Status wait_for_more(const std::shared_ptr<ReaderState>& state, const Wait& wait) {
    return Search(state, {}).wait(wait);
}

}  // namespace penstock::detail

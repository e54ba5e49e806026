#include "trajectories/search.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <ranges>
#include <utility>

#include "os/clock.hpp"
#include "segment/text.hpp"
#include "segment/words/atomics.hpp"
#include "trajectories/former.hpp"

namespace penstock::detail {
namespace {

// One call of next_batch(): the reader's state and the request.
//
// Waiting groups are inspected in their slots, and taken only when they make a batch: so a trainer
// that waits holds nothing. One trainer at a time searches: the first in the queue's line.
class Search {
public:
    Search(std::shared_ptr<ReaderState> state, const BatchRequest& request)
        : state_(std::move(state)), core_(*state_->core), request_(request),
          sequences_(request.sequences == 0 ? state_->sequences : request.sequences) {}

    Result<TrajectoryBatch> run(const Wait& wait) {
        check_sequences(sequences_);
        Leaving leaving{core_};
        const bool has_place = core_.line.has_joined();
        if (!has_place) core_.line.arrive(true);
        core_.reap();  // their messages come before waiting ones, and their requests are void
        core_.line.watch();
        if (is_turn()) {
            if (state_->is_foreign()) return core_.segment->why_foreign();
            if (auto found = attempt()) return *std::move(found);
        }
        if (wait.deadline.is_try()) {
            if (is_turn()) allow_more_if_stuck();
            leaving.is_due = !has_place;  // another wait() continues with this request in the line
            return Status(ErrorCode::Timeout, no_fill());
        }
        core_.line.join(sequences_);
        Clock::duration slice = kFirstSlice;
        for (;;) {
            const WaitEnd end = wait_for_news(slice_of(wait, slice));
            if (is_called_off(end)) return core_.explain_no_message(end);
            // Looks even without news: an environment with a minimum share may have left.
            if (core_.line.is_first()) {
                if (auto found = attempt()) return *std::move(found);
            }
            slice = end == WaitEnd::Ready ? kFirstSlice : longer(slice);
            WaitEnd over = WaitEnd::Ready;
            if (end == WaitEnd::Ready) {  // there was news, but no batch
                over = core_.closing.is_cancelled() ? WaitEnd::Cancelled : end_of_wait(wait);
            } else if (wait.deadline.has_passed(Clock::now())) {
                over = WaitEnd::Timeout;
            }
            if (over == WaitEnd::Cancelled) return core_.explain_no_message(over);
            if (over == WaitEnd::Timeout) return Status(ErrorCode::Timeout, no_fill());
        }
    }

    // Waits until another run() may find more than the last one did. The request stays in the line
    // for that run, unless the wait was in vain.
    Status wait(const Wait& wait) {
        if (!core_.line.has_joined()) core_.line.arrive(true);
        core_.line.join(sequences_);
        if (state_->fruitless) {  // later arrivals are news
            look();
            sight_ = state_->fruitless->sight;
            changes_ = state_->fruitless->changes;
        }
        for (Clock::duration slice = kFirstSlice;; slice = longer(slice)) {
            const WaitEnd end = wait_for_news(slice_of(wait, slice));
            if (end == WaitEnd::Ready) return Status::ok();
            if (end == WaitEnd::Timeout && core_.line.is_first() && shares() != state_->shares) {
                return Status::ok();
            }
            if (is_called_off(end) || wait.deadline.has_passed(Clock::now())) {
                core_.leave_line();
                return core_.explain_no_message(end);
            }
        }
    }

    // Whether anything is waiting that the last search has not considered.
    [[nodiscard]] bool may_find() {
        if (state_->fruitless) {
            sight_ = state_->fruitless->sight;
            changes_ = state_->fruitless->changes;
            return has_news();
        }
        bool has_any = core_.is_ended();
        core_.ring.survey(core_.head, [&has_any](const SlotRing::Waiting&) { has_any = true; });
        const std::lock_guard lock(state_->mutex);
        return has_any || !state_->held.empty();
    }

    // Copies the groups that the last search left waiting.
    void copy_left(std::vector<std::vector<std::byte>>& messages) {
        look();
        for (const Seen& seen : seen_) {
            if (seen.is_restored || !std::ranges::binary_search(state_->left, seen.order)) continue;
            Result<HeldGroup> group = take_group(seen);
            if (!group) continue;
            messages.emplace_back(group->bytes().begin(), group->bytes().end());
            group->untake();
        }
    }

    // Drops every group that no trainer holds. One pass through the queue, without a batch.
    std::uint64_t drop_waiting() {
        core_.reap();
        request_.lookahead = std::numeric_limits<std::uint64_t>::max();
        look();
        std::uint64_t dropped = 0;
        for (const Seen& seen : seen_) {
            if (seen.is_restored) continue;
            Result<Delivery> delivery = QueueAccess::take_seen(state_->core, seen.index, seen.word);
            if (!delivery) continue;  // taken by another trainer, or a dead letter now
            delivery->ack();
            ++dropped;
        }
        {
            const std::lock_guard lock(state_->mutex);
            dropped += state_->held.size();
            state_->held.clear();
            ++state_->changes;
        }
        fetch_add_relaxed(core_.own().dropped, dropped);
        state_->board.credit_signal().notify();
        return dropped;
    }

private:
    // Short at first: a message is visible before its writer has taken it off `running`, so a look
    // that finds a rollout running may be outdated at once.
    static constexpr Clock::duration kFirstSlice = std::chrono::milliseconds(1);
    static Clock::duration longer(Clock::duration slice) {
        return std::min<Clock::duration>(2 * slice, kSlice);
    }
    static Wait slice_of(const Wait& wait, Clock::duration most) {
        Wait slice = wait;
        slice.deadline = Deadline::after(wait.deadline.left(Clock::now(), most));
        return slice;
    }

    // Ended by its caller, or by request_close() of the handle, which a wait reports as PeerGone.
    static bool is_called_off(WaitEnd end) noexcept {
        return end == WaitEnd::Cancelled || end == WaitEnd::PeerGone;
    }

    struct Leaving {
        QueueCore& core;
        bool is_due = true;
        ~Leaving() {
            if (is_due) core.leave_line();
        }
    };

    // A waiting group: in the queue, or restored and held by the reader.
    struct Seen {
        std::uint64_t sequences = 0;
        std::uint64_t environment = 0;  // hash of its name
        std::uint64_t begun = 0;
        std::uint64_t order = 0;  // of the queue, or of restore() calls
        std::uint64_t index = 0;  // of its slot, or in state_->held
        std::uint64_t word = 0;   // of its slot
        bool is_restored = false;

        // Restored groups first, then the policy's version, then the queue's order.
        [[nodiscard]] bool is_older_than(const Seen& other) const noexcept {
            if (is_restored != other.is_restored) return is_restored;
            if (begun != other.begun) return begun < other.begun;
            return order < other.order;
        }
    };

    // Whether no request precedes this one, which has joined the line or has just arrived.
    [[nodiscard]] bool is_turn() const noexcept {
        return core_.line.has_joined() ? core_.line.is_first() : !core_.line.is_occupied();
    }

    // Ready: this request is first, and there is something that the last look has not seen.
    WaitEnd wait_for_news(const Wait& wait) {
        if (core_.line.is_first()) allow_more_if_stuck();
        return core_.wait_turn(sequences_, wait, [this] { return has_news(); });
    }

    // A batch, or the reason why there is none; nothing: more groups must come.
    std::optional<Result<TrajectoryBatch>> attempt() {
        state_->fruitless.reset();
        // Each attempt means that another consumer took groups out of turn.
        constexpr unsigned kMaxAttempts = 10'000;
        bool has_reaped = false;  // after the end
        for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
            const bool has_ended = core_.has_ended_before_look();
            look();
            if (Status status = drop_stale(); !status) return status;
            if (Status status = look_for_oversized(); !status) return status;
            std::vector<std::uint32_t> chosen;
            if (choose(chosen)) {
                Result<std::vector<HeldGroup>> groups = take(chosen);
                // others took groups out of turn
                if (groups.code() == ErrorCode::Timeout) continue;
                if (!groups) return groups.status();
                leave_others(chosen);
                store_release(state_->board.state().shortage, 0);
                return TrajectoryBatch(*std::move(groups), request_.causal_shift, state_);
            }
            leave_others({});
            state_->fruitless = {sight_, changes_};
            if (!has_ended && seen_.size() >= request_.lookahead) {
                return Status(ErrorCode::Timeout, no_fill());
            }
            if (!has_ended) return std::nullopt;
            if (std::exchange(has_reaped, true)) return ended();
            core_.reap_and_wait();
        }
        return std::nullopt;
    }

    // Reads all waiting groups, sorted by age.
    void look() {
        seen_.clear();
        {
            const std::lock_guard lock(state_->mutex);
            for (std::size_t at = 0; at < state_->held.size(); ++at) {
                if (state_->held[at].is_dead_letter()) continue;
                const GroupView& group = state_->held[at].group();
                seen_.push_back({group.sequences(), environment_hash(group.environment),
                                 group.begun, state_->held[at].sequence(), at, 0, true});
            }
            changes_ = state_->changes;
        }
        sight_ = core_.ring.survey(core_.head, [this](const SlotRing::Waiting& waiting) {
            const layout::GroupTag tag = layout::decode_tag(waiting.tag);
            seen_.push_back({tag.sequences, tag.environment, waiting.order, waiting.sequence,
                             waiting.index, waiting.word});
        });
        const auto is_older = [](const Seen& one, const Seen& other) {
            return one.is_older_than(other);
        };
        if (!std::ranges::is_sorted(seen_, is_older)) std::ranges::sort(seen_, is_older);
        if (seen_.size() > request_.lookahead) seen_.resize(request_.lookahead);
    }

    // Whether anything has come since the last look.
    [[nodiscard]] bool has_news() const {
        if (core_.is_ended() || core_.ring.has_more(core_.head, sight_)) return true;
        const std::lock_guard lock(state_->mutex);
        return state_->changes != changes_;
    }

    // Unsticking.
    //
    // Credit may be used up before the sizes of groups add up to a batch: writers and trainers
    // would wait for each other. If no rollout runs, and some living writer gets no credit, parts
    // by weight don't count until a batch is formed; if that does not suffice, waiting groups don't
    // count either. A pause between two rollouts is no such case: the search waits for a writer
    // that has credit. An environment that has credit and does not use it, and a writer stopped
    // while asking, delay a batch by kStuckPatience at most; a batch that another trainer does not
    // acknowledge delays all later ones together by so much.
    // Only the first trainer in line does this: later ones lack the same groups.
    void allow_more_if_stuck() {
        const Board& board = state_->board;
        if (has_news() || !board.is_idle()) return forget_stuck();
        const std::uint64_t waiting = queued_sequences();
        const std::vector<Board::Unacknowledged> beside = board.with_other_trainers();
        if (waiting == 0 && beside.empty()) return forget_stuck();
        const Board::Appetite appetite = board.appetite();
        // After the sums: what was begun before them still runs, or was put and is found here.
        if (!appetite.has_refused || !board.is_idle() || has_news()) return forget_stuck();
        const bool is_late = is_stuck_for_long(waiting, beside);
        if (is_late) state_->overdue = beside;
        const std::uint64_t overdue = overdue_sequences(beside);
        const bool is_all_seen = appetite.on_the_way == waiting + overdue;
        const bool is_helpless = waiting != 0 && is_all_seen && !appetite.has_room;
        const std::uint64_t known = load_relaxed(board.state().shortage);
        allow(is_helpless || is_late ? layout::kStuck + overdue + waiting
                                     : std::max(known, layout::kStuck + overdue));
    }

    // Whether nothing but more credit could help for kStuckPatience, and nothing has changed.
    bool is_stuck_for_long(std::uint64_t waiting,
                           const std::vector<Board::Unacknowledged>& beside) {
        const std::int64_t now = os::coarse_ns();
        if (state_->stuck_since == 0 || state_->stuck_with != waiting ||
            state_->stuck_beside != beside) {
            state_->stuck_since = now;
            state_->stuck_with = waiting;
            state_->stuck_beside = beside;
        }
        return now - state_->stuck_since > kStuckPatience;
    }

    // Forgets what has been acknowledged, or is with another trainer now.
    std::uint64_t overdue_sequences(const std::vector<Board::Unacknowledged>& beside) {
        std::erase_if(state_->overdue, [&beside](const Board::Unacknowledged& group) {
            return std::ranges::find(beside, group) == beside.end();
        });
        std::uint64_t sequences = 0;
        for (const Board::Unacknowledged& group : state_->overdue) sequences += group.sequences;
        return sequences;
    }

    void allow(std::uint64_t shortage) {
        auto& allowed = state_->board.state().shortage;
        if (load_relaxed(allowed) == shortage) return;
        store_release(allowed, shortage);
        state_->board.credit_signal().notify();
    }

    void forget_stuck() noexcept { state_->stuck_since = 0; }

    // Sequences of groups in the queue, which the accounts count.
    [[nodiscard]] std::uint64_t queued_sequences() const noexcept {
        std::uint64_t sequences = 0;
        for (const Seen& seen : seen_) {
            if (!seen.is_restored) sequences += seen.sequences;
        }
        return sequences;
    }

    // Timeout: another trainer has taken it. Corrupt: it is a dead letter now.
    Result<HeldGroup> take_group(const Seen& seen) {
        Result<Delivery> delivery = QueueAccess::take_seen(state_->core, seen.index, seen.word);
        if (!delivery) {
            if (delivery.code() == ErrorCode::Corrupt) state_->board.credit_signal().notify();
            return delivery.status();
        }
        Result<GroupView> group = read_group(delivery->bytes());
        if (group && group->sequences() == seen.sequences) {
            return HeldGroup(*std::move(delivery), *std::move(group));
        }
        const std::string why(group ? "it has other sequences than its producer said"
                                    : group.status().message());
        const std::uint64_t sequence = delivery->sequence();
        delivery->dead_letter();
        state_->board.credit_signal().notify();  // it is no longer work in progress
        return Status(ErrorCode::Corrupt, "message " + std::to_string(sequence) + " of " +
                                              quoted(state_->queue.name()) +
                                              " was set aside: " + why);
    }

    Status drop_stale() {
        bool has_dropped = false;
        for (const Seen& seen : seen_) {
            const bool is_unreadable = seen.sequences == 0;
            if (!is_unreadable && !(request_.drops_stale && is_stale(seen))) continue;
            Result<HeldGroup> group = take_group(seen);
            if (group.code() == ErrorCode::Timeout) continue;
            if (!group) return group.status();
            group->ack();
            fetch_add_relaxed(state_->board.state().dropped_stale, 1);
            has_dropped = true;
        }
        if (!has_dropped) return Status::ok();
        state_->board.credit_signal().notify();
        look();
        return Status::ok();
    }

    [[nodiscard]] bool is_stale(const Seen& seen) const noexcept {
        const layout::BoardState& board = state_->board.state();
        const std::uint64_t staleness = load_relaxed(board.max_staleness);
        const std::uint64_t version = load_acquire(board.version);
        return !seen.is_restored && staleness != kUnlimited && version > seen.begun &&
               version - seen.begun > staleness;
    }

    // Without this the call would wait for ever and not say why.
    Status look_for_oversized() {
        if (request_.sets_oversized_aside) set_oversized_aside();
        for (const Seen& seen : seen_) {
            if (seen.sequences <= sequences_) continue;
            const Result<std::string> title = title_of(seen);
            if (title.code() == ErrorCode::Timeout) continue;
            if (!title) return title.status();
            return {ErrorCode::TooLarge,
                    *title + " has " + std::to_string(seen.sequences) + " sequences and a batch " +
                        std::to_string(sequences_) + "; it stays: ask for a larger batch"};
        }
        return Status::ok();
    }

    void set_oversized_aside() {
        const auto is_oversized = [this](const Seen& seen) { return seen.sequences > sequences_; };
        if (std::ranges::none_of(seen_, is_oversized)) return;
        for (const Seen& seen : seen_) {
            if (!is_oversized(seen)) continue;
            const std::string why = "has " + std::to_string(seen.sequences) +
                                    " sequences and a batch " + std::to_string(sequences_);
            if (seen.is_restored) {
                set_held_aside(seen.index, why);
            } else if (Result<HeldGroup> group = take_group(seen)) {
                note_aside(*group, why);
            }
        }
        look();
    }

    // For a restored group, which the reader holds.
    void set_held_aside(std::uint64_t index, const std::string& why) {
        std::string notice;
        {
            const std::lock_guard lock(state_->mutex);
            if (state_->changes != changes_) return;
            notice = notice_of(state_->held[index], why);
            state_->held[index].dead_letter();
        }
        state_->note_dead_letters(std::move(notice));
    }

    void note_aside(HeldGroup& group, const std::string& why) {
        std::string notice = notice_of(group, why);
        group.dead_letter();
        state_->note_dead_letters(std::move(notice));
    }

    static std::string notice_of(const HeldGroup& group, const std::string& why) {
        return group.group().title() + " " + why + "; it was set aside";
    }

    // Why this group can be in no batch; empty: it can.
    [[nodiscard]] std::string unserveable(const HeldGroup& group) const {
        const std::uint64_t most = load_relaxed(state_->board.state().max_tokens);
        const std::uint64_t longest = group.group().longest();
        if (most == 0 || longest <= most) return {};
        return "has a sequence of " + std::to_string(longest) + " tokens and the trainer takes " +
               std::to_string(most);
    }

    [[nodiscard]] std::string why_held_is_unserveable(std::uint64_t index) const {
        const std::lock_guard lock(state_->mutex);
        return state_->changes == changes_ ? unserveable(state_->held[index]) : std::string();
    }

    Result<std::string> title_of(const Seen& seen) {
        return ask(seen, [](const GroupView& group) { return group.title(); });
    }
    // Asks something that only the group's content can answer.
    template <typename Question>
    Result<std::string> ask(const Seen& seen, Question&& question) {
        if (seen.is_restored) {
            const std::lock_guard lock(state_->mutex);
            if (state_->changes != changes_) return Status(ErrorCode::Timeout, "it has gone");
            return question(state_->held[seen.index].group());
        }
        Result<HeldGroup> group = take_group(seen);
        if (!group) return group.status();
        std::string answer = question(group->group());
        group->untake();
        return answer;
    }

    // Minimum shares of the living environments.
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

    // Chooses indices into `seen_`; false: no exact fill.
    bool choose(std::vector<std::uint32_t>& chosen) {
        state_->shares = shares();
        std::vector<std::uint64_t> least(1, 0);
        std::map<std::uint64_t, std::uint32_t> share_of;
        for (const auto& [environment, sequences] : minima(state_->shares)) {
            share_of.emplace(environment_hash(environment),
                             static_cast<std::uint32_t>(least.size()));
            least.push_back(sequences);
        }
        std::vector<Candidate> candidates;
        candidates.reserve(seen_.size());
        for (const Seen& seen : seen_) {
            const auto share = share_of.find(seen.environment);
            candidates.push_back({seen.sequences, share == share_of.end() ? 0 : share->second});
        }
        return choose_with_one_suspect(candidates, least, chosen) ||
               form_batch(candidates, sequences_, least, chosen);
    }

    // A group that reached the delivery limit within batches should be delivered alone now, but a
    // batch of an exact size can seldom be one group. So it gets a batch whose other groups are not
    // suspect: if that batch fails too, this group is taken to be the cause.
    bool choose_with_one_suspect(const std::vector<Candidate>& candidates,
                                 const std::vector<std::uint64_t>& least,
                                 std::vector<std::uint32_t>& chosen) const {
        std::vector<std::uint32_t> places;
        std::vector<Candidate> some;
        bool has_suspect = false;
        for (std::uint32_t at = 0; at < candidates.size(); ++at) {
            if (is_suspect(seen_[at]) && std::exchange(has_suspect, true)) continue;
            places.push_back(at);
            some.push_back(candidates[at]);
        }
        // no suspect to leave out: choose among all
        if (some.size() == candidates.size()) return false;
        if (!form_batch(some, sequences_, least, chosen)) return false;
        for (std::uint32_t& at : chosen) at = places[at];
        return true;
    }

    [[nodiscard]] bool is_suspect(const Seen& seen) const noexcept {
        const unsigned deliveries = layout::decode_slot(seen.word).deliveries;
        return !seen.is_restored && core_.ring.must_come_alone(deliveries + 1);
    }

    // Marks the deliveries that count as deliveries alone: of a group that is the whole batch, or
    // the one suspect in it. If suspects can't be kept apart, also of a group that has failed twice
    // as often as the limit: otherwise they would be redelivered for ever.
    void note_who_is_on_trial(std::vector<HeldGroup>& groups, bool is_whole) const noexcept {
        const unsigned limit = core_.view.shape().max_deliveries;
        if (limit == 0) return;
        const unsigned most = std::min(2 * limit, layout::kMaxDeliveries - 1);
        const auto suspects = std::ranges::count_if(groups, &HeldGroup::is_suspect);
        for (HeldGroup& group : groups) {
            const bool is_alone = is_whole && groups.size() == 1;
            const bool is_the_suspect = suspects == 1 && group.is_suspect();
            if (is_alone || is_the_suspect || group.deliveries() > most) group.note_alone();
        }
    }

    // Takes all of them or none. Timeout: one is not there any more.
    Result<std::vector<HeldGroup>> take(const std::vector<std::uint32_t>& chosen) {
        std::vector<HeldGroup> taken;
        taken.reserve(chosen.size());
        const auto untake = [&taken] {
            for (HeldGroup& group : taken) group.untake();
        };
        std::vector<std::uint64_t> restored;
        for (const std::uint32_t at : chosen) {
            if (seen_[at].is_restored) {
                restored.push_back(seen_[at].index);
                continue;
            }
            Result<HeldGroup> group = take_group(seen_[at]);
            if (!group) {
                untake();
                return group.status();
            }
            if (const std::string why = unserveable(*group); !why.empty()) {
                untake();
                note_aside(*group, why);
                // search again without it
                return Status(ErrorCode::Timeout, "a group was set aside");
            }
            taken.push_back(*std::move(group));
        }
        if (restored.empty()) {
            note_who_is_on_trial(taken, true);
            return taken;
        }
        for (const std::uint64_t at : restored) {
            const std::string why = why_held_is_unserveable(at);
            if (why.empty()) continue;
            untake();
            set_held_aside(at, why);
            return Status(ErrorCode::Timeout, "a group was set aside");
        }
        note_who_is_on_trial(taken, false);
        // Restored groups are the oldest, and come first.
        const std::lock_guard lock(state_->mutex);
        if (state_->changes != changes_) {
            untake();
            return Status(ErrorCode::Timeout, "what was restored has changed");
        }
        for (const std::uint64_t at : std::views::reverse(restored)) {
            const auto place = state_->held.begin() + static_cast<std::ptrdiff_t>(at);
            taken.insert(taken.begin(), std::move(*place));
            state_->held.erase(place);
        }
        ++state_->changes;
        return taken;
    }

    // Groups in no batch stay in the queue, Returned, so that producers can pass their slots. Once
    // for each group.
    void leave_others(const std::vector<std::uint32_t>& chosen) {
        remember_left(chosen);
        bool has_deferred = false;
        std::size_t next = 0;
        for (std::size_t at = 0; at < seen_.size(); ++at) {
            const Seen& seen = seen_[at];
            if (next < chosen.size() && chosen[next] == at) {
                ++next;
            } else if (!seen.is_restored) {
                has_deferred = core_.ring.defer(seen.index, seen.word) || has_deferred;
            }
        }
        if (!has_deferred) return;
        core_.ring.announce_deferred(sight_);
        core_.space.notify();
    }

    // For held_messages(): groups that were seen and are in no batch.
    void remember_left(const std::vector<std::uint32_t>& chosen) {
        state_->left.clear();
        std::size_t next = 0;
        for (std::size_t at = 0; at < seen_.size(); ++at) {
            if (next < chosen.size() && chosen[next] == at) {
                ++next;
            } else if (!seen_[at].is_restored) {
                state_->left.push_back(seen_[at].order);
            }
        }
        std::ranges::sort(state_->left);
    }

    // The waiting groups, by environment and size, and the minimum of each environment, as a
    // sentence.
    [[nodiscard]] std::string waiting() {
        std::map<std::string, std::map<std::size_t, std::size_t>> sizes;
        std::size_t sequences = 0;
        std::map<std::string, std::size_t> of;
        std::map<std::uint64_t, std::string> names;
        for (const EnvironmentStats& environment : state_->board.living()) {
            names.emplace(environment_hash(environment.name), environment.name);
        }
        for (const Seen& seen : seen_) {
            auto name = names.find(seen.environment);
            // of an environment that has left only the group has the name
            if (name == names.end()) {
                const auto answer =
                    ask(seen, [](const GroupView& group) { return group.environment; });
                name = names.emplace(seen.environment, answer ? *answer : "?").first;
            }
            ++sizes[name->second][seen.sequences];
            of[name->second] += seen.sequences;
            sequences += seen.sequences;
        }
        std::string text = std::to_string(sequences) + " sequences wait";
        for (const auto& [environment, groups] : sizes) {
            text += "; of '" + printable(environment) + "'";
            std::string separator = " ";
            for (const auto& [size, count] : groups) {
                text += separator + std::to_string(count) + " x " + std::to_string(size);
                separator = ", ";
            }
        }
        for (const auto& [environment, least] : minima(shares())) {
            if (of[environment] >= least) continue;
            text += "; '" + printable(environment) + "' is to have " + std::to_string(least) +
                    " and has " + std::to_string(of[environment]);
        }
        return text;
    }

    [[nodiscard]] std::string no_fill() {
        const bool is_behind = !is_turn();
        if (is_behind) look();
        return "no whole groups make exactly " + std::to_string(sequences_) + " sequences from " +
               quoted(state_->queue.name()) + (is_behind ? " behind another trainer" : "") + ": " +
               waiting();
    }

    [[nodiscard]] Status ended() {
        const std::string name = quoted(state_->queue.name());
        if (seen_.empty()) {
            return {ErrorCode::Closed, name + " has ended and everything was taken"};
        }
        return {ErrorCode::Closed, name + " has ended, and what is left makes no batch of " +
                                       std::to_string(sequences_) + ": " + waiting() +
                                       "; ask for another number of sequences"};
    }

    std::shared_ptr<ReaderState> state_;
    QueueCore& core_;
    BatchRequest request_;
    std::uint64_t sequences_;
    std::vector<Seen> seen_;  // by the last look
    SlotRing::Sight sight_;
    std::uint64_t changes_ = 0;
};

}  // namespace

void check_sequences(std::uint64_t sequences) {
    if (sequences >= 1 && sequences <= kMaxBatchSequences) return;
    throw Error(ErrorCode::InvalidArgument, "a batch has 1 to " +
                                                std::to_string(kMaxBatchSequences) +
                                                " sequences, not " + std::to_string(sequences));
}

Result<TrajectoryBatch> search_batch(const std::shared_ptr<ReaderState>& state,
                                     const BatchRequest& request, const Wait& wait) {
    return Search(state, request).run(wait);
}

Status wait_for_more(const std::shared_ptr<ReaderState>& state, const Wait& wait) {
    return Search(state, {}).wait(wait);
}

std::uint64_t drop_waiting(const std::shared_ptr<ReaderState>& state) {
    return Search(state, {}).drop_waiting();
}

bool may_find_batch(const std::shared_ptr<ReaderState>& state) {
    return Search(state, {}).may_find();
}

void copy_left(const std::shared_ptr<ReaderState>& state,
               std::vector<std::vector<std::byte>>& messages) {
    Search(state, {}).copy_left(messages);
}

}  // namespace penstock::detail

// Lines of writers and removers, the write-back threads, and the counts.
#include "remote/backlog.hpp"

#include <algorithm>
#include <utility>

#include "os/thread.hpp"
#include "remote/patience.hpp"
#include "segment/waiting/timing.hpp"

namespace penstock::detail {

Backlog::Backlog(const BacklogOptions& options, TierTally& tally, Write write, IsAway is_away)
    : options_(options), tally_(tally), write_(std::move(write)), is_away_(std::move(is_away)) {}

Backlog::~Backlog() {
    stop();
}

void Backlog::drop(const BacklogItem& item) {
    tally_.drop(item.bytes);
    ++dropped_.dropped;
    dropped_.dropped_bytes += item.bytes;
}

// ---- queueing

Backlog::Turn Backlog::announce(std::string key) {
    const std::lock_guard lock(mutex_);
    return *announced_.emplace(std::move(key), next_turn_++).first;
}

void Backlog::leave(const Turn& turn) {
    const std::lock_guard lock(mutex_);
    announced_.erase(turn);
    has_less_.notify_all();
}

bool Backlog::await_turn(const Turn& turn, const Wait& wait) {
    std::unique_lock lock(mutex_);
    return await_turn(lock, turn, wait);
}

bool Backlog::await_turn(std::unique_lock<std::mutex>& lock, const Turn& turn, const Wait& wait) {
    while (!is_first(turn) && !is_stopped_) {
        has_less_.wait_for(lock, wait.deadline.left(Clock::now(), kSlice));
        if (!is_first(turn) && has_ended(wait, lock)) return false;
    }
    return !is_stopped_;
}

bool Backlog::is_first(const Turn& turn) const {
    return *announced_.lower_bound({turn.first, 0}) == turn;
}

bool Backlog::add(const Turn& turn, StoreObject object, std::uint64_t bytes, const Wait& wait) {
    Items older;  // both are destroyed after the mutex is unlocked
    Items fresh;
    fresh.push_back({turn.first, std::move(object), bytes, 0, 0});
    BacklogItem& item = fresh.front();
    std::unique_lock lock(mutex_);
    if (!await_turn(lock, turn, wait) || !make_room(lock, bytes, wait)) {
        drop(item);
        return !is_stopped_;
    }
    take_out(item.key, older);
    item.sequence = next_sequence_++;
    bytes_ += bytes;
    outstanding_.insert(item.sequence);
    by_key_[item.key] = fresh.begin();
    waiting_.splice(waiting_.end(), fresh);
    has_work_.notify_one();
    return true;
}

// Moves the key's waiting object, if any, to `gone`, and out of the counts.
void Backlog::take_out(const std::string& key, Items& gone) {
    const auto known = by_key_.find(key);
    if (known == by_key_.end()) return;
    Items taken;
    taken.splice(taken.end(), waiting_, known->second);
    by_key_.erase(known);
    let_go(taken);
    gone.splice(gone.end(), taken);
}

// Subtracts the objects from the counts.
void Backlog::let_go(Items& gone) {
    for (const BacklogItem& item : gone) {
        bytes_ -= item.bytes;
        outstanding_.erase(item.sequence);
    }
    has_less_.notify_all();
}

bool Backlog::make_room(std::unique_lock<std::mutex>& lock, std::uint64_t bytes, const Wait& wait) {
    const auto has_room = [&] { return bytes <= options_.most_bytes - bytes_; };
    if (is_stopped_ || bytes > options_.most_bytes) return false;
    if (options_.when_full == WhenFull::Drop) return has_room();
    const Deadline deadline = Deadline::after(options_.full_timeout);
    while (!has_room()) {
        const auto now = Clock::now();
        if (is_stopped_ || deadline.has_passed(now) || is_away_()) return false;
        has_less_.wait_for(lock, deadline.left(now, kSlice));
        if (!has_room() && has_ended(wait, lock)) return false;
    }
    return !is_stopped_;
}

bool Backlog::forget(const Turn& turn, Deadline deadline, const Wait& wait) {
    Items gone;
    std::unique_lock lock(mutex_);
    for (;;) {
        // Again each time: an object may have been queued, or requeued after a failure.
        take_out(turn.first, gone);
        const auto is_written = [&] { return is_first(turn) && !writing_.contains(turn.first); };
        if (is_written()) return true;
        const auto now = Clock::now();
        if (deadline.has_passed(now)) return false;
        has_less_.wait_for(lock, deadline.left(now, kSlice));
        if (!is_written() && has_ended(wait, lock)) return false;
    }
}

// ---- writing

void Backlog::start(std::uint64_t most_bytes) {
    const std::lock_guard lock(mutex_);
    options_.most_bytes = std::min(options_.most_bytes, most_bytes);
    while (threads_.size() < options_.writers) {
        threads_.push_back(os::start_quiet_thread([this] { write_for_ever(); }));
    }
}

// The oldest waiting object whose key no thread is writing.
std::optional<Backlog::Items::iterator> Backlog::pick() {
    const auto found = std::find_if(waiting_.begin(), waiting_.end(), [this](const auto& item) {
        return !writing_.contains(item.key);
    });
    if (found == waiting_.end()) return std::nullopt;
    return found;
}

void Backlog::write_for_ever() {
    std::unique_lock lock(mutex_);
    while (!is_stopped_) {
        // Every waiting object was tried, and each one's server is away: pause.
        if (!waiting_.empty() && away_in_a_row_ >= waiting_.size()) {
            away_in_a_row_ = 0;
            has_work_.wait_for(lock, kSlice, [this] { return is_stopped_; });
            continue;
        }
        if (const auto picked = pick()) {
            write_one(lock, *picked);
        } else {
            has_work_.wait(lock);
        }
    }
}

bool Backlog::must_try_again(const BacklogItem& item, const RedisOutcome& outcome) const {
    // Requests refused by an open circuit are no failures. Real failures are bounded, because the
    // object itself may cause them.
    constexpr unsigned kMaxFailures = 3;
    if (is_stopped_) return false;
    if (outcome.fault == RedisFault::Away) return true;
    const bool is_passing =
        outcome.fault == RedisFault::Timeout || outcome.fault == RedisFault::Lost;
    return is_passing && item.failures < kMaxFailures;
}

void Backlog::write_one(std::unique_lock<std::mutex>& lock, Items::iterator picked) {
    Items own;
    own.splice(own.end(), waiting_, picked);
    BacklogItem& item = own.front();
    by_key_.erase(item.key);
    writing_.insert(item.key);
    lock.unlock();
    const RedisOutcome outcome = write_(item);
    lock.lock();
    const bool is_away = outcome.fault == RedisFault::Away;
    away_in_a_row_ = is_away ? away_in_a_row_ + 1 : 0;
    if (!outcome.is_answered() && !is_away) ++item.failures;
    if (must_try_again(item, outcome) && !by_key_.contains(item.key)) {
        writing_.erase(item.key);
        by_key_[item.key] = own.begin();
        waiting_.splice(waiting_.end(), own);
        has_less_.notify_all();
        return;
    }
    lock.unlock();
    item.object.release();  // unpinned before flush() can report it, and outside the mutex
    lock.lock();
    writing_.erase(item.key);
    if (!outcome.is_answered()) drop(item);
    let_go(own);
    has_work_.notify_one();  // a waiting object of this key can be picked now
}

// ---- counts and end

bool Backlog::is_flushed(std::uint64_t mark) const {
    return outstanding_.empty() || *outstanding_.begin() >= mark;
}

Unwritten Backlog::flush(const Wait& wait) {
    std::unique_lock lock(mutex_);
    const std::uint64_t mark = next_sequence_;
    while (!is_flushed(mark) && !is_stopped_) {
        if (has_ended(wait, lock)) break;
        // The condition may have come true while has_ended() had the mutex unlocked.
        has_less_.wait_for(lock, wait.deadline.left(Clock::now(), kSlice),
                           [&] { return is_flushed(mark) || is_stopped_; });
    }
    Unwritten report = std::exchange(dropped_, {});
    if (!is_flushed(mark)) {
        report.waiting = outstanding_.size();
        report.waiting_bytes = bytes_;
    }
    return report;
}

Unwritten Backlog::stop() {
    Items gone;
    std::vector<std::thread> threads;
    {
        const std::lock_guard lock(mutex_);
        is_stopped_ = true;
        for (const BacklogItem& item : waiting_) drop(item);
        by_key_.clear();
        gone.swap(waiting_);
        let_go(gone);
        threads.swap(threads_);
        has_work_.notify_all();
    }
    for (std::thread& thread : threads) thread.join();
    const std::lock_guard lock(mutex_);
    return std::exchange(dropped_, {});
}

Backlog::Use Backlog::use() const {
    const std::lock_guard lock(mutex_);
    return {outstanding_.size(), bytes_};
}

}  // namespace penstock::detail

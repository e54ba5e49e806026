// Write-back queue of the second tier: objects wait pinned in the first tier, bounded in bytes, and
// the library's own threads write them.
//
// At most one thread writes a key. A new object of a key replaces an older one that still waits.
// During an outage objects wait as long as there is room.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "penstock/store.hpp"
#include "remote/tally.hpp"

namespace penstock::detail {

struct BacklogItem {
    std::string key;
    StoreObject object;
    std::uint64_t bytes = 0;
    unsigned failures = 0;
    std::uint64_t sequence = 0;
};

struct BacklogOptions {
    std::uint64_t most_bytes = 0;
    WhenFull when_full = WhenFull::Drop;
    std::chrono::nanoseconds full_timeout{};
    unsigned writers = 1;
};

// Any thread.
class Backlog {
public:
    using Write = std::function<RedisOutcome(const BacklogItem& item)>;
    using IsAway = std::function<bool()>;

    // `tally` must outlive it.
    Backlog(const BacklogOptions& options, TierTally& tally, Write write, IsAway is_away);
    Backlog(const Backlog&) = delete;
    Backlog& operator=(const Backlog&) = delete;
    ~Backlog();

    // Starts the threads. `most_bytes` is a second bound, beside that of the options. Throws
    // std::system_error.
    void start(std::uint64_t most_bytes);
    // Position in the line of the writers and removers of one key. A writer joins before its commit
    // and leaves after the write, so that the remover of a visible object comes behind it.
    using Turn = std::pair<std::string, std::uint64_t>;
    Turn announce(std::string key);
    void leave(const Turn& turn);
    // Waits until `turn` is the first in its line. False: stop() was called, or `wait` ended.
    bool await_turn(const Turn& turn, const Wait& wait);
    // Queues the object, or drops and counts it. `wait` bounds the wait for the turn and for room.
    // False: it was dropped after stop(), whose report may lack it.
    bool add(const Turn& turn, StoreObject object, std::uint64_t bytes, const Wait& wait);
    // Discards the key's waiting object, and waits for earlier turns and for a write under way.
    // False: they had not ended at the deadline, or when `wait` ended.
    bool forget(const Turn& turn, Deadline deadline, const Wait& wait);
    // Waits until all objects queued before the call are written or dropped.
    Unwritten flush(const Wait& wait);
    // Refuses new objects, drops the waiting ones and joins the threads, each of which ends after
    // its present write. Returns the drops since the last report.
    Unwritten stop();

    struct Use {
        std::uint64_t objects = 0;
        std::uint64_t bytes = 0;
    };
    [[nodiscard]] Use use() const;

private:
    using Items = std::list<BacklogItem>;

    [[nodiscard]] bool is_first(const Turn& turn) const;
    bool await_turn(std::unique_lock<std::mutex>& lock, const Turn& turn, const Wait& wait);
    bool make_room(std::unique_lock<std::mutex>& lock, std::uint64_t bytes, const Wait& wait);
    void drop(const BacklogItem& item);
    void take_out(const std::string& key, Items& gone);
    void let_go(Items& gone);
    std::optional<Items::iterator> pick();
    void write_for_ever();
    void write_one(std::unique_lock<std::mutex>& lock, Items::iterator picked);
    bool must_try_again(const BacklogItem& item, const RedisOutcome& outcome) const;
    [[nodiscard]] bool is_flushed(std::uint64_t mark) const;

    BacklogOptions options_;
    TierTally& tally_;
    const Write write_;
    const IsAway is_away_;

    mutable std::mutex mutex_;
    std::condition_variable has_work_;
    std::condition_variable has_less_;  // a write, a drop, or a turn that was left
    Items waiting_;
    std::unordered_map<std::string, Items::iterator> by_key_;  // of waiting_
    std::unordered_set<std::string> writing_;
    std::set<Turn> announced_;
    std::set<std::uint64_t> outstanding_;  // sequences of waiting_ and writing_
    std::uint64_t bytes_ = 0;              // of waiting_ and writing_
    std::uint64_t next_sequence_ = 0;
    std::uint64_t next_turn_ = 0;
    unsigned away_in_a_row_ = 0;
    Unwritten dropped_;  // since the last report
    bool is_stopped_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace penstock::detail

// Objects on their way to the second tier: pinned in the first, bounded in bytes, written by
// threads of ours.
//
// One key is written by one thread at a time, and the newest object of a key takes the place of an
// older one that still waits. While servers are away objects wait, as far as there is room.
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

    // The threads. No more than `most_bytes` wait, whatever the options say. Throws
    // std::system_error.
    void start(std::uint64_t most_bytes);
    // A place in the line of the writers and removers of one key. A writer takes it before its
    // commit, and leaves it after the write: the remover of a visible object comes behind.
    using Turn = std::pair<std::string, std::uint64_t>;
    Turn announce(std::string key);
    void leave(const Turn& turn);
    // Until the writers before it have left. False: stop(), or `wait` ended.
    bool await_turn(const Turn& turn, const Wait& wait);
    // Takes it, or drops and counts it. `wait` may end the wait for its turn and for room. False:
    // it is dropped after stop(), whose report does not know of it.
    bool add(const Turn& turn, StoreObject object, std::uint64_t bytes, const Wait& wait);
    // What is before it in the line is not to be written any more. False: it is being written, and
    // was still at the deadline, or when `wait` ended.
    bool forget(const Turn& turn, Deadline deadline, const Wait& wait);
    // Until what is there now has been written or dropped.
    Unwritten flush(const Wait& wait);
    // Nothing is taken any more, and what waits is dropped. The threads end when what they are
    // writing has been cancelled or is done. What was dropped since the last report.
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
    std::condition_variable has_less_;  // something was written, dropped or forgotten
    Items waiting_;
    std::unordered_map<std::string, Items::iterator> by_key_;  // of waiting_
    std::unordered_set<std::string> writing_;
    std::set<Turn> announced_;
    std::set<std::uint64_t> outstanding_;  // sequences of waiting_ and writing_
    std::uint64_t bytes_ = 0;              // of both
    std::uint64_t next_sequence_ = 0;
    std::uint64_t next_turn_ = 0;
    unsigned away_in_a_row_ = 0;
    Unwritten dropped_;  // since the last report
    bool is_stopped_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace penstock::detail

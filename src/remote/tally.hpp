// Counters of a second tier, and its last error.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>

#include "remote/redis_connection.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {

// Any thread.
struct TierTally {
    using Count = std::atomic<std::uint64_t>;
    Count hits{0};
    Count misses{0};
    Count skipped{0};
    Count shared{0};
    Count errors{0};
    Count timeouts{0};
    Count corrupt{0};
    Count incompatible{0};
    Count no_room{0};
    Count fetched_bytes{0};
    Count written{0};
    Count written_bytes{0};
    Count dropped{0};
    Count dropped_bytes{0};

    static void add(Count& count, std::uint64_t more = 1) noexcept {
        fetch_add_relaxed(count, more);
    }
    void drop(std::uint64_t bytes) noexcept {
        add(dropped);
        add(dropped_bytes, bytes);
    }
    // Counts a failed request as an error or a timeout. Requests that were not made or were
    // cancelled are no failures; the reader counts a Misfit as corrupt.
    void note(const RedisOutcome& outcome) {
        switch (outcome.fault) {
            case RedisFault::None:
            case RedisFault::Away:
            case RedisFault::Cancelled:
            case RedisFault::Misfit:
                return;
            default:
                break;
        }
        add(outcome.fault == RedisFault::Timeout ? timeouts : errors);
        explain(outcome.sentence);
    }
    // Records the reason of the last error, timeout or unusable value.
    void explain(std::string sentence) {
        const std::lock_guard lock(mutex_);
        last_error_ = std::move(sentence);
    }
    [[nodiscard]] std::string last_error() const {
        const std::lock_guard lock(mutex_);
        return last_error_;
    }

private:
    mutable std::mutex mutex_;
    std::string last_error_;
};

}  // namespace penstock::detail

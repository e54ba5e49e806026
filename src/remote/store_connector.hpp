// Batches of operations on a store, carried out by threads of the connector's own, for programs
// with an event loop: submit, wait for a descriptor, collect the outcomes.
//
// Copies run in these threads, one object each at a time; look-ups and deletions go before them.
// The store may have a second tier: what asks its server is bounded by that tier's timeouts.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "os/event_pipe.hpp"
#include "penstock/store.hpp"

namespace penstock::detail {

enum class BatchKind : std::uint8_t {
    Get,     // copies the objects into the memory given, where their sizes are equal
    Set,     // puts copies of the memory given
    Exists,  // looks; counts as read in the first tier
    Lock,    // looks, and pins what the first tier has until unlock()
    Remove,
};

enum class ItemOutcome : std::uint8_t {
    Missed,     // there is no such object
    Done,       // copied, put, there, removed
    Unchanged,  // Set: it was there before
    Failed,     // the batch's error says why, of the first that failed
};

struct BatchItem {
    std::string key;
    std::span<std::byte> memory;  // of Get and Set, which only reads it; valid until collected
};

struct BatchResult {
    std::uint64_t id = 0;
    BatchKind kind = BatchKind::Get;
    std::vector<ItemOutcome> outcomes;  // in the order of the items
    std::string error;                  // empty: nothing failed
};

// Any thread, but for the destructor. Not in a forked child, which has none of the threads: the
// owner leaves it alone there (os::fork_generation).
class StoreConnector {
public:
    // At least one thread. `most_pending`: keys that wait at most before submit() does. Throws
    // std::system_error.
    StoreConnector(std::shared_ptr<Store> store, unsigned threads, std::size_t most_pending);
    StoreConnector(const StoreConnector&) = delete;
    StoreConnector& operator=(const StoreConnector&) = delete;
    ~StoreConnector();  // close()

    // Readable while there is something to collect, and from close() on. Until the destructor.
    [[nodiscard]] int descriptor() const noexcept { return event_.descriptor(); }
    // `id` comes back with the outcome. Waits while too much is pending, and no longer than `wait`
    // says. Closed, by Self; Timeout, Cancelled: nothing of the batch is done.
    Status submit(std::uint64_t id, BatchKind kind, std::vector<BatchItem> items,
                  const Wait& wait = {});
    // Each key once for each Lock that found it; more often does nothing.
    void unlock(std::span<const std::string> keys);
    // What is finished since the last call.
    std::vector<BatchResult> collect();

    // Ends the threads as soon as each has done the object it is at. What waits is dropped, and
    // what is locked is released. The second time it does nothing.
    void close() noexcept;
    [[nodiscard]] bool is_closed() const;

private:
    struct Batch {
        std::vector<BatchItem> items;
        std::size_t next = 0;  // the first that no thread has taken
        std::size_t left = 0;  // that are not finished
        BatchResult result;
    };
    using BatchPtr = std::shared_ptr<Batch>;
    struct Share {  // of a batch: what one thread does in one go
        BatchPtr batch;
        std::size_t begin = 0;
        std::size_t end = 0;
    };

    Status await_room(std::size_t keys, const Wait& wait, std::unique_lock<std::mutex>& lock);
    void work();
    Share take();
    void finish(Share& share, std::span<const ItemOutcome> outcomes, std::string error);

    ItemOutcome carry_out(BatchKind kind, const BatchItem& item, std::string& error);
    ItemOutcome get(const BatchItem& item, std::string& error);
    ItemOutcome set(const BatchItem& item, std::string& error);
    ItemOutcome exists(const BatchItem& item, std::string& error);
    ItemOutcome lock(const BatchItem& item, std::string& error);
    ItemOutcome look_further(const BatchItem& item, const Status& why, std::string& error);
    ItemOutcome remove(const BatchItem& item, std::string& error);
    ItemOutcome wait_for_other_writer(const BatchItem& item, std::string& error);
    Status put(const BatchItem& item);
    Result<StoreObject> find(const std::string& key);

    std::shared_ptr<Store> store_;  // none once it is closed: others may want the last to have left
    const std::size_t most_pending_;
    os::EventPipe event_;
    Cancel closing_;
    Wait until_closed_;

    mutable std::mutex mutex_;
    std::condition_variable has_work_;
    std::condition_variable has_room_;
    std::deque<BatchPtr> looks_;   // Exists, Lock, Remove
    std::deque<BatchPtr> copies_;  // Get, Set
    std::vector<BatchResult> finished_;
    std::size_t pending_ = 0;  // keys of all batches that are not finished
    bool is_closed_ = false;

    std::mutex locked_mutex_;
    std::unordered_multimap<std::string, StoreObject> locked_;  // one for each Lock

    std::mutex close_mutex_;  // one thread joins
    std::vector<std::thread> threads_;
};

}  // namespace penstock::detail

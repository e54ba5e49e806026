// Asynchronous batches of store operations, for programs with an event loop: submit, wait for a
// descriptor, collect the outcomes. The connector's own threads do the work.
//
// A thread takes one copy at a time; look-ups and removals come before copies. With a second tier,
// requests to its server are bounded by that tier's timeouts.
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
    Get,     // copies objects into the given memory; sizes must be equal
    Set,     // puts copies of the given memory
    Exists,  // looks up; counts as a read in the first tier
    Lock,    // looks up, and pins objects of the first tier until unlock()
    Remove,
};

enum class ItemOutcome : std::uint8_t {
    Missed,     // there is no such object
    Done,       // copied, put, found or removed
    Unchanged,  // Set: the key had an object before
    Failed,     // the batch's error explains the first failure
};

struct BatchItem {
    std::string key;
    std::span<std::byte> memory;  // of Get and Set; must stay valid until the batch is collected
};

struct BatchResult {
    std::uint64_t id = 0;
    BatchKind kind = BatchKind::Get;
    std::vector<ItemOutcome> outcomes;  // in the order of the items
    std::string error;                  // empty: nothing failed
};

// Any thread, except for the destructor. Unusable in a forked child, which has none of the threads:
// the owner must not even destroy it there (os::fork_generation).
class StoreConnector {
public:
    // `threads`: at least one. `most_pending`: number of unfinished keys above which submit()
    // waits. Throws std::system_error.
    StoreConnector(std::shared_ptr<Store> store, unsigned threads, std::size_t most_pending);
    StoreConnector(const StoreConnector&) = delete;
    StoreConnector& operator=(const StoreConnector&) = delete;
    ~StoreConnector();  // close()

    // Readable while results can be collected, and after close(). Valid until the destructor.
    [[nodiscard]] int descriptor() const noexcept { return event_.descriptor(); }
    // Queues a batch; `id` comes back with the result. Waits for room until `wait` ends. Closed (by
    // Self), Timeout, Cancelled: no part of the batch is done.
    Status submit(std::uint64_t id, BatchKind kind, std::vector<BatchItem> items,
                  const Wait& wait = {});
    // Releases one pin of each key; no effect on keys without pins.
    void unlock(std::span<const std::string> keys);
    // Returns the batches finished since the last call.
    std::vector<BatchResult> collect();

    // Drops queued batches, joins the threads after their present object, and releases all pins.
    // Idempotent.
    void close() noexcept;
    [[nodiscard]] bool is_closed() const;

private:
    struct Batch {
        std::vector<BatchItem> items;
        std::size_t next = 0;  // first item that no thread has taken
        std::size_t left = 0;  // unfinished items
        BatchResult result;
    };
    using BatchPtr = std::shared_ptr<Batch>;
    struct Share {  // items of a batch that one thread has taken
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

    std::shared_ptr<Store> store_;  // null after close(), so that the store can be left
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
    std::size_t pending_ = 0;  // unfinished keys of all batches
    bool is_closed_ = false;

    std::mutex locked_mutex_;
    std::unordered_multimap<std::string, StoreObject> locked_;  // one for each Lock

    std::mutex close_mutex_;  // held by the thread that joins
    std::vector<std::thread> threads_;
};

}  // namespace penstock::detail

// Queues of batches, and the operations on one key.
#include "remote/store_connector.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <new>
#include <utility>

#include "os/thread.hpp"
#include "remote/patience.hpp"

namespace penstock::detail {

namespace {

// Look-ups taken at once: one by one, the queue would cost more than the look-ups.
constexpr std::size_t kLooksInOneGo = 64;
// Wait for a key that another process is writing: after each slice put() is tried again; after the
// last one the item fails.
constexpr std::chrono::milliseconds kWriterSlice{100};
constexpr unsigned kWriterSlices = 50;

// Interval at which a wait for room checks the caller's Wait.
constexpr std::chrono::milliseconds kRoomSlice{50};

constexpr bool is_copy(BatchKind kind) noexcept {
    return kind == BatchKind::Get || kind == BatchKind::Set;
}

ItemOutcome failed(std::string& error, std::string_view key, std::string_view why) {
    if (error.empty()) error.append("'").append(key).append("': ").append(why);
    return ItemOutcome::Failed;
}

}  // namespace

StoreConnector::StoreConnector(std::shared_ptr<Store> store, unsigned threads,
                               std::size_t most_pending)
    : store_(std::move(store)), most_pending_(most_pending) {
    until_closed_.cancel = &closing_;
    try {
        for (unsigned thread = 0; thread < threads; ++thread) {
            threads_.push_back(os::start_quiet_thread([this] { work(); }));
        }
    } catch (...) {
        close();
        throw;
    }
}

StoreConnector::~StoreConnector() {
    close();
}

// ---- queues and threads

Status StoreConnector::submit(std::uint64_t id, BatchKind kind, std::vector<BatchItem> items,
                              const Wait& wait) {
    auto batch = std::make_shared<Batch>();
    const std::size_t count = items.size();
    batch->items = std::move(items);
    batch->left = count;
    batch->result.id = id;
    batch->result.kind = kind;
    batch->result.outcomes.resize(count, ItemOutcome::Missed);
    std::unique_lock lock(mutex_);
    if (Status status = await_room(count, wait, lock); !status) return status;
    if (count == 0) {
        finished_.push_back(std::move(batch->result));
        event_.raise();
        return Status::ok();
    }
    (is_copy(kind) ? copies_ : looks_).push_back(std::move(batch));
    pending_ += count;
    has_work_.notify_all();
    return Status::ok();
}

// Called with the mutex, which is unlocked while the caller's `interrupted` runs.
Status StoreConnector::await_room(std::size_t keys, const Wait& wait,
                                  std::unique_lock<std::mutex>& lock) {
    while (!is_closed_ && pending_ > 0 && pending_ + keys > most_pending_) {
        has_room_.wait_for(lock, wait.deadline.left(Clock::now(), kRoomSlice));
        if (is_closed_ || !has_ended(wait, lock)) continue;
        if (wait.deadline.has_passed(Clock::now())) {
            return {ErrorCode::Timeout, "the connector had no room for the batch in time"};
        }
        return {ErrorCode::Cancelled, "the wait for room in the connector was cancelled"};
    }
    return is_closed_ ? Status::closed_here("this connector is closed") : Status::ok();
}

// Lowers the event under the mutex, so that the next finished batch raises it; not after close().
std::vector<BatchResult> StoreConnector::collect() {
    const std::lock_guard lock(mutex_);
    if (!is_closed_) event_.lower();
    return std::exchange(finished_, {});
}

bool StoreConnector::is_closed() const {
    const std::lock_guard lock(mutex_);
    return is_closed_;
}

void StoreConnector::close() noexcept {
    const std::lock_guard one(close_mutex_);
    closing_.cancel();
    {
        const std::lock_guard lock(mutex_);
        is_closed_ = true;
        looks_.clear();
        copies_.clear();
        has_work_.notify_all();
        has_room_.notify_all();
        event_.raise();  // wakes the event loop
    }
    for (std::thread& thread : threads_) {
        thread.join();
    }
    threads_.clear();
    const std::lock_guard lock(locked_mutex_);
    locked_.clear();
    store_ = nullptr;
}

void StoreConnector::work() {
    for (Share share = take(); share.batch != nullptr; share = take()) {
        const BatchKind kind = share.batch->result.kind;
        std::array<ItemOutcome, kLooksInOneGo> outcomes{};
        std::string error;
        for (std::size_t at = share.begin; at < share.end; ++at) {
            outcomes[at - share.begin] = carry_out(kind, share.batch->items[at], error);
        }
        finish(share, std::span(outcomes).first(share.end - share.begin), std::move(error));
    }
}

// Waits for work. Without a batch: closed.
StoreConnector::Share StoreConnector::take() {
    std::unique_lock lock(mutex_);
    has_work_.wait(lock, [&] { return is_closed_ || !looks_.empty() || !copies_.empty(); });
    if (is_closed_) return {};
    std::deque<BatchPtr>& queue = looks_.empty() ? copies_ : looks_;
    const BatchPtr batch = queue.front();
    const std::size_t count = is_copy(batch->result.kind) ? 1 : kLooksInOneGo;
    Share share{batch, batch->next, std::min(batch->next + count, batch->items.size())};
    batch->next = share.end;
    if (batch->next == batch->items.size()) queue.pop_front();
    return share;
}

void StoreConnector::finish(Share& share, std::span<const ItemOutcome> outcomes,
                            std::string error) {
    Batch& batch = *share.batch;
    const std::lock_guard lock(mutex_);
    std::copy(outcomes.begin(), outcomes.end(),
              batch.result.outcomes.begin() + static_cast<std::ptrdiff_t>(share.begin));
    if (batch.result.error.empty()) batch.result.error = std::move(error);
    batch.left -= outcomes.size();
    pending_ -= outcomes.size();
    has_room_.notify_all();
    if (batch.left > 0) return;
    finished_.push_back(std::move(batch.result));
    event_.raise();
}

// ---- one key

ItemOutcome StoreConnector::carry_out(BatchKind kind, const BatchItem& item, std::string& error) {
    try {
        switch (kind) {
            case BatchKind::Get:
                return get(item, error);
            case BatchKind::Set:
                return set(item, error);
            case BatchKind::Exists:
                return exists(item, error);
            case BatchKind::Lock:
                return lock(item, error);
            case BatchKind::Remove:
                return remove(item, error);
        }
    } catch (const std::bad_alloc&) {
        if (error.empty()) error = "no memory";  // short enough to need none
    }
    return ItemOutcome::Failed;
}

// Locked objects are found even after their removal.
Result<StoreObject> StoreConnector::find(const std::string& key) {
    {
        const std::lock_guard lock(locked_mutex_);
        const auto known = locked_.find(key);
        if (known != locked_.end()) return known->second.share();
    }
    return store_->get(key, until_closed_);
}

ItemOutcome StoreConnector::get(const BatchItem& item, std::string& error) {
    const Result<StoreObject> found = find(item.key);
    if (!found) {
        if (found.code() == ErrorCode::NotFound) return ItemOutcome::Missed;
        return failed(error, item.key, found.status().message());
    }
    const std::span<const std::byte> bytes = (*found).bytes();
    if (bytes.size() != item.memory.size()) {
        return failed(error, item.key,
                      "the object has " + std::to_string(bytes.size()) + " bytes, and memory of " +
                          std::to_string(item.memory.size()) + " was given");
    }
    if (!bytes.empty()) std::memcpy(item.memory.data(), bytes.data(), bytes.size());
    const Status held = (*found).check_held();
    return held ? ItemOutcome::Done : failed(error, item.key, held.message());
}

Status StoreConnector::put(const BatchItem& item) {
    return store_->put(item.key, item.memory, {}, until_closed_);
}

ItemOutcome StoreConnector::set(const BatchItem& item, std::string& error) {
    const Status status = put(item);
    if (status) return ItemOutcome::Done;
    if (status.code() == ErrorCode::AlreadyExists) return ItemOutcome::Unchanged;
    if (status.code() == ErrorCode::Busy) return wait_for_other_writer(item, error);
    // With a second tier a failed put is done if the first tier has the object: an outage.
    if (store_->is_tiered() && store_->contains(item.key, Deadline::now())) {
        return ItemOutcome::Done;
    }
    return failed(error, item.key, status.message());
}

// Waits for the other writer of the key; puts the object itself if that one dies or aborts.
ItemOutcome StoreConnector::wait_for_other_writer(const BatchItem& item, std::string& error) {
    Status status(ErrorCode::Cancelled, "the connector was closed meanwhile");
    for (unsigned slice = 0; slice < kWriterSlices && !closing_.is_cancelled(); ++slice) {
        Wait wait(kWriterSlice);
        wait.cancel = &closing_;
        if (store_->wait(item.key, wait)) return ItemOutcome::Unchanged;
        status = put(item);
        if (status) return ItemOutcome::Done;
        if (status.code() == ErrorCode::AlreadyExists) return ItemOutcome::Unchanged;
        if (status.code() != ErrorCode::Busy) break;
    }
    return failed(error, item.key, status.message());
}

ItemOutcome StoreConnector::exists(const BatchItem& item, std::string& error) {
    const Result<StoreObject> found = store_->get(item.key, Deadline::now());
    return found ? ItemOutcome::Done : look_further(item, found.status(), error);
}

// Objects that only the second tier has are not fetched here, but by Get: of many keys looked up,
// few may be wanted.
ItemOutcome StoreConnector::lock(const BatchItem& item, std::string& error) {
    Result<StoreObject> found = store_->get(item.key, Deadline::now());
    if (!found) return look_further(item, found.status(), error);
    const std::lock_guard lock(locked_mutex_);
    locked_.emplace(item.key, *std::move(found));
    return ItemOutcome::Done;
}

// Outcome after the first tier returned `why`. Timeout: it missed, and the second tier can be
// asked. NotFound: a miss. Otherwise the store is closed or lost, and the item fails.
ItemOutcome StoreConnector::look_further(const BatchItem& item, const Status& why,
                                         std::string& error) {
    if (why.code() == ErrorCode::NotFound) return ItemOutcome::Missed;
    if (why.code() != ErrorCode::Timeout) return failed(error, item.key, why.message());
    return store_->contains(item.key, until_closed_) ? ItemOutcome::Done : ItemOutcome::Missed;
}

void StoreConnector::unlock(std::span<const std::string> keys) {
    std::vector<decltype(locked_)::node_type> released;  // destroyed after the mutex is unlocked
    released.reserve(keys.size());
    const std::lock_guard lock(locked_mutex_);
    for (const std::string& key : keys) {
        const auto known = locked_.find(key);
        if (known != locked_.end()) released.push_back(locked_.extract(known));
    }
}

ItemOutcome StoreConnector::remove(const BatchItem& item, std::string& error) {
    const Status status = store_->remove(item.key, until_closed_);
    if (status) return ItemOutcome::Done;
    if (status.code() == ErrorCode::NotFound) return ItemOutcome::Missed;
    return failed(error, item.key, status.message());
}

}  // namespace penstock::detail

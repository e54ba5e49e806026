// The watcher's thread, and the waits that it wakes.
#include "segment/waiting/watcher.hpp"

#include <algorithm>
#include <exception>
#include <memory>
#include <new>

#include "os/clock.hpp"
#include "os/fork.hpp"
#include "os/thread.hpp"
#include "segment/waiting/signal.hpp"
#include "segment/waiting/timing.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

constinit std::atomic<Watcher*> instance{nullptr};
// Fork generation, plus 1, of the process that has started a watcher or tried to.
constinit std::atomic<std::uint64_t> starter{0};

std::uint64_t own_mark() noexcept {
    return os::fork_generation() + 1;
}

}  // namespace

// ---- a wait

LongWait::~LongWait() {
    if (is_listed()) watcher_->leave(*this);
}

bool LongWait::is_listed() const noexcept {
    return watcher_ != nullptr && watcher_->is_of_this_process();
}

std::chrono::nanoseconds LongWait::next_slice() noexcept {
    if (peers_.slots == nullptr) return kSlice;
    if (!is_listed()) {
        watcher_ = has_outlasted_ ? Watcher::start() : Watcher::running();
        if (watcher_ == nullptr) {
            return !has_outlasted_ && Watcher::may_start() ? kSliceBeforeWatcher : kSlice;
        }
        if (!watcher_->enter(*this)) {
            watcher_ = nullptr;
            return kSlice;
        }
    }
    const bool are_watched = watcher_->watches(peers_);
    is_long_ = are_watched && peers_.is_patient && has_asked_;
    return is_long_ ? kLongSlice : kSlice;
}

// A wait that is not listed asks rarely, because in Python it takes the GIL: for signals that
// another thread has received. A listed one asks once after a slice, so that it misses nothing from
// before it was listed; from then on it is told, and its long slices are so rare that it asks after
// each.
bool LongWait::is_to_ask(os::Woken woken) noexcept {
    constexpr unsigned kSleepsToAsk = 3;
    has_outlasted_ = has_outlasted_ || woken == os::Woken::ByTimeout;
    const bool is_due = woken == os::Woken::BySignal || ++sleeps_ % kSleepsToAsk == 0;
    if (!is_listed()) return is_due;
    const bool was_roused = is_roused_.exchange(false);
    const bool is_first = woken == os::Woken::ByTimeout && !has_asked_;
    const bool asks = is_due || was_roused || is_first || is_long_;
    has_asked_ = has_asked_ || asks;
    return asks;
}

bool LongWait::is_cancelled() const noexcept {
    return (wait_.cancel != nullptr && wait_.cancel->is_cancelled()) ||
           (peers_.closing != nullptr && peers_.closing->is_cancelled());
}

// The word changes if the wait has announced itself: so this also ends a sleep that has not begun
// yet. Otherwise the wait is between an announcement and the next, and looks after that.
void LongWait::rouse() noexcept {
    is_roused_.store(true);
    signal_.rouse();
}

// ---- the watcher, for other threads

Watcher* Watcher::running() noexcept {
    Watcher* const last = instance.load();
    return last != nullptr && last->is_of_this_process() && !last->is_over_.load() ? last : nullptr;
}

bool Watcher::may_start() noexcept {
    return starter.load() != own_mark();
}

Watcher* Watcher::start() noexcept {
    if (Watcher* const already = running()) return already;
    std::uint64_t seen = starter.load();
    if (seen == own_mark() || !starter.compare_exchange_strong(seen, own_mark())) return nullptr;
    try {
        auto fresh = std::make_unique<Watcher>();
        os::start_quiet_thread([own = fresh.get()] { own->run(); }).detach();
        instance.store(fresh.get());
        return fresh.release();
    } catch (const std::exception&) {
        return nullptr;  // this process waits in slices
    }
}

void Watcher::look_at_cancels() noexcept {
    Watcher* const last = instance.load();
    if (last != nullptr && last->is_of_this_process()) last->watch_.raise();
}

void Watcher::ask_all() noexcept {
    Watcher* const last = instance.load();
    if (last == nullptr || !last->is_of_this_process()) return;
    last->asks_all_.store(true);
    last->watch_.raise();
}

Watcher::Watcher()
    : fork_generation_(os::fork_generation()), self_(os::identify_self()),
      predecessor_(instance.load()) {}

bool Watcher::is_of_this_process() const noexcept {
    return fork_generation_ == os::fork_generation();
}

bool Watcher::enter(LongWait& wait) noexcept {
    try {
        const std::lock_guard lock(mutex_);
        waits_.push_back(&wait);
        return true;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

void Watcher::leave(LongWait& wait) noexcept {
    const std::lock_guard lock(mutex_);
    std::erase(waits_, &wait);
}

bool Watcher::watches(const Peers& peers) noexcept {
    try {
        const std::lock_guard lock(mutex_);
        if (is_over_.load()) return false;
        bool are_watched = true;
        for (unsigned slot = peers.first; slot < peers.end; ++slot) {
            are_watched = is_watched(peers.slots[slot]) && are_watched;
        }
        if (!asked_.empty()) watch_.raise();
        return are_watched;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

// A slot that is signed anew at this moment may yield a wrong process: its new participant notifies
// the waits that look at it once it has announced itself, and they look again.
bool Watcher::is_watched(const layout::ParticipantSlot& slot) {
    // pairs with: the release in Participants::announce(): the slot is signed
    if ((load_acquire(slot.word) & layout::ParticipantSlot::kActive) == 0) return true;
    const std::uint64_t pid = load_relaxed(slot.pid);
    const Process process{static_cast<std::uint32_t>(pid), load_relaxed(slot.start_time)};
    if (load_relaxed(slot.pid_namespace) != self_.pid_namespace || self_.pid_namespace == 0 ||
        process.second == 0 || process.first != pid) {
        return false;
    }
    if (process == Process{self_.pid, self_.start_time}) return true;
    const auto known = processes_.find(process);
    if (known != processes_.end()) return known->second == State::Watched;
    if (!has_room_for_one()) return false;
    processes_.emplace(process, State::Asked);
    asked_.push_back(process);
    return false;
}

// Forgets the processes that are not watched, if there are many; not more often than asking for
// them again, and waking every wait for each, would be noticed.
bool Watcher::has_room_for_one() noexcept {
    constexpr std::size_t kMaxProcesses = 4096;
    constexpr std::int64_t kBetweenPurges = 10'000'000'000;  // ns
    if (processes_.size() < kMaxProcesses) return true;
    const std::int64_t now = os::coarse_ns();
    if (now < next_purge_) return false;
    next_purge_ = now + kBetweenPurges;
    std::erase_if(processes_, [](const auto& one) { return one.second != State::Watched; });
    return processes_.size() < kMaxProcesses;
}

// ---- the watcher, in its thread

void Watcher::run() noexcept {
    bool is_at_work = watch_.begin();
    bool may_be_replaced = is_at_work;
    try {
        for (std::vector<std::uint32_t> ended; is_at_work;) {
            is_at_work = watch_.wait(ended);
            note(ended);
            serve();
        }
    } catch (const std::bad_alloc&) {
        may_be_replaced = false;
    }
    is_over_.store(true);
    if (may_be_replaced) starter.store(0);
    const std::lock_guard lock(mutex_);
    rouse_all();
}

// Watches the processes that waits have asked for. Those that can't be watched may have ended since
// a wait looked: the waits look again, and go on in slices.
void Watcher::serve() {
    std::vector<Process> asked;
    {
        const std::lock_guard lock(mutex_);
        asked.swap(asked_);
    }
    for (const Process& process : asked) {
        settle(process, watch_.add(process.first, process.second));
    }
}

void Watcher::settle(const Process& process, bool is_watched) noexcept {
    const std::lock_guard lock(mutex_);
    const auto known = processes_.find(process);
    if (known != processes_.end()) known->second = is_watched ? State::Watched : State::Unwatched;
    if (!is_watched) rouse_all();
}

// A process that has ended is not watched: a wait that looks and finds that its lock is still held
// goes on in slices.
void Watcher::note(const std::vector<std::uint32_t>& ended) noexcept {
    const bool is_for_all = asks_all_.exchange(false) || !ended.empty();
    const std::lock_guard lock(mutex_);
    for (const std::uint32_t pid : ended) {
        for (auto one = processes_.lower_bound({pid, 0});
             one != processes_.end() && one->first.first == pid; ++one) {
            one->second = State::Unwatched;
        }
    }
    if (is_for_all) return rouse_all();
    for (LongWait* const wait : waits_) {
        if (wait->is_cancelled()) wait->rouse();
    }
}

void Watcher::rouse_all() noexcept {
    for (LongWait* const wait : waits_) wait->rouse();
}

}  // namespace penstock::detail

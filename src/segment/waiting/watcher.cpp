// The watcher's thread, and the waits that it wakes.
#include "segment/waiting/watcher.hpp"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <string_view>

#include "os/clock.hpp"
#include "os/fork.hpp"
#include "os/processor.hpp"
#include "os/thread.hpp"
#include "segment/waiting/signal.hpp"
#include "segment/waiting/timing.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

constinit std::atomic<Watcher*> instance{nullptr};
// Set by Watcher::prepare().
constinit std::atomic<bool> is_prepared{false};
// Fork generation, plus 1, of the process that has started a watcher or tried to.
constinit std::atomic<std::uint64_t> starter{0};

// When the next start may be tried after one that failed, by os::coarse_ns().
constinit std::atomic<std::int64_t> next_start{0};
constinit std::atomic<unsigned> failures{0};
constexpr std::int64_t kBetweenTries = 10'000'000'000;  // ns

// Allows another start, ever later: a failed watcher leaves some memory.
void postpone_start() noexcept {
    constexpr unsigned kMaxDoublings = 10;
    const unsigned doublings = std::min(failures.fetch_add(1), kMaxDoublings);
    next_start.store(os::coarse_ns() + (kBetweenTries << doublings));
    starter.store(0);
}

std::uint64_t own_mark() noexcept {
    return os::fork_generation() + 1;
}

bool reads_as_wanted() noexcept {
    const char* const value = std::getenv("PENSTOCK_WATCHER");
    return value == nullptr || std::string_view(value) != "0";
}

// Read while the library is loaded: later, other threads may change the environment.
const bool is_wanted_at_start = reads_as_wanted();

}  // namespace

// ---- a wait

LongWait::~LongWait() {
    if (is_listed()) watcher_->leave(*this);
}

bool LongWait::is_listed() const noexcept {
    return watcher_ != nullptr && !is_in_child();
}

// The watcher sets is_told_to_ask_ and changes the word under its mutex. If it did so before
// watches() took the mutex, the flag is seen here; otherwise it finds the announcement and changes
// the word, which ends the sleep, also one that has not begun yet.
std::chrono::nanoseconds LongWait::next_slice() noexcept {
    is_long_ = false;
    if (peers_.slots == nullptr) return kSlice;
    if (watcher_ == nullptr) {
        watcher_ = has_outlasted_ ? Watcher::start() : Watcher::running();
        if (watcher_ == nullptr) {
            return !has_outlasted_ && Watcher::may_start() ? kSliceBeforeWatcher : kSlice;
        }
        if (!watcher_->enter(*this)) {
            watcher_ = nullptr;
            return kSlice;
        }
        listed_at_ = os::coarse_ns();
        asked_at_ = listed_at_;
    }
    const bool are_watched = watcher_->watches(peers_, marks_);
    if (is_told_to_ask_.load()) return std::chrono::nanoseconds::zero();
    if (!are_watched || !has_asked_) return kSlice;
    const std::chrono::nanoseconds slice = watched_slice();
    is_long_ = slice > kSlice;
    return slice;
}

std::chrono::nanoseconds LongWait::watched_slice() const noexcept {
    if (peers_.slices == Slices::Short) return kSlice;
    if (peers_.slices == Slices::Long) return kLongSlice;
    const std::chrono::nanoseconds waited(os::coarse_ns() - listed_at_);
    return std::clamp<std::chrono::nanoseconds>(waited / kGrowthOfSlices, kSlice, kLongSlice);
}

// Asking takes the GIL in Python, so it is rare: the signals asked for are those that another
// thread has received. A wait that is not listed asks after every third sleep. A listed wait asks
// once after a slice, so that it misses nothing from before it was listed; from then on the watcher
// tells it to. In case that it does not, the wait also asks after a sleep if a slice has passed
// since it last asked.
bool LongWait::is_to_ask(os::Woken woken) noexcept {
    constexpr unsigned kSleepsToAsk = 3;
    has_outlasted_ = has_outlasted_ || woken == os::Woken::ByTimeout;
    const bool by_signal = woken == os::Woken::BySignal;
    if (!is_listed()) return by_signal || ++sleeps_ % kSleepsToAsk == 0;
    const std::int64_t now = os::coarse_ns();
    const bool is_told = is_told_to_ask_.exchange(false);
    const bool has_passed = woken == os::Woken::ByTimeout && (is_long_ || !has_asked_);
    const bool is_due = now - asked_at_ >= kSlice.count();
    if (!by_signal && !is_told && !has_passed && !is_due) return false;
    has_asked_ = true;
    asked_at_ = now;
    return true;
}

bool LongWait::is_cancelled() const noexcept {
    return (wait_.cancel != nullptr && wait_.cancel->is_cancelled()) ||
           (peers_.closing != nullptr && peers_.closing->is_cancelled());
}

// The word changes if the wait has announced itself: so this also ends a sleep that has not begun
// yet. Otherwise the wait is awake, and looks once it has announced itself again.
void LongWait::rouse(bool is_to_ask) noexcept {
    if (is_to_ask) is_told_to_ask_.store(true);
    signal_.rouse();
}

// ---- the watcher, for other threads

bool Watcher::is_wanted() noexcept {
    return is_wanted_at_start;
}

void Watcher::prepare(bool wanted) noexcept {
    is_prepared.store(wanted && os::ProcessWatch::prepare());
}

Watcher* Watcher::running() noexcept {
    Watcher* const last = instance.load();
    return last != nullptr && last->is_of_this_process() && !last->is_over_.load() ? last : nullptr;
}

bool Watcher::may_start() noexcept {
    return is_prepared.load() && starter.load() != own_mark() &&
           os::coarse_ns() >= next_start.load();
}

// A watcher is published before its thread runs, which may end at once and allow a successor: so
// the successor is the later one in the chain. The exchange fails, or the watcher is foreign, in a
// child that was forked in the middle of this.
Watcher* Watcher::start() noexcept {
    if (Watcher* const already = running()) return already;
    std::uint64_t seen = starter.load();
    if (!may_start() || seen == own_mark() || !starter.compare_exchange_strong(seen, own_mark())) {
        return nullptr;
    }
    try {
        auto fresh = std::make_unique<Watcher>();
        Watcher* before = fresh->predecessor_;
        if (instance.compare_exchange_strong(before, fresh.get())) {
            Watcher* const started = fresh.release();
            if (before != nullptr && before->is_of_this_process()) before->watch_.close();
            started->start_thread();
        }
        return running();
    } catch (const std::exception&) {
        postpone_start();
        return nullptr;  // this process waits in slices
    }
}

// A failure ends the watcher, as its thread would: waits may have listed themselves already.
void Watcher::start_thread() noexcept {
    try {
        os::start_quiet_thread([this] { run(); }).detach();
    } catch (const std::exception&) {
        end(true);
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

// Waits for the watcher's note: the caller may learn of a death from the kernel before the watcher.
os::ProcessEnd Watcher::end_of(std::uint32_t pid, std::uint64_t start_time) noexcept {
    Watcher* const watcher = running();
    if (watcher == nullptr) return {};
    const Process process{pid, start_time};
    std::unique_lock lock(watcher->mutex_);
    watcher->noted_.wait_for(lock, kNotePatience, [&] {
        const Known* const known = watcher->find(process);
        return known == nullptr || known->state != State::Watched || watcher->is_over_.load();
    });
    const Known* const known = watcher->find(process);
    return known != nullptr ? known->end : os::ProcessEnd{};
}

const Watcher::Known* Watcher::find(const Process& process) const noexcept {
    const auto known = processes_.find(process);
    return known != processes_.end() ? &known->second : nullptr;
}

Watcher::Watcher()
    : fork_generation_(os::fork_generation()), self_(os::identify_self()),
      predecessor_(instance.load()) {
    os::lend_priority(mutex_);
}

bool Watcher::is_of_this_process() const noexcept {
    return fork_generation_ == os::fork_generation();
}

bool Watcher::enter(LongWait& wait) noexcept {
    try {
        const std::lock_guard lock(mutex_);
        waits_.push_back(&wait);
        wait.number_ = ++last_number_;
        return true;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

void Watcher::leave(LongWait& wait) noexcept {
    const std::lock_guard lock(mutex_);
    std::erase(waits_, &wait);
}

bool Watcher::watches(const Peers& peers, std::uint64_t& marks) noexcept {
    try {
        bool are_watched = true;
        bool has_asked = false;
        {
            const std::lock_guard lock(mutex_);
            marks = 0;
            if (is_over_.load()) return false;
            for (unsigned slot = peers.first; slot < peers.end; ++slot) {
                are_watched = is_watched(peers.slots[slot], marks) && are_watched;
            }
            has_asked = !asked_.empty();
        }
        if (has_asked) watch_.raise();
        return are_watched;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

// A slot that is signed anew at this moment may yield a wrong process: its new participant notifies
// the waits that look at it once it has announced itself, and they look again.
bool Watcher::is_watched(const layout::ParticipantSlot& slot, std::uint64_t& marks) {
    // pairs with: the release in Participants::announce(): the slot is signed
    if ((load_acquire(slot.word) & layout::ParticipantSlot::kActive) == 0) return true;
    const std::uint64_t pid = load_relaxed(slot.pid);
    const Process process{static_cast<std::uint32_t>(pid), load_relaxed(slot.start_time)};
    if (load_relaxed(slot.pid_namespace) != self_.pid_namespace || self_.pid_namespace == 0 ||
        process.second == 0 || process.first != pid) {
        return false;
    }
    if (process == Process{self_.pid, self_.start_time}) return true;
    marks |= mark_of(process.first);
    if (const Known* const known = find(process)) {
        const bool is_due = known->state == State::Postponed && os::coarse_ns() >= next_try_;
        if (!is_due) return known->state == State::Watched;
    } else if (!has_room_for_one()) {
        return false;
    }
    asked_.reserve(asked_.size() + 1);
    processes_.insert_or_assign(process, Known{});
    asked_.push_back(process);
    return false;
}

std::uint64_t Watcher::mark_of(std::uint32_t pid) noexcept {
    return std::uint64_t{1} << (pid % 64U);
}

// Forgets the processes that are not watched, if there are many. Rarely, because waits then ask for
// them again, and are roused for each that still can't be watched.
bool Watcher::has_room_for_one() noexcept {
    constexpr std::size_t kMaxProcesses = 4096;
    constexpr std::int64_t kBetweenPurges = 10'000'000'000;  // ns
    if (processes_.size() < kMaxProcesses) return true;
    const std::int64_t now = os::coarse_ns();
    if (now < next_purge_) return false;
    next_purge_ = now + kBetweenPurges;
    std::erase_if(processes_, [](const auto& one) { return one.second.state != State::Watched; });
    return processes_.size() < kMaxProcesses;
}

// ---- the watcher, in its thread

void Watcher::run() noexcept {
    os::leave_inherited_schedule();
    bool is_at_work = watch_.begin();
    bool has_failed = !is_at_work;
    try {
        for (std::vector<os::EndedProcess> ended; is_at_work;) {
            is_at_work = watch_.wait(ended);
            note(ended);
            serve();
        }
    } catch (const std::bad_alloc&) {
        has_failed = true;
    }
    end(has_failed);
}

// Listed waits go on in short slices.
void Watcher::end(bool has_failed) noexcept {
    is_over_.store(true);
    if (has_failed) {
        postpone_start();
    } else {
        starter.store(0);
    }
    {
        const std::lock_guard lock(mutex_);
        noted_.notify_all();
    }
    rouse({.is_over = true});
}

// Watches the processes that waits have asked for. A process that can't be watched may have ended
// since a wait looked: its waits look again, and go on in short slices.
void Watcher::serve() {
    std::vector<Process> asked;
    {
        const std::lock_guard lock(mutex_);
        asked.swap(asked_);
    }
    for (const Process& process : asked) {
        const bool is_watched = watch_.add(process.first, process.second);
        const State failed = watch_.is_short() ? State::Postponed : State::Unwatched;
        settle(process, is_watched ? State::Watched : failed);
    }
}

void Watcher::settle(const Process& process, State state) noexcept {
    {
        const std::lock_guard lock(mutex_);
        if (state == State::Postponed) next_try_ = os::coarse_ns() + kBetweenTries;
        const auto known = processes_.find(process);
        if (known != processes_.end()) known->second.state = state;
    }
    if (state != State::Watched) rouse({.marks = mark_of(process.first)});
}

// A process that has ended is not watched any more: a wait that finds its lock still held goes on
// in short slices. All ends are noted before the first wait is roused, so that no wait takes one of
// these processes for watched.
void Watcher::note(const std::vector<os::EndedProcess>& ended) noexcept {
    Reason reason{.is_to_ask = asks_all_.exchange(false)};
    {
        const std::lock_guard lock(mutex_);
        for (const os::EndedProcess& one : ended) {
            reason.marks |= mark_of(one.pid);
            const auto known = processes_.find({one.pid, one.start_time});
            if (known != processes_.end()) known->second = {State::Unwatched, one.end};
        }
        if (!ended.empty()) noted_.notify_all();
    }
    rouse(reason);
}

// Waits that are listed from here on look by themselves. The mutex is free between two waits: those
// that are awake already need it.
void Watcher::rouse(const Reason& reason) noexcept {
    std::uint64_t last = kNone;
    {
        const std::lock_guard lock(mutex_);
        last = last_number_;
    }
    std::uint64_t number = kNone;
    do {
        number = rouse_next(number, reason);
    } while (number != kNone && number < last);
}

// The number of the next wait that was roused; kNone if there was none.
std::uint64_t Watcher::rouse_next(std::uint64_t after, const Reason& reason) noexcept {
    const std::lock_guard lock(mutex_);
    const auto is_concerned = [&reason](const LongWait* wait) {
        return reason.is_to_ask || reason.is_over || (wait->marks_ & reason.marks) != 0 ||
               wait->is_cancelled();
    };
    const auto next = std::ranges::upper_bound(waits_, after, {}, &LongWait::number_);
    const auto found = std::find_if(next, waits_.end(), is_concerned);
    if (found == waits_.end()) return kNone;
    (*found)->rouse(reason.is_to_ask);
    return (*found)->number_;
}

}  // namespace penstock::detail

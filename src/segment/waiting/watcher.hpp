// The watcher: a thread that wakes this process's waits when a process that they wait for ends, or
// when they are cancelled, so that they need not wake every kSlice to look. It only says "look
// now": whether a participant is dead, the kernel's lock decides (docs/protocols.md, "The watcher",
// models/watcher.pml).
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "os/fork.hpp"
#include "os/futex.hpp"
#include "os/process.hpp"
#include "os/process_end.hpp"
#include "os/process_watch.hpp"
#include "penstock/wait.hpp"
#include "segment/layout.hpp"
#include "segment/waiting/peers.hpp"

namespace penstock::detail {

class Signal;
class Watcher;

// One wait in wait_until(), on its stack: how long it may sleep, and what the watcher knows of it.
// Used by the waiting thread, and by the watcher while the wait is listed.
class LongWait {
public:
    LongWait(Signal& signal, const Wait& wait, const Peers& peers) noexcept
        : signal_(signal), wait_(wait), peers_(peers) {}
    LongWait(const LongWait&) = delete;
    LongWait& operator=(const LongWait&) = delete;
    ~LongWait();

    // The longest next sleep; zero if the watcher has told this wait to ask `interrupted`. To be
    // called after the announcement, and before the looks at the peers and at Cancel: what
    // changes after those looks ends the sleep.
    std::chrono::nanoseconds next_slice() noexcept;
    // Whether Wait::interrupted is due, after a sleep that ended so.
    bool is_to_ask(os::Woken woken) noexcept;
    // In a child that was forked in the middle of this wait.
    [[nodiscard]] bool is_in_child() const noexcept {
        return fork_generation_ != os::fork_generation();
    }

private:
    friend class Watcher;

    // False also in a child, where there is no watcher.
    [[nodiscard]] bool is_listed() const noexcept;
    // The longest next sleep if all peers are watched.
    [[nodiscard]] std::chrono::nanoseconds watched_slice() const noexcept;
    // Called by the watcher, under its mutex.
    [[nodiscard]] bool is_cancelled() const noexcept;
    void rouse(bool is_to_ask) noexcept;

    Signal& signal_;
    const Wait& wait_;
    const Peers& peers_;
    const std::uint64_t fork_generation_ = os::fork_generation();
    Watcher* watcher_ = nullptr;  // the one that lists this wait
    // Set by the watcher, under its mutex: `interrupted` is due.
    std::atomic<bool> is_told_to_ask_{false};
    // Written by Watcher::enter() and watches(), under the watcher's mutex.
    std::uint64_t number_ = 0;
    std::uint64_t marks_ = 0;
    std::int64_t listed_at_ = 0;  // by the coarse clock
    std::int64_t asked_at_ = 0;   // likewise: `interrupted`, or the listing
    unsigned sleeps_ = 0;
    bool has_outlasted_ = false;  // a slice has passed
    bool has_asked_ = false;      // `interrupted`, since it was listed
    bool is_long_ = false;        // the current sleep may be longer than kSlice
};

// The watcher of this process. Started by the first wait that outlasts kSliceBeforeWatcher; never
// ends, and its memory is never freed. A forked child has none until its own first long wait:
// nothing there touches the parent's, whose mutex may be locked.
class Watcher {
public:
    // False: the environment variable PENSTOCK_WATCHER was "0" when this library was loaded.
    static bool is_wanted() noexcept;
    // To be called when a handle is created or attached, outside of waits: lets later waits start a
    // watcher, if the system allows process watches. May wait for the dynamic loader's lock, which
    // waits don't take. Any thread.
    static void prepare(bool wanted = is_wanted()) noexcept;
    // Null: there is none, or none yet.
    static Watcher* running() noexcept;
    // False: not prepared, or a thread has started one or tries to, or a start has failed and it is
    // too early for another.
    static bool may_start() noexcept;
    // The running watcher, or a new one; null if there can be none, or another thread starts it.
    static Watcher* start() noexcept;

    // Makes the watcher look for waits that were cancelled. Any thread, also in a signal handler.
    static void look_at_cancels() noexcept;
    // Makes all waits ask `interrupted`. Any thread, also in a signal handler.
    static void ask_all() noexcept;
    // How a process ended that the watcher watched, also after its parent has reaped it. Waits a
    // moment if the end is not noted yet. Unknown if the process was not watched, or lives.
    [[nodiscard]] static os::ProcessEnd end_of(std::uint32_t pid,
                                               std::uint64_t start_time) noexcept;

    Watcher();
    Watcher(const Watcher&) = delete;
    Watcher& operator=(const Watcher&) = delete;
    ~Watcher() = default;  // only if its thread could not be started

    [[nodiscard]] bool is_of_this_process() const noexcept;
    // Lists a wait, until leave(). False: no memory.
    [[nodiscard]] bool enter(LongWait& wait) noexcept;
    void leave(LongWait& wait) noexcept;
    // Whether the end of each of these peers will wake a listed wait that has these marks. Peers
    // that are not watched yet will be in a moment, if they can be. `marks`, guarded by the mutex,
    // gets a bit for each process, which other processes may share.
    [[nodiscard]] bool watches(const Peers& peers, std::uint64_t& marks) noexcept;

private:
    enum class State : std::uint8_t {
        Asked,
        Watched,
        Unwatched,  // for good
        Postponed,  // for want of descriptors or memory: asked for again after next_try_
    };
    using Process = std::pair<std::uint32_t, std::uint64_t>;  // pid and start time
    struct Known {
        State state = State::Asked;
        os::ProcessEnd end;
    };
    // Which waits are to be roused, besides those that were cancelled.
    struct Reason {
        bool is_to_ask = false;   // all, and each calls `interrupted`
        bool is_over = false;     // all
        std::uint64_t marks = 0;  // those that have one of them
    };
    static constexpr std::uint64_t kNone = 0;  // no wait has that number

    static std::uint64_t mark_of(std::uint32_t pid) noexcept;
    void start_thread() noexcept;
    void run() noexcept;
    void end(bool has_failed) noexcept;
    void serve();
    void settle(const Process& process, State state) noexcept;
    void note(const std::vector<os::EndedProcess>& ended) noexcept;
    void rouse(const Reason& reason) noexcept;
    std::uint64_t rouse_next(std::uint64_t after, const Reason& reason) noexcept;
    // The caller holds the mutex, here and in the next two. Null: not known.
    [[nodiscard]] const Known* find(const Process& process) const noexcept;
    [[nodiscard]] bool is_watched(const layout::ParticipantSlot& slot, std::uint64_t& marks);
    [[nodiscard]] bool has_room_for_one() noexcept;

    const std::uint64_t fork_generation_;
    const os::ProcessIdentity self_;
    os::ProcessWatch watch_;
    std::atomic<bool> is_over_{false};
    std::atomic<bool> asks_all_{false};
    Watcher* const predecessor_;  // keeps it reachable, for leak checkers

    std::condition_variable noted_;  // an end, or that there is no watcher any more
    std::mutex mutex_;               // guards the rest
    std::vector<LongWait*> waits_;   // in the order of their numbers
    std::uint64_t last_number_ = kNone;
    std::map<Process, Known> processes_;
    std::vector<Process> asked_;
    std::int64_t next_purge_ = 0;
    std::int64_t next_try_ = 0;
};

}  // namespace penstock::detail

// How long the library waits for other processes. None of these decides whether a process is dead:
// the kernel's lock does.
#pragma once

#include <chrono>
#include <cstdint>

namespace penstock::detail {

// The longest sleep without a check of the peers' liveness and of Cancel: within the 100 ms in
// which a death must be noticed, and long enough that a parked reader costs almost nothing.
inline constexpr std::chrono::milliseconds kSlice{80};
// The same for a wait whose peers the watcher watches: a safety net, for deaths that leave the
// process running (exec, a lost lock) and for wakers that stop halfway.
inline constexpr std::chrono::milliseconds kLongSlice{2000};
// A growing slice, of a wait that is not notified of every change, is the time waited so far
// divided by this, so that a change is noticed a quarter of that time later at most.
inline constexpr int kGrowthOfSlices = 4;
// The first sleep in a process without a watcher: a wait that outlasts it starts one.
inline constexpr std::chrono::milliseconds kSliceBeforeWatcher{5};

// How long a report of a death waits to learn how the process ended: for the end of a process that
// has closed its descriptors, which may never come; and for the watcher's note of a process that
// has ended, which is certain to come. Microseconds if they run at all.
inline constexpr std::chrono::milliseconds kEndPatience{20};
inline constexpr std::chrono::milliseconds kNotePatience{1000};

// In nanoseconds, for loops that read the monotonic clock.
//
// For another process that is reaping, joining or leaving a slot: microseconds if it runs at all.
inline constexpr std::int64_t kJanitorPatience = 50'000'000;
// For another process that is joining or removing a segment: microseconds as well.
inline constexpr std::int64_t kLifeCyclePatience = 200'000'000;
// For a sign of life of the first request in a waiting line: longer than any sleep of a running
// waiter, so that on a busy machine a request is seldom passed.
inline constexpr std::int64_t kSilencePatience = 200'000'000;
// For a producer between its claim of a slot and its publication: a constant, and an addition for
// every eight bytes of a cell; together many times what filling a cell takes.
inline constexpr std::int64_t kPublishPatience = 10'000;
inline constexpr std::int64_t kPublishPatienceForEight = 20;
// For environments that could complete a batch, before credit is given beyond the window.
inline constexpr std::int64_t kStuckPatience = 1'000'000'000;

}  // namespace penstock::detail

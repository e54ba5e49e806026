// The processor that a thread runs on, for decisions about spinning. Hints only.
#pragma once

#include <cstdint>

namespace penstock::os {

// How many processors of the machine are online, at least 1. Includes those that this process may
// not run on: a peer in another process may.
unsigned online_processors() noexcept;

// The number of the processor that runs the calling thread; stale as soon as it is returned.
// No system call (restartable sequences or vDSO).
std::uint32_t current_processor() noexcept;

// Moves the calling thread to another of the processors it may run on, of the same memory node if
// there is one; true if it moved. The scheduler is free to move it back. Costs some system calls
// and a migration. The thread's affinity is narrowed and then restored: a change by another process
// in those microseconds is lost. False where the thread is pinned to one processor, or where the
// kernel refuses.
bool step_aside() noexcept;

// Gives up what the calling thread has inherited from its creator: a real-time or other special
// policy for the ordinary one, and its choice of processors for those on which this library was
// loaded. What the kernel refuses stays.
void leave_inherited_schedule() noexcept;

}  // namespace penstock::os

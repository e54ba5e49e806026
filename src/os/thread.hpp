// Threads of the library's own.
#pragma once

#include <functional>
#include <mutex>
#include <thread>

namespace penstock::os {

// Starts a thread that receives no signals, which are for the program's own threads. Throws
// std::system_error.
std::thread start_quiet_thread(std::function<void()> body);

// Lends the mutex's holder the priority of the most urgent thread that waits for it, so that a
// real-time thread does not wait for all that run in between. To be called before the mutex is
// first used. No effect where the system can't do it.
void lend_priority(std::mutex& mutex) noexcept;

}  // namespace penstock::os

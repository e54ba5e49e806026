// Threads of the library's own.
#pragma once

#include <functional>
#include <thread>

namespace penstock::os {

// A thread that takes no signals: those are for the threads of the program that we are part of.
// Throws std::system_error.
std::thread start_quiet_thread(std::function<void()> body);

}  // namespace penstock::os

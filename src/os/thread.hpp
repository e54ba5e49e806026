// Threads of the library's own.
#pragma once

#include <functional>
#include <thread>

namespace penstock::os {

// Starts a thread that receives no signals, which are for the program's own threads. Throws
// std::system_error.
std::thread start_quiet_thread(std::function<void()> body);

}  // namespace penstock::os

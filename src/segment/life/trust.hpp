// Users whose segments a process attaches to: one rule for every user, root too, and every concept.
#pragma once

#include <string>

#include "os/shared_file.hpp"
#include "penstock/segment.hpp"

namespace penstock::detail {

// Throws PermissionDenied unless the effective user of this process, or `trust`, owns the open
// file. Checks the descriptor, because the name may lead to another file by now. `start` begins the
// sentence: "can't attach to 'steps': ".
void check_trust(const os::SharedFile& file, const Trust& trust, const std::string& start);

}  // namespace penstock::detail

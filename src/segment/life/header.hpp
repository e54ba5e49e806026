// The segment header: building one, and checking every field of one that was read.
#pragma once

#include <string>

#include "os/shared_file.hpp"
#include "penstock/wait.hpp"
#include "segment/layout.hpp"
#include "segment/life/segment.hpp"

namespace penstock::detail {

// A complete header for the plan, with a fresh instance id. Throws Error(System) if no random bytes
// can be had.
layout::SegmentHeader make_header(const std::string& name, const SegmentPlan& plan);

// Reads and checks the header of an open file. Throws Error(Incompatible or Corrupt) with the
// reason. `where` names the file in the sentence.
layout::SegmentHeader read_header(const os::SharedFile& file, const std::string& where);

// The policy that the segment was created with; Balanced if the header names none that is known.
WaitPolicy waiting_of(const layout::SegmentHeader& header) noexcept;

}  // namespace penstock::detail

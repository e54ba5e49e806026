// The segment header: making one, and believing one only after every field has been checked.
#pragma once

#include <string>

#include "os/shared_file.hpp"
#include "segment/layout.hpp"
#include "segment/life/segment.hpp"

namespace penstock::detail {

// A complete header for the plan, with a fresh instance id. Throws Error(System) where there is no
// randomness for that.
layout::SegmentHeader make_header(const std::string& name, const SegmentPlan& plan);

// Reads and checks the header of an open file. Throws Error(Incompatible or Corrupt) with what is
// wrong; nothing in the file is trusted before. `where` names the file for the sentence.
layout::SegmentHeader read_header(const os::SharedFile& file, const std::string& where);

}  // namespace penstock::detail

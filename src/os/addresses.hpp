// Free ranges of this process's addresses, for mappings that need a given offset within their huge
// pages.
#pragma once

#include <cstdint>

namespace penstock::os {

// A range of at least `bytes`, in whole pages, that no other mapping can use. Its start has the
// offset of `phase`, a multiple of the page size, within 2 MiB, and within a huge page if the range
// has room for one (os::huge_page_size()). Null: none is free. To be mapped over with MAP_FIXED, or
// unmapped.
void* reserve_addresses(std::uint64_t phase, std::uint64_t bytes) noexcept;

}  // namespace penstock::os

// Free ranges of this process's addresses, for mappings that shall lie in their huge pages as
// others do.
#pragma once

#include <cstdint>

namespace penstock::os {

// A range of at least `bytes`, in whole pages, that nothing can use yet; its start lies in its 2
// MiB, and if it has room for a huge page in that (os::huge_page_size()), as `phase` does, a
// multiple of the page size. Null: there is none. To be mapped over with MAP_FIXED, or unmapped.
void* reserve_addresses(std::uint64_t phase, std::uint64_t bytes) noexcept;

}  // namespace penstock::os

// The part of a file's memory that lies in huge pages: there the first access of a process maps a
// whole huge page, where small pages cost a fault each.
#pragma once

#include <cstdint>

namespace penstock::os {

class SharedFile;

// Bytes of a range of the file that lie in huge pages, counted in whole ones: exact for up to 128
// huge pages, beyond that estimated from 128 places. Takes no memory for holes, and truncation of
// the file meanwhile does no harm. 4 to 8 us for each place. 0 where it is unknown (before Linux
// 5.14, without /proc, or without address space for the range).
std::uint64_t bytes_in_huge_pages(const SharedFile& file, std::uint64_t offset,
                                  std::uint64_t bytes) noexcept;

}  // namespace penstock::os

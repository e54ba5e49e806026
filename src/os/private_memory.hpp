// Private memory straight from the system, in whole pages. Unmapping gives it back at once, which
// free() does only for blocks above a limit that grows with them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock::os {

// Fresh zeros from a page boundary on; null without memory, or addresses, for them.
std::byte* map_private(std::size_t bytes) noexcept;
void unmap_private(std::byte* data, std::size_t bytes) noexcept;

// Asks for huge pages, where the system has them, for the part of a range of 4 MiB or more that has
// no memory yet; two huge pages where they are larger. Without them the first touch of each page
// costs more than copying it: 16 MiB took 2.7 ms, not 1.0.
void prefer_huge_pages(std::byte* data, std::size_t bytes) noexcept;

// Bytes of memory that the machine has.
std::uint64_t physical_memory() noexcept;

}  // namespace penstock::os

// Private memory straight from the system, in whole pages. Unmapping gives it back at once, which
// free() does only for blocks above a limit that grows with them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock::os {

// Fresh zeros from a page boundary on; null without memory, or addresses, for them.
std::byte* map_private(std::size_t bytes) noexcept;
void unmap_private(std::byte* data, std::size_t bytes) noexcept;

// Asks for huge pages, where the system has them, for those whole pages of the range that have no
// memory yet.
void prefer_huge_pages(std::byte* data, std::size_t bytes) noexcept;

// Bytes of memory that the machine has.
std::uint64_t physical_memory() noexcept;

}  // namespace penstock::os

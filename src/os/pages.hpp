// Page sizes, the units in which memory is reserved, given back and protected: 4 KiB on x86; 4, 16
// or 64 KiB on ARM, with huge pages of 2, 32 or 512 MiB.
#pragma once

#include <cstdint>

namespace penstock::os {

// The machine's page size in bytes: a power of two.
std::uint64_t page_size() noexcept;
// The kernel's, also where page_size() pretends another one.
std::uint64_t kernel_page_size() noexcept;
// The size of transparent huge pages; without kernel support the size on most machines.
std::uint64_t huge_page_size() noexcept;

// For tests: makes this process use pages of that size, a multiple of the real one (0: the real
// one). Layouts for larger pages work with the real ones too.
void pretend_page_size(std::uint64_t bytes) noexcept;

}  // namespace penstock::os

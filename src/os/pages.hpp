// The sizes of pages: what memory is reserved, given back and protected in. 4 KiB on x86; 4, 16 or
// 64 KiB on ARM, with huge pages of 2, 32 or 512 MiB.
#pragma once

#include <cstdint>

namespace penstock::os {

// Of this machine, in bytes: a power of two.
std::uint64_t page_size() noexcept;
// What transparent huge pages have, where the kernel has any; else what they have on most machines.
std::uint64_t huge_page_size() noexcept;

// For tests: from now on this process believes in pages of that size, a multiple of the real one
// (0: the real one). What is laid out for them works with the real ones too.
void pretend_page_size(std::uint64_t bytes) noexcept;

}  // namespace penstock::os

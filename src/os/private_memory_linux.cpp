// Private memory on Linux: anonymous mappings.
#include "os/private_memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include "os/pages.hpp"

namespace penstock::os {

std::byte* map_private(std::size_t bytes) noexcept {
    void* const start =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return start == MAP_FAILED ? nullptr : static_cast<std::byte*>(start);
}

void unmap_private(std::byte* data, std::size_t bytes) noexcept {
    // Refused if it would part a mapping and there are too many: then at least the memory goes.
    if (::munmap(data, bytes) != 0) ::madvise(data, bytes, MADV_DONTNEED);
}

void prefer_huge_pages(std::byte* data, std::size_t bytes) noexcept {
    if (bytes < 2 * huge_page_size()) return;
    const std::size_t before = -reinterpret_cast<std::uintptr_t>(data) % page_size();
    const std::size_t whole = (bytes - before) / page_size() * page_size();
    ::madvise(data + before, whole, MADV_HUGEPAGE);  // EINVAL: a kernel without huge pages
}

std::uint64_t physical_memory() noexcept {
    return static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
           static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace penstock::os

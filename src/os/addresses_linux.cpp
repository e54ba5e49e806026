// Reserving addresses on Linux: a mapping without access, cut to size.
#include "os/addresses.hpp"

#include <sys/mman.h>

#include <algorithm>

#include "os/pages.hpp"

namespace penstock::os {

void* reserve_addresses(std::uint64_t phase, std::uint64_t bytes) noexcept {
    // The promised alignment, and the huge page's where one fits.
    constexpr std::uint64_t kPromised = std::uint64_t{2} << 20U;
    const std::uint64_t unit =
        bytes < huge_page_size() ? kPromised : std::max(kPromised, huge_page_size());
    const std::uint64_t span = bytes + unit;
    void* const range =
        ::mmap(nullptr, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) return nullptr;
    const auto begin = reinterpret_cast<std::uintptr_t>(range);
    const std::uintptr_t start = begin + (phase - begin) % unit;
    if (start > begin) ::munmap(range, start - begin);
    const std::uintptr_t end = (start + bytes + page_size() - 1) / page_size() * page_size();
    if (begin + span > end) ::munmap(reinterpret_cast<void*>(end), begin + span - end);
    return reinterpret_cast<void*>(start);
}

}  // namespace penstock::os

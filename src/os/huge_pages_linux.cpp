// Recognizing huge pages on Linux, without privileges: one fault maps all of a huge page.
#include "os/huge_pages.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <system_error>

#include "os/pages.hpp"
#include "os/shared_file.hpp"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // Linux 5.14; older C libraries lack the name
#endif

namespace penstock::os {
namespace {

constexpr std::uint64_t kMaxPlaces = 128;

// /proc/self/pagemap, a word for each page: which addresses of this process have one.
class PageTable {
public:
    PageTable() noexcept : descriptor_(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)) {}
    PageTable(const PageTable&) = delete;
    PageTable& operator=(const PageTable&) = delete;
    ~PageTable() {
        if (descriptor_ >= 0) ::close(descriptor_);
    }

    [[nodiscard]] bool is_mapped(const std::byte* address) const noexcept {
        constexpr std::uint64_t kPresent = std::uint64_t{1} << 63U;
        std::uint64_t entry = 0;
        const std::uint64_t at =
            reinterpret_cast<std::uintptr_t>(address) / kernel_page_size() * sizeof entry;
        return ::pread(descriptor_, &entry, sizeof entry, static_cast<off_t>(at)) ==
                   static_cast<ssize_t>(sizeof entry) &&
               (entry & kPresent) != 0;
    }

private:
    int descriptor_;
};

// `start`: in a fresh mapping, at a multiple of the huge page size in its file. The advice returns
// an error where an access would raise SIGBUS. A fault in small pages maps 16 of them, or one
// folio, which is half a huge page at most.
bool is_huge_page(std::byte* start, const PageTable& table) noexcept {
    unsigned char present = 0;
    const bool is_hole = ::mincore(start, kernel_page_size(), &present) != 0 || (present & 1U) == 0;
    return !is_hole && ::madvise(start, kernel_page_size(), MADV_POPULATE_READ) == 0 &&
           table.is_mapped(start + huge_page_size() - kernel_page_size());
}

}  // namespace

std::uint64_t bytes_in_huge_pages(const SharedFile& file, std::uint64_t offset,
                                  std::uint64_t bytes) noexcept {
    const std::uint64_t huge = huge_page_size();
    const std::uint64_t first = (offset + huge - 1) / huge;
    const std::uint64_t end = (offset + bytes) / huge;
    if (first >= end || !file.is_ours()) return 0;
    const std::uint64_t count = end - first;
    std::error_code error;
    const Mapping mapping =
        Mapping::map(file, first * huge, count * huge, Mapping::Access::Read, error);
    if (error) return 0;
    const PageTable table;
    const std::uint64_t places = std::min(count, kMaxPlaces);
    std::uint64_t found = 0;
    for (std::uint64_t i = 0; i < places; ++i) {
        if (is_huge_page(mapping.data() + i * count / places * huge, table)) ++found;
    }
    return count * found / places * huge;
}

}  // namespace penstock::os

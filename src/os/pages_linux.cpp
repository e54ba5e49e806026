// Page sizes on Linux: sysconf, and sysfs for transparent huge pages.
#include "os/pages.hpp"

#include <unistd.h>

#include <atomic>
#include <bit>
#include <fstream>

#include "os/found_once.hpp"

namespace penstock::os {
namespace {

std::atomic<std::uint64_t> pretended{0};

constinit FoundOnce real_page;
constinit FoundOnce huge_page;

std::uint64_t read_huge_page_size() {
    constexpr std::uint64_t kUsual = std::uint64_t{2} << 20U;
    std::uint64_t bytes = 0;
    std::ifstream("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size") >> bytes;
    return std::has_single_bit(bytes) ? bytes : kUsual;
}

}  // namespace

std::uint64_t kernel_page_size() noexcept {
    return real_page.get([] { return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)); });
}

std::uint64_t page_size() noexcept {
    const std::uint64_t bytes = pretended.load(std::memory_order_relaxed);
    return bytes == 0 ? kernel_page_size() : bytes;
}

std::uint64_t huge_page_size() noexcept {
    return huge_page.get(read_huge_page_size);
}

void pretend_page_size(std::uint64_t bytes) noexcept {
    pretended.store(bytes, std::memory_order_relaxed);
}

}  // namespace penstock::os

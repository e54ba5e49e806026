// Page sizes on Linux: sysconf, and sysfs for transparent huge pages.
#include "os/pages.hpp"

#include <unistd.h>

#include <atomic>
#include <bit>
#include <fstream>

namespace penstock::os {
namespace {

std::atomic<std::uint64_t> pretended{0};

std::uint64_t read_huge_page_size() {
    constexpr std::uint64_t kUsual = std::uint64_t{2} << 20U;
    std::uint64_t bytes = 0;
    std::ifstream("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size") >> bytes;
    return std::has_single_bit(bytes) ? bytes : kUsual;
}

}  // namespace

std::uint64_t page_size() noexcept {
    static const auto kReal = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    const std::uint64_t bytes = pretended.load(std::memory_order_relaxed);
    return bytes == 0 ? kReal : bytes;
}

std::uint64_t huge_page_size() noexcept {
    static const std::uint64_t kSize = read_huge_page_size();
    return kSize;
}

void pretend_page_size(std::uint64_t bytes) noexcept {
    pretended.store(bytes, std::memory_order_relaxed);
}

}  // namespace penstock::os

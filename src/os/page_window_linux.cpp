// Page windows on Linux: mremap with MREMAP_DONTUNMAP, which keeps the mapping that pages are moved
// out of, so that it never has a hole.
#include "os/page_window.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "os/addresses.hpp"
#include "os/fork.hpp"
#include "os/shared_file.hpp"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4  // Linux 5.7, for files 5.13; older C libraries lack the name
#endif

namespace penstock::os {
namespace {

std::error_code last_error() noexcept {
    return {errno, std::generic_category()};
}

std::byte* round_down(std::byte* at) noexcept {
    return at - reinterpret_cast<std::uintptr_t>(at) % page_size();
}

std::byte* round_up(std::byte* at) noexcept {
    return round_down(at + page_size() - 1);
}

bool move_pages(std::byte* from, std::uint64_t bytes, std::byte* to) noexcept {
    constexpr int kHow = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
    return ::mremap(from, bytes, bytes, kHow, to) != MAP_FAILED;
}

// Zeroed addresses for whole pages from `first` on. If the kernel can move whole page tables, or
// `data` is aligned to more than a page, they have the offset of `data` within a huge page. Every
// system call saved is 2 to 5 us of 30 in total.
void* make_place(const std::byte* first, std::uint64_t bytes, const std::byte* data) noexcept {
    constexpr std::uint64_t kHugePage = std::uint64_t{2} << 20U;
    const bool is_aligned = reinterpret_cast<std::uintptr_t>(data) % (2 * page_size()) == 0;
    void* place = nullptr;
    if (bytes >= kHugePage || is_aligned) {
        place = reserve_addresses(reinterpret_cast<std::uintptr_t>(first), bytes);
        if (place == nullptr || ::mprotect(place, bytes, PROT_READ | PROT_WRITE) == 0) return place;
        ::munmap(place, bytes);
        return nullptr;
    }
    place = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return place == MAP_FAILED ? nullptr : place;
}

// Without private memory (RLIMIT_DATA counts it) writes to the range fault from here on.
std::error_code only_to_read(std::byte* at, std::uint64_t bytes) noexcept {
    return ::mprotect(at, bytes, PROT_READ) == 0 ? std::error_code{} : last_error();
}

}  // namespace

PageWindow::PageWindow(PageWindow&& other) noexcept
    : range_(std::exchange(other.range_, {})), data_(std::exchange(other.data_, nullptr)),
      home_(other.home_), bytes_(other.bytes_), fork_generation_(other.fork_generation_) {}

PageWindow& PageWindow::operator=(PageWindow&& other) noexcept {
    std::swap(range_, other.range_);
    std::swap(data_, other.data_);
    std::swap(home_, other.home_);
    std::swap(bytes_, other.bytes_);
    std::swap(fork_generation_, other.fork_generation_);
    return *this;
}

PageWindow::~PageWindow() {
    if (data_ != nullptr && fork_generation_ == fork_generation()) {
        ::munmap(range_.start, range_.bytes);
    }
}

PageWindow::Part PageWindow::whole_pages() const noexcept {
    std::byte* const first = round_up(data_);
    std::byte* const end = round_down(data_ + bytes_);
    return {first, end > first ? static_cast<std::uint64_t>(end - first) : 0};
}

PageWindow PageWindow::open(std::byte* data, std::uint64_t bytes, std::error_code& error) {
    error.clear();
    std::byte* const first = round_down(data);
    const auto span = static_cast<std::uint64_t>(round_up(data + bytes) - first);
    void* const place = make_place(first, span, data);
    if (place == nullptr) {
        error = last_error();
        return {};
    }
    PageWindow window;
    window.range_ = {static_cast<std::byte*>(place), span};
    window.data_ = window.range_.start + (data - first);
    window.home_ = data;
    window.bytes_ = bytes;
    window.fork_generation_ = fork_generation();
    const Part pages = window.whole_pages();
    if (pages.bytes == 0) {
        error = std::make_error_code(std::errc::function_not_supported);
    } else if (!move_pages(window.home(pages.start), pages.bytes, pages.start)) {
        error = last_error();
    }
    if (error) return {};
    return window;
}

void PageWindow::copy_ends() noexcept {
    const Part pages = whole_pages();
    const auto head = static_cast<std::size_t>(pages.start - data_);
    std::memcpy(home_, data_, head);
    const std::byte* const end = pages.start + pages.bytes;
    const auto tail = static_cast<std::size_t>(data_ + bytes_ - end);
    std::memcpy(home(end), end, tail);
}

std::error_code PageWindow::move_back(int descriptor, std::uint64_t offset) noexcept {
    const Part pages = whole_pages();
    std::byte* const to = home(pages.start);
    if (move_pages(pages.start, pages.bytes, to)) return {};
    // The kernel may have unmapped the old range before it failed.
    const auto at = static_cast<off_t>(offset + static_cast<std::uint64_t>(pages.start - data_));
    if (::mmap(to, pages.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, at) ==
        MAP_FAILED) {
        return last_error();
    }
    ::madvise(to, pages.bytes, MADV_DONTFORK);
    ::madvise(to, pages.bytes, MADV_DONTDUMP);
    return {};
}

std::error_code PageWindow::give_back(int descriptor, std::uint64_t offset, bool moves) noexcept {
    if (const std::error_code error = moves ? move_back(descriptor, offset) : std::error_code{}) {
        return error;
    }
    copy_ends();
    return {};
}

std::error_code PageWindow::show_private(int descriptor, std::uint64_t offset) noexcept {
    const Part pages = whole_pages();
    const auto at = static_cast<off_t>(offset + static_cast<std::uint64_t>(pages.start - data_));
    if (::mmap(pages.start, pages.bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, descriptor, at) == MAP_FAILED) {
        return only_to_read(pages.start, pages.bytes);
    }
    // A child's view would change as soon as its parent gives the object back.
    ::madvise(pages.start, pages.bytes, MADV_DONTFORK);
    return {};
}

std::error_code PageWindow::show_zeros() noexcept {
    const Part pages = whole_pages();
    if (::mmap(pages.start, pages.bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED) {
        return only_to_read(pages.start, pages.bytes);
    }
    return {};
}

}  // namespace penstock::os

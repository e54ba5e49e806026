// Pages of a shared mapping, shown at addresses of their own while one writer fills them, and then
// cut off: later accesses to those addresses read the same bytes, and write into private memory.
//
// The pages themselves are moved there and back (mremap), with their page tables. Only the two
// pages at the ends, which other blocks share, are copied, and no page faults a second time:
// filling 64 MiB through fresh addresses took 4 ms for the faults alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <system_error>

namespace penstock::os {

// Owns the addresses. One thread at a time; other threads may be writing into the range at any
// moment, also while it is cut off. In a forked child nothing of it is mapped.
class PageWindow {
public:
    PageWindow() noexcept = default;
    PageWindow(PageWindow&& other) noexcept;
    PageWindow& operator=(PageWindow&& other) noexcept;
    ~PageWindow();  // unmaps; bytes not given back may be lost

    // Shows `bytes` of a writable os::Mapping from `data` on, which only the caller uses; earlier
    // contents may be missing. Pages that lie partly in the range are private here, and only
    // give_back() copies them. Errors change nothing: function_not_supported if there is no whole
    // page, invalid_argument if the kernel can't move pages of files (before Linux 5.13).
    static PageWindow open(std::byte* data, std::uint64_t bytes, std::error_code& error);

    [[nodiscard]] std::byte* data() const noexcept { return data_; }
    [[nodiscard]] bool is_open() const noexcept { return data_ != nullptr; }

    // Returns the bytes to where they came from; writes here still reach them until show_private().
    // `moves`: by moving the page tables; without it the mapping there stays as it is, and faults
    // anew. `offset` is that of data() in the file. After an error the pages may have no mapping
    // there.
    [[nodiscard]] std::error_code give_back(int descriptor, std::uint64_t offset,
                                            bool moves) noexcept;
    // Replaces the range, in one step for all threads, by a private copy-on-write mapping of the
    // file, or by zeros. Without memory for that, the pages become read-only. After an error writes
    // here still reach the file.
    [[nodiscard]] std::error_code show_private(int descriptor, std::uint64_t offset) noexcept;
    [[nodiscard]] std::error_code show_zeros() noexcept;

private:
    struct Part {
        std::byte* start = nullptr;
        std::uint64_t bytes = 0;
    };
    // The pages that lie wholly in the range.
    [[nodiscard]] Part whole_pages() const noexcept;
    [[nodiscard]] std::byte* home(const std::byte* at) const noexcept {
        return home_ + (at - data_);
    }
    [[nodiscard]] std::error_code move_back(int descriptor, std::uint64_t offset) noexcept;
    void copy_ends() noexcept;

    Part range_;                 // the mapped range, in whole pages
    std::byte* data_ = nullptr;  // start of the bytes in it
    std::byte* home_ = nullptr;  // the same byte in the mapping that the pages come from
    std::uint64_t bytes_ = 0;
    std::uint64_t fork_generation_ = 0;
};

}  // namespace penstock::os

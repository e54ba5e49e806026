// Pages of a shared mapping, shown at addresses of their own for as long as one writer fills them,
// and then cut off: what still refers to those addresses reads on, and writes into private memory.
//
// The pages themselves are moved there and back (mremap), with their page tables. Nothing is
// copied but the two pages at the ends that belong to others as well, and no page faults a second
// time: filling 64 MiB through fresh addresses took 4 ms for the faults alone.
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
    ~PageWindow();  // unmaps; what was written and not given back may be lost

    // Shows `bytes` of a writable os::Mapping from `data` on, which the caller alone uses; what
    // they held is not shown in full. Pages that lie in the range in part are private here, and
    // only give_back() copies them. An error: nothing has changed; function_not_supported, where
    // there is no whole page, and invalid_argument, where the kernel can't move pages of files
    // (before Linux 5.13).
    static PageWindow open(std::byte* data, std::uint64_t bytes, std::error_code& error);

    [[nodiscard]] std::byte* data() const noexcept { return data_; }
    [[nodiscard]] bool is_open() const noexcept { return data_ != nullptr; }

    // What was written, back to where it came from; writes here still reach it until the next step.
    // `moves`: with the page tables; without, the mapping there is not touched, and faults anew.
    // `offset` is where data() lies in the file. After an error the pages may have no mapping
    // there.
    [[nodiscard]] std::error_code give_back(int descriptor, std::uint64_t offset,
                                            bool moves) noexcept;
    // In one step for all threads: a private copy-on-write mapping of the file instead, or zeros.
    // Where no memory may be had for that, the pages can only be read from then on. After an error
    // writes here still reach the file.
    [[nodiscard]] std::error_code show_private(int descriptor, std::uint64_t offset) noexcept;
    [[nodiscard]] std::error_code show_zeros() noexcept;

private:
    struct Part {
        std::byte* start = nullptr;
        std::uint64_t bytes = 0;
    };
    // The pages that lie in the range whole.
    [[nodiscard]] Part whole_pages() const noexcept;
    [[nodiscard]] std::byte* home(const std::byte* at) const noexcept {
        return home_ + (at - data_);
    }
    [[nodiscard]] std::error_code move_back(int descriptor, std::uint64_t offset) noexcept;
    void copy_ends() noexcept;

    Part range_;                 // what is mapped here, in whole pages
    std::byte* data_ = nullptr;  // in it
    std::byte* home_ = nullptr;  // the same byte where the pages come from
    std::uint64_t bytes_ = 0;
    std::uint64_t fork_generation_ = 0;
};

}  // namespace penstock::os

// A second mapping of a segment's file, through which Python writes into loans. It can be cut off
// from the segment: an array that outlives its loan then writes into memory of its own.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock::py {

// The bytes of one loan, by their offset in the segment's file.
struct FileRange {
    std::uint64_t offset = 0;
    std::size_t nbytes = 0;
};

// Not thread-safe. Not mapped in a forked child, where the destructor does nothing.
class LoanWindow {
public:
    // Maps the whole file. Throws Error(NoSpace) when there is no room for the mapping.
    explicit LoanWindow(int descriptor);
    LoanWindow(const LoanWindow&) = delete;
    LoanWindow& operator=(const LoanWindow&) = delete;
    ~LoanWindow();

    [[nodiscard]] std::byte* at(std::uint64_t offset) const noexcept { return base_ + offset; }
    // Replaces the range by a private copy, in one step, and unmaps everything else: the window
    // shows the segment no longer. Without memory for a copy it makes the window read-only instead,
    // which then still shows the segment. Throws Error(NoSpace), with nothing changed.
    void cut_off(const FileRange& range);

private:
    std::byte* base_ = nullptr;  // of offset 0, also after cut_off()
    std::uint64_t begin_ = 0;    // the mapped range, as file offsets
    std::uint64_t end_ = 0;
    std::uint64_t generation_;
};

}  // namespace penstock::py

// Huge pages in tests: whether this machine makes any, and what a process has mapped of them.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <system_error>

#include "os/pages.hpp"
#include "os/shared_file.hpp"

namespace penstock::test {

// Why no huge pages can be made of memory in files; empty where they can.
inline std::string why_no_huge_pages() {
    const std::uint64_t huge = os::huge_page_size();
    std::error_code error;
    os::SharedFile file = os::SharedFile::create_anonymous("penstock-test", error);
    if (!error) error = file.set_size(huge);
    if (!error) error = file.reserve(0, os::page_size());
    if (error) return "no memory for a test file: " + error.message();
    os::Mapping mapping = os::Mapping::map(file, 0, huge, os::Mapping::Access::ReadWrite, error);
    if (!error) error = mapping.collapse(0, huge);
    return error ? "no huge pages of files here (MADV_COLLAPSE): " + error.message() : "";
}

// Bytes of huge pages of files in memory that this process has in its page tables.
inline std::uint64_t mapped_huge_bytes() {
    std::ifstream file("/proc/self/smaps_rollup");
    for (std::string word; file >> word;) {
        std::uint64_t kib = 0;
        if (word == "ShmemPmdMapped:" && file >> kib) return kib * 1024;
    }
    return 0;
}

}  // namespace penstock::test

// Skips the test, with the kernel's reason, on a machine without huge pages of files.
#define PENSTOCK_NEEDS_HUGE_PAGES()                                            \
    do {                                                                       \
        if (const std::string why = test::why_no_huge_pages(); !why.empty()) { \
            GTEST_SKIP() << why;                                               \
        }                                                                      \
    } while (false)

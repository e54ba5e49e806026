// The mapping behind Python's loans. cut_off() costs a copy of the loan and some system calls; only
// loans whose arrays outlive them need it.
#include "loan_window.hpp"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "os/fork.hpp"
#include "penstock/error.hpp"

namespace penstock::py {
namespace {

[[noreturn]] void throw_no_mapping(const char* purpose) {
    throw Error(ErrorCode::NoSpace,
                std::string("can't map memory for ") + purpose + ": " + std::strerror(errno));
}

}  // namespace

LoanWindow::LoanWindow(int descriptor) : generation_(os::fork_generation()) {
    struct stat facts{};
    if (::fstat(descriptor, &facts) != 0) {
        throw_no_mapping("a loan");
    }
    end_ = static_cast<std::uint64_t>(facts.st_size);
    void* const mapped =
        ::mmap(nullptr, end_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor, 0);
    if (mapped == MAP_FAILED) {
        throw_no_mapping("a loan");
    }
    base_ = static_cast<std::byte*>(mapped);
    // A forked child must not write into its parent's loans, nor a core dump hold gigabytes.
    ::madvise(mapped, end_, MADV_DONTFORK);
    ::madvise(mapped, end_, MADV_DONTDUMP);
}

LoanWindow::~LoanWindow() {
    if (generation_ == os::fork_generation()) {
        ::munmap(base_ + begin_, end_ - begin_);
    }
}

void LoanWindow::cut_off(const FileRange& range) {
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    const std::uint64_t begin = range.offset / page * page;
    // At least one page, so that an empty loan has a valid address too.
    const std::uint64_t last = range.offset + std::max<std::uint64_t>(range.nbytes, 1) - 1;
    const std::uint64_t end = (last / page + 1) * page;
    const std::uint64_t size = end - begin;
    void* const copy =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED) {
        // Without memory for a copy, arrays can be read, and a write to them faults.
        if (::mprotect(base_ + begin_, end_ - begin_, PROT_READ) != 0) {
            throw_no_mapping("arrays that outlive their loan");
        }
        return;
    }
    std::memcpy(static_cast<std::byte*>(copy) + (range.offset - begin), at(range.offset),
                range.nbytes);
    // One step, so that no thread can ever see the array's memory missing.
    if (::mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, base_ + begin) == MAP_FAILED) {
        ::munmap(copy, size);
        throw_no_mapping("arrays that outlive their loan");
    }
    if (begin > 0) {
        ::munmap(base_, begin);
    }
    if (end < end_) {
        ::munmap(base_ + end, end_ - end);
    }
    begin_ = begin;
    end_ = end;
}

}  // namespace penstock::py

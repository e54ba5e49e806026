// Words that a test shares with its processes and that survive their deaths: counters, or a word
// for every message. Anonymous memory passed by descriptor, independent of the library.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "tests/support/process.hpp"

namespace penstock::trust {

// Zeros at first, and sparse. Any thread, any process that has the descriptor.
class SharedWords {
public:
    explicit SharedWords(std::size_t count)
        : file_(::memfd_create("words", 0)), count_(count) {  // inherited through exec on purpose
        if (file_.get() < 0 || ::ftruncate(file_.get(), static_cast<off_t>(bytes())) != 0) {
            throw_errno("memfd");
        }
        map();
    }
    // In a child: `argument` is the parent's argument().
    explicit SharedWords(const std::string& argument) : file_(std::stoi(argument)) {
        count_ = static_cast<std::size_t>(::lseek(file_.get(), 0, SEEK_END)) / sizeof(Word);
        map();
    }
    SharedWords(const SharedWords&) = delete;
    SharedWords& operator=(const SharedWords&) = delete;
    ~SharedWords() { ::munmap(words_, bytes()); }

    [[nodiscard]] std::string argument() const { return std::to_string(file_.get()); }
    [[nodiscard]] std::size_t size() const { return count_; }
    std::atomic<std::uint64_t>& operator[](std::size_t at) { return words_[at]; }

private:
    using Word = std::atomic<std::uint64_t>;

    [[nodiscard]] std::size_t bytes() const { return count_ * sizeof(Word); }
    void map() {
        void* const at = ::mmap(nullptr, bytes(), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_NORESERVE, file_.get(), 0);
        if (at == MAP_FAILED) throw_errno("mmap");
        words_ = static_cast<Word*>(at);
    }

    Descriptor file_;
    std::size_t count_ = 0;
    Word* words_ = nullptr;
};

}  // namespace penstock::trust

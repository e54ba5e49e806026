// A few counters that a test and its processes share, to survive those that are killed.
// Plain anonymous memory handed down by descriptor: nothing of the library is used for it.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "tests/support/process.hpp"

namespace penstock::trust {

// Words that one process writes and others read. Any process that has the descriptor.
class Scoreboard {
public:
    static constexpr std::size_t kWords = 64;

    Scoreboard() : file_(::memfd_create("scoreboard", 0)) {  // inherited through exec on purpose
        if (file_.get() < 0 || ::ftruncate(file_.get(), kBytes) != 0) throw_errno("scoreboard");
        map();
    }
    // In a child: `number` as argument() gave it.
    explicit Scoreboard(const std::string& number) : file_(std::stoi(number)) { map(); }
    Scoreboard(const Scoreboard&) = delete;
    Scoreboard& operator=(const Scoreboard&) = delete;
    ~Scoreboard() { ::munmap(words_, kBytes); }

    [[nodiscard]] std::string argument() const { return std::to_string(file_.get()); }
    std::atomic<std::uint64_t>& operator[](std::size_t at) { return words_[at]; }

private:
    static constexpr std::size_t kBytes = kWords * sizeof(std::atomic<std::uint64_t>);

    void map() {
        void* at = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
        if (at == MAP_FAILED) throw_errno("mmap scoreboard");
        words_ = static_cast<std::atomic<std::uint64_t>*>(at);
    }

    Descriptor file_;
    std::atomic<std::uint64_t>* words_ = nullptr;
};

}  // namespace penstock::trust

// A word for every message of a stress test, shared by all its processes, to survive those that are
// killed. Anonymous memory handed down by descriptor, as Scoreboard, but of any size and sparse.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "tests/support/process.hpp"

namespace penstock::trust {

class SharedTable {
public:
    explicit SharedTable(std::size_t words)
        : words_(words), file_(::memfd_create("table", 0)) {  // inherited through exec on purpose
        if (file_.get() < 0 || ::ftruncate(file_.get(), bytes()) != 0) throw_errno("table");
        map();
    }
    // In a child: `number` as argument() gave it.
    SharedTable(const std::string& number, std::size_t words)
        : words_(words), file_(std::stoi(number)) {
        map();
    }
    SharedTable(const SharedTable&) = delete;
    SharedTable& operator=(const SharedTable&) = delete;
    ~SharedTable() { ::munmap(table_, static_cast<std::size_t>(bytes())); }

    [[nodiscard]] std::string argument() const { return std::to_string(file_.get()); }
    [[nodiscard]] std::size_t size() const { return words_; }
    std::atomic<std::uint64_t>& operator[](std::size_t at) { return table_[at]; }

private:
    [[nodiscard]] off_t bytes() const {
        return static_cast<off_t>(words_ * sizeof(std::atomic<std::uint64_t>));
    }
    void map() {
        void* at = ::mmap(nullptr, static_cast<std::size_t>(bytes()), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_NORESERVE, file_.get(), 0);
        if (at == MAP_FAILED) throw_errno("mmap table");
        table_ = static_cast<std::atomic<std::uint64_t>*>(at);
    }

    std::size_t words_;
    Descriptor file_;
    std::atomic<std::uint64_t>* table_ = nullptr;
};

}  // namespace penstock::trust

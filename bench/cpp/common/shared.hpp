// A value in memory that a process shares with children forked later: the harness's own channel, so
// that no contender is used to measure another.
#pragma once

#include <sys/mman.h>

#include <memory>
#include <new>

#include "bench/cpp/common/failure.hpp"

namespace penstock::bench {

// 128 bytes: processors fetch lines in pairs.
inline constexpr std::size_t kLine = 128;

class SharedBytes {
public:
    explicit SharedBytes(std::size_t size) : size_(size) {
        void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        require(at != MAP_FAILED, "mmap failed");
        data_ = static_cast<std::byte*>(at);
    }
    SharedBytes(const SharedBytes&) = delete;
    SharedBytes& operator=(const SharedBytes&) = delete;
    ~SharedBytes() { munmap(data_, size_); }

    [[nodiscard]] std::byte* data() const noexcept { return data_; }

private:
    std::byte* data_ = nullptr;
    std::size_t size_;
};

template <typename T>
class Shared {
public:
    Shared() : bytes_(sizeof(T)), value_(new(bytes_.data()) T()) {}

    T* operator->() const noexcept { return value_; }
    T& operator*() const noexcept { return *value_; }

private:
    SharedBytes bytes_;
    T* value_;
};

}  // namespace penstock::bench

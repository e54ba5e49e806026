// Somebody with the right user id who writes into a living segment what the input says.
#pragma once

#include <sys/mman.h>

#include "fuzz/segment_image.hpp"

namespace penstock::fuzzing {

// The hostile one's view of the file: all of it, writable.
class Vandal {
public:
    explicit Vandal(const std::string& path) {
        const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
        if (file < 0) std::abort();
        layout::SegmentHeader header{};
        if (::pread(file, &header, sizeof header, 0) != sizeof header) std::abort();
        slots_ = header.slots_offset;
        payload_ = header.payload_offset;
        size_ = header.payload_offset + 4096;  // the ring, or the cells; blocks nobody interprets
        void* at = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        ::close(file);
        if (at == MAP_FAILED) std::abort();
        memory_ = static_cast<std::uint8_t*>(at);
    }
    Vandal(const Vandal&) = delete;
    Vandal& operator=(const Vandal&) = delete;
    ~Vandal() { ::munmap(memory_, size_); }

    void strike(FuzzedDataProvider& input) {
        if (input.ConsumeBool()) {
            damage(input, memory_, slots_, payload_ - slots_);  // slots and control
        } else {
            damage(input, memory_, payload_, size_ - payload_);  // the ring, or the cells
        }
    }

private:
    std::uint8_t* memory_ = nullptr;
    std::size_t size_ = 0;
    std::size_t slots_ = 0;
    std::size_t payload_ = 0;
};

}  // namespace penstock::fuzzing

// Somebody with the right user id who writes into a living segment what the input says. He can put
// everything back, so that a segment need not be made anew for each input.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "fuzz/damage.hpp"

namespace penstock::fuzzing {

// The hostile one's view of the file: all of it, writable.
class SegmentCorruptor {
public:
    explicit SegmentCorruptor(const std::string& path) {
        const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
        if (file < 0) std::abort();
        layout::SegmentHeader header{};
        if (::pread(file, &header, sizeof header, 0) != sizeof header) std::abort();
        slots_ = header.slots_offset;
        control_end_ = header.control_offset + header.control_size;
        payload_ = header.payload_offset;
        size_ = header.payload_offset + 4096;  // the ring, or the cells; blocks nobody interprets
        void* at = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        ::close(file);
        if (at == MAP_FAILED) std::abort();
        memory_ = static_cast<std::uint8_t*>(at);
        control_before_.assign(memory_ + slots_, memory_ + control_end_);
        payload_before_.assign(memory_ + payload_, memory_ + size_);
    }
    SegmentCorruptor(const SegmentCorruptor&) = delete;
    SegmentCorruptor& operator=(const SegmentCorruptor&) = delete;
    ~SegmentCorruptor() { ::munmap(memory_, size_); }

    void strike(FuzzedDataProvider& input) {
        if (input.ConsumeBool()) {
            // Not what lies between control and payload: of a Store, that is nearly everything.
            damage(input, memory_, slots_, control_end_ - slots_);
        } else {
            damage(input, memory_, payload_, size_ - payload_);  // the ring, or the cells
        }
    }

    // All that anybody has changed, as it was when this one came: but for payload that nobody
    // interprets.
    void undo() {
        std::memcpy(memory_ + slots_, control_before_.data(), control_before_.size());
        std::memcpy(memory_ + payload_, payload_before_.data(), payload_before_.size());
    }

private:
    std::uint8_t* memory_ = nullptr;
    std::size_t size_ = 0;
    std::size_t slots_ = 0;
    std::size_t control_end_ = 0;
    std::size_t payload_ = 0;
    std::vector<std::uint8_t> control_before_;
    std::vector<std::uint8_t> payload_before_;
};

}  // namespace penstock::fuzzing

// A process of the same user that writes anything into a live segment.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "os/shared_file.hpp"
#include "segment/life/header.hpp"

namespace penstock::trust {

// A segment's whole file, mapped writable. undo() restores it, so that each damage needs no new
// segment.
class SegmentCorruptor {
public:
    // `name`: of a segment, or "file:" and a path.
    explicit SegmentCorruptor(const std::string& name) {
        constexpr std::string_view kFile = "file:";
        std::error_code error;
        file_ = os::SharedFile::open(
            name.starts_with(kFile) ? name.substr(kFile.size()) : "/dev/shm/penstock." + name,
            error);
        if (error) throw std::system_error(error, name);
        header_ = detail::read_header(file_, name);
        mapping_ =
            os::Mapping::map(file_, 0, header_.file_size, os::Mapping::Access::ReadWrite, error);
        if (error) throw std::system_error(error, name);
        for (const std::span<std::byte> part : {words(), payload()}) {
            before_.emplace_back(part.begin(), part.end());
        }
    }

    [[nodiscard]] const layout::SegmentHeader& header() const { return header_; }
    [[nodiscard]] std::byte* control() const { return mapping_.data() + header_.control_offset; }
    // Slots and control block.
    [[nodiscard]] std::span<std::byte> words() const {
        return {mapping_.data() + header_.slots_offset,
                header_.control_offset + header_.control_size - header_.slots_offset};
    }
    // The interpreted part of the payload: the ring, or the cells.
    [[nodiscard]] std::span<std::byte> payload() const {
        return {mapping_.data() + header_.payload_offset,
                std::min<std::size_t>(layout::kPage, header_.file_size - header_.payload_offset)};
    }

    // Restores words() and payload() as they were at construction, whichever process changed them.
    void undo() const {
        std::memcpy(words().data(), before_[0].data(), before_[0].size());
        std::memcpy(payload().data(), before_[1].data(), before_[1].size());
    }

private:
    os::SharedFile file_;
    layout::SegmentHeader header_{};
    os::Mapping mapping_;
    std::vector<std::vector<std::byte>> before_;
};

}  // namespace penstock::trust

// A process of the right user that writes into a living Broadcast what it likes.
#pragma once

#include <cstring>
#include <string>
#include <system_error>

#include "broadcast/control.hpp"
#include "broadcast/layout.hpp"
#include "segment/life/header.hpp"
#include "tests/unit/support/child.hpp"

namespace penstock::test {

// The whole file of a Broadcast, writable: what a corruptor with the right user id has.
class SegmentCorruptor {
public:
    explicit SegmentCorruptor(const std::string& name) {
        std::error_code error;
        file_ = os::SharedFile::open("/dev/shm/penstock." + name, error);
        require(!error);
        header_ = detail::read_header(file_, name);
        mapping_ =
            os::Mapping::map(file_, 0, header_.file_size, os::Mapping::Access::ReadWrite, error);
        require(!error);
        view_ = detail::BroadcastView(detail::broadcast_shape_of(header_),
                                      mapping_.data() + header_.control_offset);
    }

    [[nodiscard]] layout::WriterState& state() const { return view_.state(); }
    [[nodiscard]] layout::WriterLine& writer() const { return view_.writer(); }
    [[nodiscard]] layout::RecordHeader record() const {
        std::uint64_t word = 0;
        std::memcpy(&word, ring(), sizeof word);
        return layout::decode_record(word);
    }
    void put(const layout::RecordHeader& record) const {
        const std::uint64_t word = layout::encode_record(record);
        std::memcpy(ring(), &word, sizeof word);
    }
    [[nodiscard]] layout::BlockRecord block() const {
        layout::BlockRecord block{};
        std::memcpy(&block, ring() + 8, sizeof block);
        return block;
    }
    // Every record has a kind, so that nothing is left that could be read.
    void clear_ring() const { std::memset(ring(), 0, view_.shape().capacity); }
    void put(const layout::BlockRecord& block) const {
        std::memcpy(ring() + 8, &block, sizeof block);
    }

private:
    [[nodiscard]] std::byte* ring() const { return mapping_.data() + header_.payload_offset; }

    os::SharedFile file_;
    layout::SegmentHeader header_{};
    os::Mapping mapping_;
    detail::BroadcastView view_;
};

}  // namespace penstock::test

// Finds and overwrites words of a Broadcast's segment, as a corruption would.
#pragma once

#include <cstring>
#include <string>

#include "broadcast/control.hpp"
#include "broadcast/holders.hpp"
#include "broadcast/layout.hpp"
#include "tests/support/segment_corruptor.hpp"

namespace penstock::test {

class BroadcastCorruptor : trust::SegmentCorruptor {
public:
    explicit BroadcastCorruptor(const std::string& name)
        : SegmentCorruptor(name), view_(detail::broadcast_shape_of(header()), control()) {}

    [[nodiscard]] layout::WriterState& state() const { return view_.state(); }
    [[nodiscard]] std::atomic<std::uint64_t>& origin() const { return view_.origin(); }
    [[nodiscard]] layout::WriterLine& writer() const { return view_.writer(); }
    [[nodiscard]] detail::BlockHolders holders() const { return detail::BlockHolders(view_); }
    [[nodiscard]] layout::RecordHeader record() const {
        std::uint64_t word = 0;
        std::memcpy(&word, payload().data(), sizeof word);
        return layout::decode_record(word);
    }
    void put(const layout::RecordHeader& record) const {
        const std::uint64_t word = layout::encode_record(record);
        std::memcpy(payload().data(), &word, sizeof word);
    }
    [[nodiscard]] layout::BlockRecord block() const {
        layout::BlockRecord block{};
        std::memcpy(&block, payload().data() + 8, sizeof block);
        return block;
    }
    void put(const layout::BlockRecord& block) const {
        std::memcpy(payload().data() + 8, &block, sizeof block);
    }
    // Every record has a nonzero kind: zeros leave nothing that could be read.
    void clear_ring() const { std::memset(payload().data(), 0, view_.shape().capacity); }

private:
    detail::BroadcastView view_;
};

}  // namespace penstock::test

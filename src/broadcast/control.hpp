// The control block of a Broadcast as its writer, its readers and the inspector see it.
// Also their common functions: states of readers, statistics, and the reaping of a reader.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "broadcast/layout.hpp"
#include "penstock/broadcast.hpp"
#include "segment/life/segment.hpp"
#include "segment/waiting/signal.hpp"

namespace penstock::detail {

// The geometry of one Broadcast, checked against the header's sizes before it is used.
struct BroadcastShape {
    unsigned readers = 0;
    std::uint64_t capacity = 0;
    std::uint32_t granules = 0;  // of blocks
    OnReaderDeath on_reader_death = OnReaderDeath::Raise;

    [[nodiscard]] std::uint64_t control_bytes() const noexcept;
    // Offset in the control block of the holder bits: holder_words() for each granule.
    [[nodiscard]] std::uint64_t holders_offset() const noexcept;
    [[nodiscard]] std::uint32_t holder_words() const noexcept { return (readers + 63) / 64; }
    // Offset in the payload; block_offset(granules) is its end.
    [[nodiscard]] std::uint64_t block_offset(std::uint32_t granule) const noexcept {
        return capacity + granule * layout::kBroadcastGranule;
    }
    [[nodiscard]] std::uint64_t blocks_bytes() const noexcept {
        return block_offset(granules) - capacity;
    }
    [[nodiscard]] std::uint64_t longest_inline() const noexcept { return capacity / 4; }
};

SegmentPlan plan_of(const BroadcastShape& shape);
BroadcastShape broadcast_shape_of(const BroadcastOptions& options);  // throws InvalidArgument
// Throws Corrupt unless the header's geometry describes a Broadcast that fits its segment.
BroadcastShape broadcast_shape_of(const layout::SegmentHeader& header);

// Typed pointers into a control block. A value.
class BroadcastView {
public:
    BroadcastView() noexcept = default;
    BroadcastView(const BroadcastShape& shape, std::byte* control) noexcept
        : shape_(shape), control_(control) {}

    [[nodiscard]] const BroadcastShape& shape() const noexcept { return shape_; }
    [[nodiscard]] layout::WriterLine& writer() const noexcept { return block().writer; }
    [[nodiscard]] layout::WriterCounts& counts() const noexcept { return block().counts; }
    [[nodiscard]] layout::WriterState& state() const noexcept { return block().state; }
    [[nodiscard]] std::atomic<std::uint64_t>& origin() const noexcept {
        return block().ring.origin;
    }
    [[nodiscard]] layout::SignalWord& data_word() const noexcept { return block().data; }
    [[nodiscard]] layout::SignalWord& space_word() const noexcept { return block().space; }
    [[nodiscard]] layout::ReaderLine& reader(unsigned rank) const noexcept {
        auto* lines =
            reinterpret_cast<layout::ReaderLine*>(control_ + sizeof(layout::BroadcastControl));
        return lines[rank];
    }
    [[nodiscard]] std::atomic<std::uint64_t>* holders(std::uint32_t granule) const noexcept {
        auto* words =
            reinterpret_cast<std::atomic<std::uint64_t>*>(control_ + shape_.holders_offset());
        return words + std::uint64_t{granule} * shape_.holder_words();
    }

private:
    [[nodiscard]] layout::BroadcastControl& block() const noexcept {
        return *reinterpret_cast<layout::BroadcastControl*>(control_);
    }

    BroadcastShape shape_;
    std::byte* control_ = nullptr;
};

// The state of one rank for display, from its line and its slot.
BroadcastReaderState describe_reader(const BroadcastView& view, const Participants& participants,
                                     unsigned rank);
// The readers that block the writer; none if it is not blocked.
std::vector<BroadcastReaderState> find_blockers(const BroadcastView& view,
                                                const Participants& participants);
// Statistics from the control block alone; held_bytes stays 0, as readers report it.
BroadcastStats read_stats(const BroadcastView& view);

// How many readers were ever found dead.
inline std::uint64_t reader_deaths(const Participants& participants,
                                   const BroadcastShape& shape) noexcept {
    return participants.deaths(layout::slot_of_rank(0), layout::slot_of_rank(shape.readers));
}

// Whether the rank's reader, or one that is expected there, keeps the writer from reusing the ring.
bool is_gating(const BroadcastView& view, unsigned rank) noexcept;

// Membership's take_over() for the reader of `rank`, which is dead: it stops gating the writer.
// Repeatable. Its holder bits have been void since its death was noted: see BlockHolders.
void take_over_reader(const BroadcastView& view, unsigned rank) noexcept;

}  // namespace penstock::detail

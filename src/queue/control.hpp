// The control block of a Queue, as its participants and the inspector see it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "penstock/queue.hpp"
#include "queue/layout.hpp"
#include "segment/life/segment.hpp"
#include "segment/memory/arena.hpp"
#include "segment/waiting/signal.hpp"

namespace penstock::detail {

// Numbers of one Queue, checked against the header's sizes before use.
struct QueueShape {
    std::uint64_t slots = 0;       // a power of two
    std::uint64_t cell_bytes = 0;  // a multiple of 64
    unsigned participants = 0;
    unsigned max_deliveries = 0;
    EndsWith ends_with = EndsWith::Creator;
    bool is_reserved = false;  // all memory is reserved at creation and stays
    std::uint64_t application = 0;
    std::uint64_t application_bytes = 0;  // a multiple of kApart
    ArenaGeometry arena;

    [[nodiscard]] std::uint64_t slots_offset() const noexcept;  // in the control block
    [[nodiscard]] std::uint64_t arena_offset() const noexcept;
    [[nodiscard]] std::uint64_t application_offset() const noexcept;
    [[nodiscard]] std::uint64_t control_bytes() const noexcept;
    [[nodiscard]] std::uint64_t cells_bytes() const noexcept;  // of the payload, before the arena
    [[nodiscard]] std::uint64_t payload_bytes() const noexcept;
};

// The geometry word of an application, from its letters.
constexpr std::uint64_t application_word(std::string_view letters) noexcept {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < letters.size() && i < sizeof word; ++i) {
        word |= std::uint64_t{static_cast<unsigned char>(letters[i])} << (8 * i);
    }
    return word;
}
// The kind of an application's messages: "plain messages", "groups of trajectories".
std::string application_text(std::uint64_t word);

SegmentPlan plan_of(const QueueShape& shape);
QueueShape queue_shape_of(const QueueOptions& options);  // throws InvalidArgument
// Throws Corrupt unless the header's geometry describes a Queue that fits its segment.
QueueShape queue_shape_of(const layout::SegmentHeader& header);

// Typed pointers into a control block. A value.
class QueueView {
public:
    QueueView() noexcept = default;
    QueueView(const QueueShape& shape, std::byte* control) noexcept
        : shape_(shape), control_(control),
          slots_(reinterpret_cast<layout::QueueSlot*>(control + shape.slots_offset())) {}

    [[nodiscard]] const QueueShape& shape() const noexcept { return shape_; }
    [[nodiscard]] layout::TicketHint& tail() const noexcept { return block().tail; }
    [[nodiscard]] layout::TicketHint& head() const noexcept { return block().head; }
    [[nodiscard]] layout::QueueState& state() const noexcept { return block().state; }
    [[nodiscard]] layout::SignalWord& data_word() const noexcept { return block().data; }
    [[nodiscard]] layout::SignalWord& space_word() const noexcept { return block().space; }
    [[nodiscard]] layout::SignalWord& turn_word() const noexcept { return block().turn; }
    [[nodiscard]] layout::QueueParticipant& participant(unsigned slot) const noexcept {
        return reinterpret_cast<layout::QueueParticipant*>(control_ +
                                                           sizeof(layout::QueueControl))[slot];
    }
    [[nodiscard]] layout::QueueSlot& slot(std::uint64_t index) const noexcept {
        return slots_[index];
    }
    [[nodiscard]] std::byte* arena_control() const noexcept {
        return control_ + shape_.arena_offset();
    }
    [[nodiscard]] std::byte* application() const noexcept {
        return control_ + shape_.application_offset();
    }

private:
    [[nodiscard]] layout::QueueControl& block() const noexcept {
        return *reinterpret_cast<layout::QueueControl*>(control_);
    }

    QueueShape shape_;
    std::byte* control_ = nullptr;
    layout::QueueSlot* slots_ = nullptr;
};

// QueueSlot::block of a block, and back; 0 names none.
constexpr std::uint64_t encode_block(BlockId block) noexcept {
    return (std::uint64_t{block.granule} + 1) << 32U | block.generation;
}
constexpr BlockId decode_block(std::uint64_t word) noexcept {
    return {static_cast<std::uint32_t>((word >> 32U) - 1), static_cast<std::uint32_t>(word)};
}

// Number of dead letters. Looks at every slot, unless there never was one.
std::uint64_t count_dead_letters(const QueueView& view) noexcept;
// Statistics from the control block alone. Looks at every slot.
QueueStats read_queue_stats(const QueueView& view);

// Messages that the next participant can still receive or inspect: accepted and not acknowledged.
KeptData kept_messages(const QueueView& view) noexcept;

}  // namespace penstock::detail

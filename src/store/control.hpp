// The control block of a Store as its participants and the inspector see it.
#pragma once

#include <cstdint>
#include <string_view>

#include "penstock/store.hpp"
#include "segment/life/segment.hpp"
#include "segment/memory/heap.hpp"
#include "segment/words/atomics.hpp"
#include "store/layout.hpp"

namespace penstock::detail {

// Numbers of one Store, checked against the header's sizes before use.
struct StoreShape {
    HeapGeometry heap;
    std::uint32_t buckets = 0;  // a power of two
    unsigned participants = 0;
    Eviction eviction = Eviction::Sieve;
    bool persistent = false;
    bool is_reserved = false;

    [[nodiscard]] std::uint32_t entries() const noexcept { return buckets * layout::kWays; }
    [[nodiscard]] unsigned holder_words() const noexcept { return (participants + 63) / 64; }
    [[nodiscard]] std::uint64_t entry_bytes() const noexcept;
    [[nodiscard]] std::uint64_t operations_offset() const noexcept;  // in the control block
    [[nodiscard]] std::uint64_t buckets_offset() const noexcept;
    [[nodiscard]] std::uint64_t entries_offset() const noexcept;
    [[nodiscard]] std::uint64_t heap_offset() const noexcept;
    [[nodiscard]] std::uint64_t control_bytes() const noexcept;
};

SegmentPlan plan_of(const StoreShape& shape);
StoreShape store_shape_of(const StoreOptions& options);  // throws InvalidArgument
// Throws Corrupt unless the header's geometry describes a Store that fits its segment.
StoreShape store_shape_of(const layout::SegmentHeader& header);

// Typed pointers into a control block. A value.
class StoreView {
public:
    StoreView() noexcept = default;
    StoreView(const StoreShape& shape, std::byte* control) noexcept
        : shape_(shape), control_(control),
          buckets_(reinterpret_cast<layout::IndexBucket*>(control + shape.buckets_offset())),
          entries_(control + shape.entries_offset()), entry_bytes_(shape.entry_bytes()) {}

    [[nodiscard]] const StoreShape& shape() const noexcept { return shape_; }
    [[nodiscard]] layout::StoreState& state() const noexcept { return block().state; }
    // By the option at creation, or by a participant's persist().
    [[nodiscard]] bool is_persistent() const noexcept {
        return shape_.persistent || load_relaxed(state().stays) != 0;
    }
    [[nodiscard]] layout::SignalWord& committed_word() const noexcept { return block().committed; }
    [[nodiscard]] layout::StoreParticipant& participant(unsigned place) const noexcept {
        return reinterpret_cast<layout::StoreParticipant*>(control_ +
                                                           sizeof(layout::StoreControl))[place];
    }
    [[nodiscard]] layout::WordOperation* operations() const noexcept {
        return reinterpret_cast<layout::WordOperation*>(control_ + shape_.operations_offset());
    }
    [[nodiscard]] layout::IndexBucket& bucket(std::uint32_t number) const noexcept {
        return buckets_[number];
    }
    [[nodiscard]] layout::StoreEntry& entry(std::uint32_t number) const noexcept {
        return *reinterpret_cast<layout::StoreEntry*>(entries_ + number * entry_bytes_);
    }
    [[nodiscard]] std::atomic<std::uint64_t>& holders(std::uint32_t number,
                                                      unsigned participant) const noexcept {
        return entry(number).holders[participant / 64];
    }
    [[nodiscard]] std::byte* heap_control() const noexcept {
        return control_ + shape_.heap_offset();
    }
    [[nodiscard]] std::byte* control() const noexcept { return control_; }

private:
    [[nodiscard]] layout::StoreControl& block() const noexcept {
        return *reinterpret_cast<layout::StoreControl*>(control_);
    }

    StoreShape shape_;
    std::byte* control_ = nullptr;
    layout::IndexBucket* buckets_ = nullptr;
    std::byte* entries_ = nullptr;
    std::uint64_t entry_bytes_ = 0;
};

// StoreEntry::favour.
struct Favour {
    std::uint8_t visits = 0;
    std::uint8_t weight = 0;
    std::uint16_t retained = 0;
};
constexpr std::uint64_t encode_favour(const Favour& favour) noexcept {
    return favour.visits | std::uint64_t{favour.weight} << 8U |
           std::uint64_t{favour.retained} << 16U;
}
constexpr Favour decode_favour(std::uint64_t word) noexcept {
    return {static_cast<std::uint8_t>(word), static_cast<std::uint8_t>(word >> 8U),
            static_cast<std::uint16_t>(word >> 16U)};
}

[[nodiscard]] bool is_held(const StoreView& view, std::uint32_t entry) noexcept;

// Statistics from the control block alone. Looks at every entry and granule; changes nothing.
StoreStats read_store_stats(const StoreView& view, const MultiWord& words, const Heap& heap);

// The objects of a persistent store, which a later participant can still get. Throws Corrupt.
KeptData kept_objects(Visit& visit);

}  // namespace penstock::detail

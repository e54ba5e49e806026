// The free list, ordered by address (D. Knuth, The Art of Computer Programming, 2.5: first fit),
// and the queue of blocks that were sent.
#include "broadcast/blocks.hpp"

#include <algorithm>
#include <string>

#include "os/crash_point.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

using layout::kBroadcastGranule;

std::uint32_t end_of(const Block& run) noexcept {
    return run.first + run.granules;
}

}  // namespace

WriterBlocks::WriterBlocks(const BroadcastView& view, Segment& segment)
    : view_(view), holders_(view), segment_(&segment), has_memory_(view.shape().granules) {
    // The most entries that these can have. Free runs never touch, except inside give_back().
    free_.reserve(view.shape().granules / 2 + 2);
    kept_.reserve(view.shape().granules);
    if (view.shape().granules > 0) free_.push_back({0, view.shape().granules});
}

Result<Block> WriterBlocks::allocate(std::uint64_t bytes) noexcept {
    const auto granules =
        static_cast<std::uint32_t>((bytes + kBroadcastGranule - 1) / kBroadcastGranule);
    const auto run =
        std::ranges::find_if(free_, [&](const Block& free) { return free.granules >= granules; });
    if (run == free_.end()) {
        return Status(ErrorCode::Busy,
                      "no free run of " + std::to_string(bytes) + " bytes at this moment");
    }
    const Block block{run->first, granules};
    Status reserved = reserve(block);
    if (reserved.code() == ErrorCode::NoSpace) {
        trim();  // the memory of all free granules, this block's too, may be enough
        reserved = reserve(block);
    }
    if (!reserved) return reserved;
    run->first += granules;
    run->granules -= granules;
    if (run->granules == 0) free_.erase(run);
    count(granules);
    PENSTOCK_CRASH_POINT("broadcast.allocate.counted");
    return block;
}

void WriterBlocks::give_back(Block block) noexcept {
    count(-std::int64_t{block.granules});
    PENSTOCK_CRASH_POINT("broadcast.give_back.counted");
    const auto behind = std::ranges::upper_bound(free_, block.first, {}, &Block::first);
    auto at = free_.insert(behind, block);
    const auto join = [this](auto run) {
        const auto next = run + 1;
        if (next == free_.end() || end_of(*run) != next->first) return;
        run->granules += next->granules;
        free_.erase(next);
    };
    join(at);
    if (at != free_.begin()) join(at - 1);
}

bool WriterBlocks::recycle(std::uint64_t passed, std::size_t looks) noexcept {
    const std::uint64_t used = used_;
    const auto is_held = [this](Block block) {
        return holders_.is_held(block.first, segment_->participants());
    };
    if (looks >= kept_.size()) turn_ = 0;
    for (looks = std::min(looks, kept_.size()); looks > 0; --looks) {
        turn_ %= kept_.size();
        Block& block = kept_[turn_];
        if (is_held(block)) {
            ++turn_;
            continue;
        }
        give_back(block);
        block = kept_.back();
        kept_.pop_back();
    }
    for (; !sent_.empty() && sent_.front().end <= passed; sent_.pop_front()) {
        const Block block = sent_.front().block;
        if (is_held(block)) {
            kept_.push_back(block);
        } else {
            give_back(block);
        }
    }
    return used_ < used;
}

bool WriterBlocks::trim() noexcept {
    bool is_done = true;
    for (const Block& run : free_) {
        for (Block rest = run; rest.granules > 0;) {
            const Block found = find_stretch(rest, true);
            if (found.granules == 0) break;
            const std::uint64_t at = file_offset(found.first);
            const std::uint64_t bytes = found.granules * kBroadcastGranule;
            // A failed punch may have freed a part: reserve the range again.
            const bool is_there =
                segment_->file().punch(at, bytes) && !segment_->file().reserve(at, bytes);
            std::fill_n(has_memory_.begin() + found.first, found.granules, std::uint8_t{is_there});
            is_done = is_done && !is_there;
            PENSTOCK_CRASH_POINT("broadcast.trim.punched");
            rest = {end_of(found), end_of(run) - end_of(found)};
        }
    }
    return is_done;
}

// Reserves memory for the block's granules that have none.
Status WriterBlocks::reserve(Block block) noexcept {
    for (Block rest = block; rest.granules > 0;) {
        const Block missing = find_stretch(rest, false);
        if (missing.granules == 0) break;
        const std::uint64_t bytes = missing.granules * kBroadcastGranule;
        const auto error = segment_->file().reserve(file_offset(missing.first), bytes);
        if (error) {
            const std::string why = "could not reserve " + std::to_string(bytes) +
                                    " bytes of shared memory: " + error.message();
            if (error != std::errc::no_space_on_device) return {ErrorCode::System, why};
            return {ErrorCode::NoSpace, why + segment_->space_sentence()};
        }
        PENSTOCK_CRASH_POINT("broadcast.allocate.reserved");
        std::fill_n(has_memory_.begin() + missing.first, missing.granules, std::uint8_t{1});
        rest = {end_of(missing), end_of(block) - end_of(missing)};
    }
    return Status::ok();
}

// The first stretch of the run whose granules all have memory, or all have none; empty if there is
// none.
Block WriterBlocks::find_stretch(Block run, bool has_memory) const noexcept {
    const auto begin = has_memory_.begin() + run.first;
    const auto end = begin + run.granules;
    const auto first = std::find(begin, end, std::uint8_t{has_memory});
    const auto last = std::find(first, end, std::uint8_t{!has_memory});
    return {static_cast<std::uint32_t>(first - has_memory_.begin()),
            static_cast<std::uint32_t>(last - first)};
}

std::uint64_t WriterBlocks::file_offset(std::uint32_t granule) const noexcept {
    return segment_->payload_offset() + view_.shape().block_offset(granule);
}

void WriterBlocks::count(std::int64_t granules) noexcept {
    used_ += static_cast<std::uint64_t>(granules);
    store_relaxed(view_.state().held_bytes, used_ * kBroadcastGranule);
}

}  // namespace penstock::detail

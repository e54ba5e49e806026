// A batch: its groups, and their values in the shape that the trainer asked for.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <utility>

#include "segment/words/atomics.hpp"
#include "trajectories/dtypes.hpp"
#include "trajectories/fill.hpp"
#include "trajectories/state.hpp"

namespace penstock {
namespace {

using codec::DType;
using detail::HeldGroup;

const GroupView no_group;

const std::optional<ColumnView>& column_of(const HeldGroup& group, Column column) noexcept {
    return group.group().columns[static_cast<std::size_t>(column)];
}

Status refuse(std::string why) noexcept {
    return {ErrorCode::InvalidArgument, std::move(why)};
}

std::string lacks(const HeldGroup& group, Column column) {
    return group.group().title() + " has no column '" + std::string(name(column)) + "'";
}

// Tokens by which a causal shift shortens a sequence; 0 for an empty one.
std::uint64_t shift_of(const std::vector<std::uint64_t>& offsets, std::size_t sequence,
                       bool is_shifted) noexcept {
    return is_shifted && offsets[sequence + 1] > offsets[sequence] ? 1 : 0;
}

// Writes one column of a batch: calls back for every sequence in order.
class ColumnCopy {
public:
    ColumnCopy(const std::vector<HeldGroup>& groups, Column column, bool is_shifted) noexcept
        : groups_(groups), column_(column), is_shifted_(is_shifted) {}

    // row(count) -> the place for the `count` values of the next sequence
    template <typename Row>
    Status run(DType to, Row&& row) const {
        for (const HeldGroup& group : groups_) {
            const std::optional<ColumnView>& view = column_of(group, column_);
            if (!view) return refuse(lacks(group, column_));
            const detail::CopyValues copy = detail::copy_values(to, view->dtype);
            if (copy == nullptr)
                return refuse(title(group) + " is " + text(view->dtype) + " and can't become " +
                              text(to));
            if (!copy_group(group.group().offsets, *view, copy, row)) {
                return refuse(title(group) + " has a number that does not fit into " + text(to) +
                              "; ask for int64");
            }
        }
        return Status::ok();
    }

private:
    static std::string text(DType dtype) { return std::string(codec::name(dtype)); }
    [[nodiscard]] std::string title(const HeldGroup& group) const {
        return "column '" + std::string(name(column_)) + "' of " + group.group().title();
    }

    template <typename Row>
    bool copy_group(const std::vector<std::uint64_t>& offsets, const ColumnView& view,
                    detail::CopyValues copy, Row& row) const {
        const std::size_t item = codec::item_size(view.dtype);
        // A causal model reads a token and predicts the next one: the first token is never
        // predicted, and the last one is never read.
        for (std::size_t at = 0; at + 1 < offsets.size(); ++at) {
            const std::uint64_t shift = shift_of(offsets, at, is_shifted_);
            const std::uint64_t skip = column_ != Column::Tokens ? shift : 0;
            const std::uint64_t tokens = offsets[at + 1] - offsets[at] - shift;
            const std::byte* const from =
                view.data.data() + (offsets[at] + skip) * view.width * item;
            const std::uint64_t count = tokens * view.width;
            if (!copy(row(count), from, count)) return false;
        }
        return true;
    }

    const std::vector<HeldGroup>& groups_;
    Column column_;
    bool is_shifted_;
};

Status closed() noexcept {
    return Status::closed_here("this batch is over: acknowledged, given back or moved from before");
}

}  // namespace

TrajectoryBatch::TrajectoryBatch(std::vector<HeldGroup> groups, bool is_shifted,
                                 std::shared_ptr<detail::ReaderState> reader)
    : groups_(std::move(groups)), is_shifted_(is_shifted), reader_(std::move(reader)) {
    for (const HeldGroup& group : groups_) {
        const std::vector<std::uint64_t>& offsets = group.group().offsets;
        for (std::size_t at = 0; at + 1 < offsets.size(); ++at) {
            lengths_.push_back(offsets[at + 1] - offsets[at] - shift_of(offsets, at, is_shifted));
            longest_ = std::max(longest_, lengths_.back());
            total_ += lengths_.back();
        }
    }
}

TrajectoryBatch::TrajectoryBatch(TrajectoryBatch&& other) noexcept
    : groups_(std::exchange(other.groups_, {})), lengths_(std::exchange(other.lengths_, {})),
      longest_(std::exchange(other.longest_, 0)), total_(std::exchange(other.total_, 0)),
      is_shifted_(other.is_shifted_), reader_(std::move(other.reader_)) {}

TrajectoryBatch& TrajectoryBatch::operator=(TrajectoryBatch&& other) noexcept {
    if (this != &other) {
        nack();
        groups_ = std::exchange(other.groups_, {});
        lengths_ = std::exchange(other.lengths_, {});
        longest_ = std::exchange(other.longest_, 0);
        total_ = std::exchange(other.total_, 0);
        is_shifted_ = other.is_shifted_;
        reader_ = std::move(other.reader_);
    }
    return *this;
}

TrajectoryBatch::~TrajectoryBatch() {
    nack();
}

std::size_t TrajectoryBatch::groups() const noexcept {
    return groups_.size();
}

const GroupView& TrajectoryBatch::group(std::size_t index) const noexcept {
    return index < groups_.size() ? groups_[index].group() : no_group;
}

std::span<const std::byte> TrajectoryBatch::message(std::size_t index) const noexcept {
    return index < groups_.size() ? groups_[index].bytes() : std::span<const std::byte>{};
}

unsigned TrajectoryBatch::deliveries(std::size_t index) const noexcept {
    return index < groups_.size() ? groups_[index].deliveries() : 0;
}

std::uint64_t TrajectoryBatch::sequence(std::size_t index) const noexcept {
    return index < groups_.size() ? groups_[index].sequence() : 0;
}

bool TrajectoryBatch::is_restored(std::size_t index) const noexcept {
    return index < groups_.size() && groups_[index].is_restored();
}

bool TrajectoryBatch::has(Column column) const noexcept {
    return std::ranges::all_of(
        groups_, [&](const HeldGroup& group) { return column_of(group, column).has_value(); });
}

bool TrajectoryBatch::is_used(Column column) const noexcept {
    return std::ranges::any_of(
        groups_, [&](const HeldGroup& group) { return column_of(group, column).has_value(); });
}

Result<DType> TrajectoryBatch::dtype(Column column) const {
    if (!is_open()) return closed();
    std::optional<DType> found;
    for (const HeldGroup& group : groups_) {
        const auto& view = column_of(group, column);
        if (!view) return refuse(lacks(group, column));
        found = found ? widest(*found, view->dtype) : view->dtype;
    }
    return found.value_or(DType::Int32);
}

Result<std::uint64_t> TrajectoryBatch::width(Column column) const {
    if (!is_open()) return closed();
    std::optional<std::uint64_t> found;
    for (const HeldGroup& group : groups_) {
        const auto& view = column_of(group, column);
        if (!view) return refuse(lacks(group, column));
        const std::uint64_t width = view->width;
        if (width == 0) {
            return refuse("column '" + std::string(name(column)) + "' of " + group.group().title() +
                          " has another number of values for each token; read it from its group");
        }
        if (found.value_or(width) != width) {
            return refuse("column '" + std::string(name(column)) + "' has " +
                          std::to_string(*found) + " values for a token in one group and " +
                          std::to_string(width) + " in " + group.group().title());
        }
        found = width;
    }
    return found.value_or(1);
}

namespace {

// The number of values for a token that most groups have; 0: no group has the column.
std::uint64_t common_width(const std::vector<HeldGroup>& groups, Column column) {
    std::map<std::uint64_t, std::size_t> counts;
    for (const HeldGroup& group : groups) {
        const auto& view = column_of(group, column);
        if (view && view->width != 0) ++counts[view->width];
    }
    const auto common = std::ranges::max_element(
        counts, {}, [](const auto& width_and_count) { return width_and_count.second; });
    return common == counts.end() ? 0 : common->first;
}

bool can_become(const ColumnView& view, DType to) {
    const detail::CopyValues copy = detail::copy_values(to, view.dtype);
    if (copy == nullptr) return false;
    constexpr std::size_t kStep = 4096;
    std::array<std::byte, kStep * sizeof(std::uint64_t)> scratch;
    const std::size_t item = codec::item_size(view.dtype);
    const std::size_t count = view.data.size() / item;
    for (std::size_t at = 0; at < count; at += kStep) {
        const std::size_t step = std::min(kStep, count - at);
        if (!copy(scratch.data(), view.data.data() + at * item, step)) return false;
    }
    return true;
}

}  // namespace

std::vector<std::size_t> TrajectoryBatch::unfit(Column column, std::optional<DType> to) const {
    const std::uint64_t width = common_width(groups_, column);
    std::vector<std::size_t> found;
    for (std::size_t at = 0; at < groups_.size(); ++at) {
        const auto& view = column_of(groups_[at], column);
        if (!view || view->width != width || (to && !can_become(*view, *to))) found.push_back(at);
    }
    return found;
}

Status TrajectoryBatch::fill_padded(Column column, const OutputArray& out, double pad) const {
    const Result<std::uint64_t> values = width(column);
    if (!values) return values.status();
    const std::uint64_t needed = longest_ * *values;
    if (out.row_items < needed || out.total_items < lengths_.size() * out.row_items) {
        return {ErrorCode::TooLarge, "the array for column '" + std::string(name(column)) +
                                         "' has no room for " + std::to_string(lengths_.size()) +
                                         " rows of " + std::to_string(needed) + " values"};
    }
    const detail::FillValues fill = detail::fill_values(out.dtype);
    const std::size_t item = codec::item_size(out.dtype);
    const bool needs_padding = std::ranges::any_of(
        lengths_, [&](std::uint64_t length) { return length * *values < out.row_items; });
    if (fill == nullptr && needs_padding) {
        return refuse("column '" + std::string(name(column)) + "' can't be padded as " +
                      std::string(codec::name(out.dtype)) + "; ask for float32");
    }
    std::byte* row = out.data;
    Status copied =
        ColumnCopy(groups_, column, is_shifted_).run(out.dtype, [&](std::uint64_t count) {
            std::byte* const place = row;
            if (count < out.row_items) fill(place + count * item, out.row_items - count, pad);
            row += out.row_bytes;
            return place;
        });
    return copied ? check_held() : std::move(copied);
}

Status TrajectoryBatch::fill_packed(Column column, const OutputArray& out) const {
    const Result<std::uint64_t> values = width(column);
    if (!values) return values.status();
    if (out.total_items < total_ * *values) {
        return {ErrorCode::TooLarge, "the array for column '" + std::string(name(column)) +
                                         "' has no room for " + std::to_string(total_ * *values) +
                                         " values"};
    }
    const std::size_t item = codec::item_size(out.dtype);
    std::byte* to = out.data;
    Status copied =
        ColumnCopy(groups_, column, is_shifted_).run(out.dtype, [&](std::uint64_t count) {
            return std::exchange(to, to + count * item);
        });
    return copied ? check_held() : std::move(copied);
}

// To be called after a copy: what was read before it was this batch's.
Status TrajectoryBatch::check_held() const noexcept {
    if (reader_ == nullptr || !reader_->is_foreign()) return Status::ok();
    return reader_->core->segment->why_foreign();
}

void TrajectoryBatch::fill_padding_mask(std::byte* out, std::uint64_t row_items) const noexcept {
    for (const std::uint64_t length : lengths_) {
        std::memset(out, 1, length);
        std::memset(out + length, 0, row_items - length);
        out += row_items;
    }
}

void TrajectoryBatch::fill_positions(std::span<std::int64_t> out) const noexcept {
    std::int64_t* to = out.data();
    for (const std::uint64_t length : lengths_) {
        for (std::uint64_t at = 0; at < length; ++at) *to++ = static_cast<std::int64_t>(at);
    }
}

void TrajectoryBatch::fill_cu_seqlens(std::span<std::int32_t> out) const noexcept {
    std::uint64_t sum = 0;
    out[0] = 0;
    for (std::size_t at = 0; at < lengths_.size(); ++at) {
        sum += lengths_[at];
        out[at + 1] = static_cast<std::int32_t>(sum);
    }
}

void TrajectoryBatch::fill_group_index(std::span<std::int64_t> out) const noexcept {
    std::int64_t* to = out.data();
    for (std::size_t at = 0; at < groups_.size(); ++at) {
        to = std::fill_n(to, groups_[at].group().sequences(), static_cast<std::int64_t>(at));
    }
}

Status TrajectoryBatch::fill_scores(std::span<double> out) const noexcept {
    if (!is_open()) return closed();
    auto* to = reinterpret_cast<std::byte*>(out.data());
    for (const HeldGroup& group : groups_) {
        const auto& scores = group.group().scores;
        if (!scores) return refuse(group.group().title() + " has no scores");
        const std::size_t count = group.group().sequences();
        if (is_real(scores->dtype)) {
            detail::copy_values(DType::Float64, scores->dtype)(to, scores->data.data(), count);
        } else {
            std::vector<std::int64_t> whole(count);
            detail::copy_values(DType::Int64, scores->dtype)(
                reinterpret_cast<std::byte*>(whole.data()), scores->data.data(), count);
            for (std::size_t at = 0; at < count; ++at) {
                const auto score = static_cast<double>(whole[at]);
                std::memcpy(to + at * sizeof(double), &score, sizeof score);
            }
        }
        to += count * sizeof(double);
    }
    return check_held();
}

void TrajectoryBatch::fill_versions(std::span<std::int64_t> out) const noexcept {
    std::int64_t* to = out.data();
    for (const HeldGroup& group : groups_) {
        const auto& versions = group.group().versions;
        const std::size_t count = group.group().sequences();
        if (versions) {
            detail::copy_values(DType::Int64, versions->dtype)(reinterpret_cast<std::byte*>(to),
                                                               versions->data.data(), count);
        } else {
            std::fill_n(to, count, static_cast<std::int64_t>(group.group().begun));
        }
        to += count;
    }
}

// Raises the version first: rollouts begun with the returned credit begin with the new version.
void TrajectoryBatch::ack(std::uint64_t step) noexcept {
    if (!is_open() || reader_->is_foreign()) return;
    layout::BoardState& board = reader_->board.state();
    reader_->board.raise_version(step);
    PENSTOCK_CRASH_POINT("trajectories.ack.version");
    for (HeldGroup& group : groups_) {
        group.ack();
        PENSTOCK_CRASH_POINT("trajectories.ack.group");
    }
    detail::fetch_add_relaxed(board.batches, 1);
    detail::fetch_add_relaxed(board.groups, groups_.size());
    detail::fetch_add_relaxed(board.sequences, lengths_.size());
    reader_->board.credit_signal().notify();
    forget();
}

void TrajectoryBatch::nack() noexcept {
    if (!is_open()) return;
    keep_restored();
    const auto reader = reader_;
    forget();  // the deliveries nack themselves
    // A group that became a dead letter is no longer work in progress: credit may be free.
    if (reader != nullptr && !reader->is_foreign()) reader->board.credit_signal().notify();
}

void TrajectoryBatch::untake() noexcept {
    if (!is_open()) return;
    keep_restored();
    for (HeldGroup& group : groups_) group.untake();
    forget();
}

void TrajectoryBatch::dead_letter(std::size_t index) noexcept {
    if (!is_open() || index >= groups_.size()) return;
    if (reader_->is_foreign()) return untake();  // this process owns nothing in the queue
    groups_[index].dead_letter();
    detail::fetch_add_relaxed(reader_->board.state().dead_lettered, 1);
    const auto reader = reader_;
    untake();
    reader->board.credit_signal().notify();  // it is no longer work in progress
}

// Restored groups have no slot in the queue: they go back to the reader.
void TrajectoryBatch::keep_restored() noexcept {
    if (reader_ == nullptr) return;
    for (HeldGroup& group : groups_) {
        if (group.is_restored()) reader_->hold(std::move(group));
    }
}

void TrajectoryBatch::forget() noexcept {
    groups_.clear();
    reader_.reset();
}

}  // namespace penstock

// Any bytes as a group of trajectories: the decoder must survive them, and a batch must be able to
// copy every column of an accepted group without leaving the message.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "penstock/trajectories.hpp"
#include "trajectories/state.hpp"

namespace penstock {
namespace {

void fill_everything(const TrajectoryBatch& batch) {
    for (std::size_t at = 0; at < kColumns; ++at) {
        const auto column = static_cast<Column>(at);
        if (!batch.has(column)) continue;
        const auto dtype = batch.dtype(column);
        const auto width = batch.width(column);
        if (!dtype || !width) continue;
        const std::uint64_t row = batch.longest() * *width + 3;
        const std::uint64_t items = batch.lengths().size() * row;
        constexpr std::uint64_t kMax = 1 << 20U;
        if (items > kMax) continue;
        std::vector<std::byte> out(items * codec::item_size(*dtype));
        const std::uint64_t row_bytes = row * codec::item_size(*dtype);
        (void)batch.fill_padded(column, {*dtype, out.data(), row_bytes, row, items}, 1).is_ok();
        (void)batch.fill_packed(column, {*dtype, out.data(), 0, 0, items}).is_ok();
    }
    std::vector<double> scores(batch.lengths().size());
    (void)batch.fill_scores(scores).is_ok();
    std::vector<std::int64_t> versions(batch.lengths().size());
    batch.fill_versions(versions);
}

void try_bytes(std::span<const std::byte> bytes) {
    std::vector<std::byte> message(bytes.begin(), bytes.end());
    Result<GroupView> group = read_group(message);
    if (!group) return;
    if (group->offsets.size() < 2 || !group->columns[0]) std::abort();
    for (const bool is_shifted : {false, true}) {
        std::vector<std::byte> copy(message);
        Result<GroupView> again = read_group(copy);
        if (!again) std::abort();
        std::vector<detail::HeldGroup> groups;
        groups.emplace_back(std::move(copy), *std::move(again), 0);
        TrajectoryBatch batch(std::move(groups), is_shifted, nullptr);
        fill_everything(batch);
    }
}

}  // namespace
}  // namespace penstock

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    penstock::try_bytes(std::as_bytes(std::span(data, size)));
    return 0;
}

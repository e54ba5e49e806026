// Cold path of a Store's control block: geometry, checks and statistics.
#include "store/control.hpp"

#include <algorithm>
#include <bit>
#include <string>

#include "segment/words/atomics.hpp"

namespace penstock {

std::string_view to_string(Eviction eviction) noexcept {
    switch (eviction) {
        case Eviction::Sieve:
            return "sieve";
        case Eviction::Fifo:
            return "fifo";
        case Eviction::Lru:
            return "lru";
        case Eviction::None:
            return "none";
    }
    return "unknown";
}

}  // namespace penstock

namespace penstock::detail {
namespace {

using layout::EntryState;
constexpr std::uint64_t kMinGranule = 64;
constexpr std::uint64_t kMaxGranule = std::uint64_t{2} << 20U;
constexpr std::uint64_t kMaxAlignment = std::uint64_t{2} << 20U;
constexpr std::uint64_t kChunk = std::uint64_t{64} << 10U;
constexpr std::uint64_t kMaxGranules = (std::uint64_t{1} << 28U) - 1;
constexpr std::uint64_t kMinObjects = 1024;
// Default: one object for this many bytes, up to the largest possible index; the entries then take
// 2 % of the capacity.
constexpr std::uint64_t kBytesForEach = std::uint64_t{16} << 10U;

[[noreturn]] void refuse(const std::string& why) {
    throw Error(ErrorCode::InvalidArgument, "can't create the store: " + why);
}

std::uint64_t default_objects(std::uint64_t capacity) noexcept {
    return std::clamp(capacity / kBytesForEach, kMinObjects, layout::kMaxBuckets);
}

std::uint64_t default_granule(std::uint64_t capacity) noexcept {
    constexpr std::uint64_t kSmall = std::uint64_t{16} << 20U;
    constexpr std::uint64_t kGranules = std::uint64_t{1} << 22U;
    if (capacity <= kSmall) return kMinGranule;
    return std::max<std::uint64_t>(512, std::bit_ceil(capacity / kGranules));
}

}  // namespace

std::uint64_t StoreShape::entry_bytes() const noexcept {
    return layout::round_up(
        sizeof(layout::StoreEntry) + (holder_words() - 1) * sizeof(std::uint64_t), layout::kApart);
}

std::uint64_t StoreShape::operations_offset() const noexcept {
    return sizeof(layout::StoreControl) + participants * sizeof(layout::StoreParticipant);
}

std::uint64_t StoreShape::buckets_offset() const noexcept {
    return operations_offset() + participants * sizeof(layout::WordOperation);
}

std::uint64_t StoreShape::entries_offset() const noexcept {
    return layout::round_up(buckets_offset() + buckets * sizeof(layout::IndexBucket),
                            layout::kApart);
}

std::uint64_t StoreShape::heap_offset() const noexcept {
    return entries_offset() + entries() * entry_bytes();
}

std::uint64_t StoreShape::control_bytes() const noexcept {
    return heap_offset() + heap.control_bytes();
}

SegmentPlan plan_of(const StoreShape& shape) {
    SegmentPlan plan;
    plan.kind = Kind::Store;
    plan.geometry[layout::kStoreGranuleBytes] = shape.heap.granule_bytes;
    plan.geometry[layout::kStoreGranules] = shape.heap.granules;
    plan.geometry[layout::kStoreBuckets] = shape.buckets;
    plan.geometry[layout::kStoreParticipants] = shape.participants;
    plan.geometry[layout::kStoreEviction] = static_cast<std::uint64_t>(shape.eviction);
    plan.geometry[layout::kStorePersistent] = shape.persistent ? 1 : 0;
    plan.slots = shape.participants;
    plan.control_bytes = shape.control_bytes();
    plan.payload_bytes = shape.heap.bytes();
    plan.payload_alignment = kMaxAlignment;
    plan.geometry[layout::kStoreReserved] = shape.is_reserved ? 1 : 0;
    plan.payload_reserved = shape.is_reserved ? plan.payload_bytes : 0;
    return plan;
}

StoreShape store_shape_of(const StoreOptions& options) {
    if (options.capacity == 0 || options.capacity > layout::kMaxStoreBytes) {
        refuse("capacity must be 1 byte to 4 TiB, not " + std::to_string(options.capacity));
    }
    if (options.participants < 1 || options.participants > layout::kMaxStoreParticipants) {
        refuse("participants must be 1 to " + std::to_string(layout::kMaxStoreParticipants) +
               ", not " + std::to_string(options.participants));
    }
    const std::uint64_t granule =
        options.granule == 0 ? default_granule(options.capacity) : options.granule;
    if (!std::has_single_bit(granule) || granule < kMinGranule || granule > kMaxGranule) {
        refuse("granule must be a power of two from 64 bytes to 2 MiB, not " +
               std::to_string(granule));
    }
    StoreShape shape;
    shape.heap.granule_bytes = granule;
    const std::uint64_t granules =
        layout::round_up(options.capacity, std::max(granule, kChunk)) / granule;
    if (granules > kMaxGranules) {
        refuse("a capacity of " + std::to_string(options.capacity) + " in granules of " +
               std::to_string(granule) + " bytes has too many; ask for larger ones");
    }
    shape.heap.granules = static_cast<std::uint32_t>(granules);
    const std::uint64_t objects =
        options.objects != 0 ? options.objects : default_objects(options.capacity);
    // Two entries per object: a key has 32 possible entries, which then are hardly ever all in use.
    const std::uint64_t buckets =
        std::bit_ceil(std::max<std::uint64_t>(objects * 2 / layout::kWays, layout::kProbes));
    if (objects > layout::kMaxBuckets || buckets > layout::kMaxBuckets) {
        refuse("objects must be at most " + std::to_string(layout::kMaxBuckets) + ", not " +
               std::to_string(objects));
    }
    shape.buckets = static_cast<std::uint32_t>(buckets);
    shape.participants = options.participants;
    shape.eviction = options.eviction;
    shape.persistent = options.persistent;
    // Only reserved memory can be faulted in, or locked.
    const MemoryOptions& memory = options.memory;
    shape.is_reserved = memory.populate || memory.lock_memory || memory.huge_pages;
    return shape;
}

StoreShape store_shape_of(const layout::SegmentHeader& header) {
    const auto& geometry = header.geometry;
    const std::uint64_t granule = geometry[layout::kStoreGranuleBytes];
    const std::uint64_t granules = geometry[layout::kStoreGranules];
    const std::uint64_t buckets = geometry[layout::kStoreBuckets];
    const std::uint64_t participants = geometry[layout::kStoreParticipants];
    const bool is_plausible =
        std::has_single_bit(granule) && granule >= kMinGranule && granule <= kMaxGranule &&
        granules >= 1 && granules <= kMaxGranules && granules * granule % kChunk == 0 &&
        std::has_single_bit(buckets) && buckets >= layout::kProbes &&
        buckets <= layout::kMaxBuckets && participants >= 1 &&
        participants <= layout::kMaxStoreParticipants && header.slot_count == participants &&
        geometry[layout::kStoreEviction] <= static_cast<std::uint64_t>(Eviction::None) &&
        geometry[layout::kStorePersistent] <= 1 && geometry[layout::kStoreReserved] <= 1;
    StoreShape shape;
    if (is_plausible) {
        shape.heap.granule_bytes = granule;
        shape.heap.granules = static_cast<std::uint32_t>(granules);
        shape.buckets = static_cast<std::uint32_t>(buckets);
        shape.participants = static_cast<unsigned>(participants);
        shape.eviction = static_cast<Eviction>(geometry[layout::kStoreEviction]);
        shape.persistent = geometry[layout::kStorePersistent] != 0;
        shape.is_reserved = geometry[layout::kStoreReserved] != 0;
    }
    if (!is_plausible || header.control_size != shape.control_bytes() ||
        header.payload_size != shape.heap.bytes()) {
        throw Error(ErrorCode::Corrupt,
                    "the store is damaged: its geometry does not fit its segment");
    }
    return shape;
}

bool is_held(const StoreView& view, std::uint32_t entry) noexcept {
    const auto* holders = view.entry(entry).holders;
    for (unsigned word = 0; word < view.shape().holder_words(); ++word) {
        if (load_seq_cst(holders[word]) != 0) return true;
    }
    return false;
}

namespace {

void add_participant(StoreStats& stats, const layout::StoreParticipant& participant) {
    stats.hits += load_relaxed(participant.hits);
    stats.misses += load_relaxed(participant.misses);
    stats.committed += load_relaxed(participant.committed);
    stats.committed_bytes += load_relaxed(participant.committed_bytes);
    stats.evicted += load_relaxed(participant.evicted);
    stats.evicted_bytes += load_relaxed(participant.evicted_bytes);
    stats.deleted += load_relaxed(participant.deleted);
    stats.aborted += load_relaxed(participant.aborted);
    stats.expired += load_relaxed(participant.expired);
    stats.refused += load_relaxed(participant.refused);
}

void add_entry(StoreStats& stats, const StoreView& view, const MultiWord& words, const Heap& heap,
               std::uint32_t number) {
    const layout::StoreEntry& entry = view.entry(number);
    const EntryState state = layout::decode_entry(words.peek(entry.word)).state;
    if (state == EntryState::Free) return;
    const std::uint64_t taken =
        heap.bytes_of(heap.block_peeked(payload_of(words.peek(entry.block))));
    const auto header = layout::decode_header(load_relaxed(entry.header));
    const std::uint64_t own =
        std::min(taken, header.key_bytes + header.meta_bytes + load_relaxed(entry.nbytes));
    stats.padding_bytes += taken - own;
    switch (state) {
        case EntryState::Resident:
        case EntryState::Evicting:
            ++stats.objects;
            stats.object_bytes += own;
            if (is_held(view, number)) ++stats.in_use;
            if (decode_favour(load_relaxed(entry.favour)).retained > 0) ++stats.retained;
            return;
        case EntryState::Doomed:
            ++stats.doomed;
            stats.doomed_bytes += own;
            return;
        case EntryState::Freeing:
            stats.other_bytes += own;
            return;
        default:
            ++stats.staged;
            stats.staged_bytes += own;
    }
}

}  // namespace

StoreStats read_store_stats(const StoreView& view, const MultiWord& words, const Heap& heap) {
    StoreStats stats;
    const StoreShape& shape = view.shape();
    for (unsigned place = 0; place < shape.participants; ++place)
        add_participant(stats, view.participant(place));
    for (std::uint32_t entry = 0; entry < shape.entries(); ++entry) {
        add_entry(stats, view, words, heap, entry);
    }
    const HeapUse use = heap.use();
    stats.capacity = shape.heap.bytes();
    stats.used_bytes = use.used_bytes;
    stats.free_bytes = use.free_bytes;
    stats.largest_free = use.largest_free;
    // Blocks that are being trimmed belong to no entry.
    const std::uint64_t named = stats.object_bytes + stats.staged_bytes + stats.doomed_bytes +
                                stats.padding_bytes + stats.other_bytes;
    if (use.used_bytes > named) stats.other_bytes += use.used_bytes - named;
    stats.most_objects = shape.entries() / 2;
    stats.eviction = shape.eviction;
    return stats;
}

}  // namespace penstock::detail

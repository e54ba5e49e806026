// Every change of the tiling is planned from the words, and made by one multi-word change. A plan
// that fails because of a concurrent change is made again: the other change has made progress.
#include "segment/memory/heap.hpp"

#include <algorithm>
#include <utility>

#include "os/crash_point.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

constexpr std::uint32_t kRegion = 64;  // granules; 512 bytes of words
constexpr std::uint64_t kMinChunk = std::uint64_t{64} << 10U;
// Most granules that a participant withholds if it is stopped while giving memory back; in a small
// heap a part of the heap.
constexpr std::uint64_t kTrimAtOnce = std::uint64_t{1} << 20U;
constexpr std::uint64_t kTrimPart = 16;
// Attempts before the words count as damaged: each failed one means that another participant made
// progress.
constexpr unsigned kMaxAttempts = 1'000'000;

constexpr std::uint64_t words_of_bits(std::uint64_t bits) noexcept {
    return (bits + 63) / 64;
}

}  // namespace

std::uint64_t HeapGeometry::chunk_bytes() const noexcept {
    return std::max(granule_bytes, kMinChunk);
}

std::uint32_t HeapGeometry::chunks() const noexcept {
    return static_cast<std::uint32_t>(bytes() / chunk_bytes());
}

std::uint32_t HeapGeometry::regions() const noexcept {
    return (granules + kRegion - 1) / kRegion;
}

std::uint64_t HeapGeometry::control_bytes() const noexcept {
    const std::uint64_t words =
        std::uint64_t{granules} + FreeMap::words_for(regions()) + words_of_bits(chunks());
    return layout::round_up(words * sizeof(Word), layout::kApart);
}

// For more bytes than the heap has: one granule more than it has.
std::uint32_t HeapGeometry::granules_for(std::uint64_t wanted) const noexcept {
    if (wanted > bytes()) return granules + 1;
    return static_cast<std::uint32_t>((std::max<std::uint64_t>(wanted, 1) + granule_bytes - 1) /
                                      granule_bytes);
}

Heap::Heap(const HeapGeometry& geometry, std::byte* control, MultiWord& words, os::SharedFile& file,
           std::uint64_t file_offset) noexcept
    : geometry_(geometry), granules_(reinterpret_cast<Word*>(control)),
      reserved_(granules_ + geometry.granules + FreeMap::words_for(geometry.regions())),
      map_(granules_ + geometry.granules, geometry.regions()), words_(&words), file_(&file),
      file_offset_(file_offset) {}

void Heap::prepare(bool is_reserved) noexcept {
    const Piece all{State::Free, 0, geometry_.granules, 0, 0};
    store_relaxed(granules_[0], encode(all));
    if (all.length > 1) {
        store_relaxed(granules_[all.length - 1], encode({State::Tail, 0, all.length, 0, 0}));
    }
    hint(all);
    for (std::uint32_t chunk = 0; is_reserved && chunk < geometry_.chunks(); ++chunk) {
        fetch_or_relaxed(reserved_[chunk / 64], std::uint64_t{1} << (chunk % 64));
    }
}

// ---- pieces of the tiling

bool Heap::fits_heap(const Piece& piece) const noexcept {
    return piece.length > 0 && piece.length <= geometry_.granules - piece.first;
}

HeapBlock Heap::block_named(std::uint64_t payload) const noexcept {
    if (payload == 0 || payload > geometry_.granules) return {};
    return block_in(piece_at(static_cast<std::uint32_t>(payload - 1)));
}

HeapBlock Heap::block_peeked(std::uint64_t payload) const noexcept {
    if (payload == 0 || payload > geometry_.granules) return {};
    const auto granule = static_cast<std::uint32_t>(payload - 1);
    return block_in(decode(words_->peek(granules_[granule]), granule));
}

HeapBlock Heap::block_in(const Piece& piece) const noexcept {
    if (piece.state != State::Used || !fits_heap(piece)) return {};
    return {piece.first, piece.length};
}

// For a granule inside a piece that is part of the plan already.
void Heap::set(WordPlan& plan, std::uint32_t granule, std::uint64_t payload) const noexcept {
    plan.set(granules_[granule], words_->read(granules_[granule]), payload);
}

// The plan holds only if the piece's word does not change meanwhile.
void Heap::keep(WordPlan& plan, const Piece& piece) const noexcept {
    plan.set(granules_[piece.first], piece.seen, payload_of(piece.seen));
}

// A piece's last word needs no check of its own: it changes only together with the first.
void Heap::erase(WordPlan& plan, const Piece& piece) const noexcept {
    plan.set(granules_[piece.first], piece.seen, 0);
    if (piece.state == State::Free && piece.length > 1) {
        set(plan, piece.first + piece.length - 1, 0);
    }
}

void Heap::lay(WordPlan& plan, const Piece& piece) const noexcept {
    if (piece.length == 0) return;
    set(plan, piece.first, encode(piece));
    if (piece.state == State::Free && piece.length > 1) {
        set(plan, piece.first + piece.length - 1, encode({State::Tail, 0, piece.length, 0, 0}));
    }
}

void Heap::hint(const Piece& piece) noexcept {
    if (piece.length > 0) map_.raise(piece.first / kRegion, class_of_length(piece.length));
}

void Heap::restore_hint(std::uint32_t region) noexcept {
    SizeClass largest = 0;
    scan(region, kEverything, largest);
    map_.raise(region, largest);
    map_.restore_above(region);
}

// Writes the hints that stopped or dead participants have noted and not written. The caller must
// then look at the map again, even if there was no note: a note that is gone has left its hint
// there.
// pairs with: ~Note(), by way of note_of()
void Heap::restore_noted() noexcept {
    for (unsigned participant = 0; participant < words_->participants(); ++participant)
        restore_noted(participant);
}

void Heap::restore_noted(unsigned participant) noexcept {
    const std::uint64_t note = words_->note_of(participant);
    if (note == 0 || note > geometry_.regions()) return;
    restore_hint(static_cast<std::uint32_t>(note - 1));
}

// ---- taking

Heap::Wanted Heap::wanted(const HeapRequest& request) const noexcept {
    Wanted wanted;
    wanted.length = geometry_.granules_for(request.bytes);
    if (request.alignment > geometry_.granule_bytes) {
        // Mappings begin at addresses with the alignment of their offsets in the file.
        wanted.step = static_cast<std::uint32_t>(request.alignment / geometry_.granule_bytes);
        wanted.phase = static_cast<std::uint32_t>((file_offset_ + request.lead) /
                                                  geometry_.granule_bytes % wanted.step);
    }
    return wanted;
}

// Granules to leave free at the start of the piece; kNowhere: the request does not fit.
std::uint32_t Heap::lead(const Piece& piece, const Wanted& wanted) noexcept {
    const std::uint32_t past = (piece.first + wanted.phase) % wanted.step;
    const std::uint32_t lead = past == 0 ? 0 : wanted.step - past;
    return lead <= piece.length && wanted.length <= piece.length - lead ? lead : kNowhere;
}

// The first free piece of the region that fits, and the class of the region's largest.
Heap::Piece Heap::scan(std::uint32_t region, const Wanted& wanted,
                       SizeClass& largest) const noexcept {
    const std::uint32_t begin = region * kRegion;
    const std::uint32_t end = std::min(begin + kRegion, geometry_.granules);
    largest = 0;
    for (std::uint32_t at = begin; at < end; ++at) {
        const Piece piece = piece_at(at);
        if (piece.state != State::Free || !fits_heap(piece)) continue;
        if (lead(piece, wanted) != kNowhere) return piece;
        largest = std::max(largest, class_of_length(piece.length));
    }
    return {};
}

// Lowers the map's byte from `said` to `largest`, then looks at the region once more: a block freed
// in between may have found the byte high enough and not raised it.
void Heap::correct(std::uint32_t region, SizeClass said, SizeClass largest) noexcept {
    if (largest >= said) return;
    const MultiWord::Note note(*words_, region + 1);
    map_.lower(region, said, largest);
    SizeClass since = 0;
    scan(region, kEverything, since);
    if (since > largest) map_.raise(region, since);
}

Heap::Piece Heap::search(const Wanted& wanted, SizeClass size) noexcept {
    for (std::uint32_t region = map_.find(0, size); region != FreeMap::kNowhere;
         region = map_.find(region + 1, size)) {
        const SizeClass said = map_.at(region);
        SizeClass largest = 0;
        const Piece piece = scan(region, wanted, largest);
        if (piece.length > 0) return piece;
        correct(region, said, largest);
    }
    return {};
}

// Searches regions whose class certainly suffices, then those whose class may suffice.
Heap::Piece Heap::find(const Wanted& wanted) noexcept {
    const SizeClass certain = class_that_holds(std::uint64_t{wanted.length} + wanted.step - 1);
    if (const Piece piece = search(wanted, certain); piece.length > 0) return piece;
    const SizeClass possible = class_of_length(wanted.length);
    return possible < certain ? search(wanted, possible) : Piece{};
}

// Makes [lead free][taken][rest free] of the free piece. NoRun: the piece is gone, or one of the
// plan's words has changed.
Heap::Fit Heap::carve(const Piece& piece, std::uint32_t lead, std::uint32_t length, unsigned owner,
                      WordPlan plan) noexcept {
    const Piece before{State::Free, piece.first, lead, 0, 0};
    const Piece taken{State::Used, piece.first + lead, length, owner, 0};
    const Piece rest{State::Free, taken.first + length, piece.length - lead - length, 0, 0};
    erase(plan, piece);
    lay(plan, before);
    lay(plan, taken);
    lay(plan, rest);
    if (plan.is_broken()) return Fit::Damaged;
    // The free rest in front starts where the piece did, where the map's byte is high enough
    // already.
    const MultiWord::Note note(*words_, rest.length > 0 ? rest.first / kRegion + 1 : 0);
    if (!words_->change(plan)) return Fit::NoRun;
    PENSTOCK_CRASH_POINT("heap.carve.carved");
    hint(before);
    hint(rest);
    return Fit::Found;
}

Heap::Outcome Heap::allocate(const HeapRequest& request, Word& name, std::uint64_t seen) noexcept {
    const Wanted asked = wanted(request);
    bool has_restored = false;
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const Piece piece = find(asked);
        if (piece.length == 0) {
            if (has_restored) return {Fit::NoRun, {}, {}};
            PENSTOCK_CRASH_POINT("heap.allocate.missed");
            restore_noted();
            has_restored = true;
            continue;  // even without notes: a hint may have come between the two looks
        }
        const std::uint32_t lead_in = lead(piece, asked);
        if (lead_in == kNowhere) return {Fit::Damaged, {}, {}};
        const HeapBlock block{piece.first + lead_in, asked.length};
        WordPlan plan;
        plan.set(name, seen, name_of(block));
        const Fit fit = carve(piece, lead_in, asked.length, kNamed, plan);
        if (fit == Fit::Damaged) return {Fit::Damaged, {}, {}};
        if (fit != Fit::Found) {
            const std::uint64_t now = words_->read(name);
            if (payload_of(now) != payload_of(seen)) return {Fit::NameGone, {}, {}};
            seen = now;
            continue;
        }
        if (const std::error_code error = reserve(block)) {
            // Once named, the block may have been freed and reused by other participants.
            const std::uint64_t now = words_->read(name);
            if (payload_of(now) != name_of(block)) return {Fit::NameGone, {}, {}};
            WordPlan also;
            also.set(name, now, 0);
            if (!free(block, also)) return {Fit::NameGone, {}, {}};
            return {Fit::NoMemory, {}, error};
        }
        return {Fit::Found, block, {}};
    }
    return {Fit::Damaged, {}, {}};
}

// ---- giving back

// Joins the piece before `granule` to `joined` if it is free. If it is used, the plan requires that
// it stays used: two neighbours freed at the same moment would otherwise become adjacent free
// blocks. False: it is changing or damaged, and the plan records what was seen.
bool Heap::join_before(WordPlan& plan, std::uint32_t granule, Piece& joined) const noexcept {
    if (granule == 0) return true;
    const Piece last = piece_at(granule - 1);
    if (last.state == State::Used || last.state == State::Inside ||
        last.seen == MultiWord::kBroken) {
        keep(plan, last);
        return true;
    }
    const bool is_tail = last.state == State::Tail && last.length <= granule;
    const Piece first = is_tail ? piece_at(granule - last.length) : last;
    if (first.state != State::Free || first.first + first.length != granule) {
        keep(plan, last);
        keep(plan, first);
        return false;
    }
    erase(plan, first);
    joined.first = first.first;
    joined.length += first.length;
    return true;
}

// The same for the piece that begins at `granule`.
bool Heap::join_behind(WordPlan& plan, std::uint32_t granule, Piece& joined) const noexcept {
    if (granule == geometry_.granules) return true;
    const Piece next = piece_at(granule);
    if (next.state == State::Used || next.seen == MultiWord::kBroken) {
        keep(plan, next);
        return true;
    }
    if (next.state != State::Free || !fits_heap(next)) {
        keep(plan, next);
        return false;
    }
    erase(plan, next);
    joined.length += next.length;
    return true;
}

// One attempt, with a plan that already has other changes. Damaged: the words there are not this
// block.
Heap::Fit Heap::release(HeapBlock block, WordPlan& plan) noexcept {
    const Piece used = piece_at(block.first);
    if (used.state != State::Used || used.length != block.length) return Fit::Damaged;
    Piece joined{State::Free, block.first, block.length, 0, 0};
    erase(plan, used);
    if (!join_before(plan, block.first, joined)) return Fit::NoRun;
    if (!join_behind(plan, block.first + block.length, joined)) return Fit::NoRun;
    lay(plan, joined);
    if (plan.is_broken()) return Fit::Damaged;
    const MultiWord::Note note(*words_, joined.first / kRegion + 1);
    if (!words_->change(plan)) return Fit::NoRun;
    PENSTOCK_CRASH_POINT("heap.free.freed");
    hint(joined);
    return Fit::Found;
}

bool Heap::free(HeapBlock block, WordPlan also) noexcept {
    WordPlan last;
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        WordPlan plan = also;
        const Fit fit = release(block, plan);
        if (fit == Fit::Found) return true;
        if (fit == Fit::Damaged || plan == last || !words_->renew(also)) return false;
        last = plan;
    }
    return false;
}

bool Heap::settle(const WordPlan& plan, const Piece& rest) noexcept {
    const MultiWord::Note note(*words_, rest.length > 0 ? rest.first / kRegion + 1 : 0);
    if (!words_->change(plan)) return false;
    PENSTOCK_CRASH_POINT("heap.resize.resized");
    hint(rest);
    return true;
}

Heap::Fit Heap::resize(HeapBlock& block, std::uint64_t bytes) noexcept {
    const std::uint32_t length = geometry_.granules_for(bytes);
    WordPlan last;
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const Piece used = piece_at(block.first);
        if (used.state != State::Used || used.length != block.length) return Fit::Damaged;
        if (length == block.length) return Fit::Found;
        Piece rest{State::Free, block.first + block.length, 0, 0, 0};
        WordPlan plan;
        erase(plan, used);
        if (!join_behind(plan, rest.first, rest)) {
            if (plan.is_broken() || plan == last) return Fit::Damaged;
            last = plan;
            continue;
        }
        const std::uint32_t room = block.length + rest.length;
        if (length > room) return Fit::NoRun;
        lay(plan, {State::Used, block.first, length, used.owner, 0});
        rest = {State::Free, block.first + length, room - length, 0, 0};
        lay(plan, rest);
        if (plan.is_broken()) return Fit::Damaged;
        if (!settle(plan, rest)) continue;
        const HeapBlock before = std::exchange(block, {block.first, length});
        const std::error_code error = reserve(block);
        if (!error) return Fit::Found;
        return resize(block, bytes_of(before)) == Fit::Found ? Fit::NoMemory : Fit::Damaged;
    }
    return Fit::Damaged;
}

// ---- memory

bool Heap::is_reserved(std::uint32_t chunk) const noexcept {
    // pairs with: reserve_chunks(), whose memory is there; punch(), which is about to take it away
    return (load_acquire(reserved_[chunk / 64]) >> (chunk % 64) & 1U) != 0;
}

// Reserves the chunks that a used block touches. Owners of neighbouring blocks may reserve a shared
// chunk at the same time; a chunk in use is never given back. A range that cannot be reserved as a
// whole is punched again: so the chunks at both ends, which are shared, are ranges of their own.
std::error_code Heap::reserve(HeapBlock block) noexcept {
    const std::uint64_t size = geometry_.chunk_bytes();
    const std::uint64_t begin = offset(block) / size;
    const std::uint64_t end = layout::round_up(offset(block) + bytes_of(block), size) / size;
    const std::uint64_t first_whole = layout::round_up(offset(block), size) / size;
    const std::uint64_t last_whole = (offset(block) + bytes_of(block)) / size;
    if (begin < first_whole) {
        if (const auto error = reserve_chunks(begin, first_whole)) return error;
    }
    if (first_whole < last_whole) {
        if (const auto error = reserve_chunks(first_whole, last_whole)) return error;
    }
    return last_whole < end && first_whole <= last_whole ? reserve_chunks(last_whole, end)
                                                         : std::error_code{};
}

std::error_code Heap::reserve_chunks(std::uint64_t first, std::uint64_t end) noexcept {
    const std::uint64_t size = geometry_.chunk_bytes();
    for (auto at = static_cast<std::uint32_t>(first); at < end;) {
        if (is_reserved(at)) {
            ++at;
            continue;
        }
        std::uint32_t last = at;
        while (last < end && !is_reserved(last)) ++last;
        if (const auto error = file_->reserve(file_offset_ + at * size, (last - at) * size)) {
            return error;
        }
        PENSTOCK_CRASH_POINT("heap.reserve.reserved");
        for (; at < last; ++at) {
            // pairs with: the acquire in is_reserved()
            fetch_or_release(reserved_[at / 64], std::uint64_t{1} << (at % 64));
        }
    }
    return {};
}

// Gives back the reserved chunks that lie wholly inside a block that the caller owns.
std::uint64_t Heap::punch(HeapBlock block) noexcept {
    const std::uint64_t size = geometry_.chunk_bytes();
    const std::uint64_t end = (offset(block) + bytes_of(block)) / size;
    std::uint64_t given_back = 0;
    for (std::uint64_t at = layout::round_up(offset(block), size) / size; at < end; ++at) {
        if (!is_reserved(static_cast<std::uint32_t>(at))) continue;
        // Cleared before the memory is punched: a death in between costs one fallocate.
        // pairs with: the acquire in is_reserved(), by way of the block, which the caller owns
        // meanwhile
        fetch_and_acq_rel(reserved_[at / 64], ~(std::uint64_t{1} << (at % 64)));
        PENSTOCK_CRASH_POINT("heap.trim.unmarked");
        if (!file_->punch(file_offset_ + at * size, size)) given_back += size;
        PENSTOCK_CRASH_POINT("heap.trim.punched");
    }
    return given_back;
}

std::uint64_t Heap::trim(unsigned self, std::uint64_t keep_bytes) noexcept {
    if (self >= kNamed) return 0;
    // Parts are whole chunks, except at the two ends.
    const std::uint64_t chunk = geometry_.chunk_bytes();
    const std::uint64_t at_once =
        std::max(std::min(kTrimAtOnce, geometry_.bytes() / kTrimPart) / chunk * chunk, chunk);
    const auto most = static_cast<std::uint32_t>(at_once / geometry_.granule_bytes);
    std::uint64_t given_back = 0;
    std::uint64_t kept = 0;
    for (std::uint32_t at = 0; at < geometry_.granules;) {
        const Piece piece = piece_at(at);
        at += std::max(piece.length, 1U);
        if (piece.state != State::Free || !fits_heap(piece)) continue;
        for (std::uint32_t end = piece.first + piece.length; end > piece.first;) {
            const std::uint32_t begin = std::max(piece.first, (end - 1) / most * most);
            const HeapBlock part{begin, end - begin};
            end = begin;
            if (kept + bytes_of(part) <= keep_bytes) {
                kept += bytes_of(part);
                continue;
            }
            given_back += trim_part(self, piece.first, part);
        }
    }
    return given_back;
}

// Takes a part of the free piece at `from`, punches it and frees it again. Returns 0 if the piece
// is gone.
std::uint64_t Heap::trim_part(unsigned self, std::uint32_t from, HeapBlock part) noexcept {
    const Piece piece = piece_at(from);
    const bool covers = piece.state == State::Free && fits_heap(piece) &&
                        piece.first + piece.length >= part.first + part.length;
    if (!covers || carve(piece, part.first - from, part.length, self, {}) != Fit::Found) return 0;
    PENSTOCK_CRASH_POINT("heap.trim.taken");
    const std::uint64_t given_back = punch(part);
    free(part, {});
    return given_back;
}

// ---- after a death, and for people

void Heap::reap(unsigned dead) noexcept {
    if (dead >= kNamed) return;
    restore_noted(dead);
    for (std::uint32_t at = 0; at < geometry_.granules; ++at) {
        const Piece piece = piece_at(at);
        if (piece.state == State::Used && piece.owner == dead && fits_heap(piece)) {
            free({piece.first, piece.length}, {});
        }
    }
}

void Heap::restore_hints() noexcept {
    for (std::uint32_t region = 0; region < geometry_.regions(); ++region) {
        restore_hint(region);
    }
}

HeapUse Heap::use() const noexcept {
    HeapUse use;
    for (std::uint32_t at = 0; at < geometry_.granules; ++at) {
        const Piece piece = decode(words_->peek(granules_[at]), at);
        const std::uint64_t bytes = piece.length * geometry_.granule_bytes;
        if (piece.state == State::Used) use.used_bytes += bytes;
        if (piece.state != State::Free) continue;
        use.free_bytes += bytes;
        ++use.free_blocks;
        use.largest_free = std::max(use.largest_free, bytes);
    }
    for (std::uint32_t chunk = 0; chunk < geometry_.chunks(); ++chunk) {
        if (is_reserved(chunk)) use.reserved_bytes += geometry_.chunk_bytes();
    }
    return use;
}

}  // namespace penstock::detail

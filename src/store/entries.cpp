// Transitions of a store's entries, and reads of their content.
#include "store/entries.hpp"

#include <cstring>
#include <limits>

#include "os/clock.hpp"
#include "os/crash_point.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

using layout::StoreEntry;

layout::EntryWord decoded(std::uint64_t value) noexcept {
    return layout::decode_entry(value);
}

layout::EntryHeader header_of(const StoreEntry& entry) noexcept {
    return layout::decode_header(load_relaxed(entry.header));
}

// A span beyond the clock's range: never.
std::int64_t expiry(const ReserveOptions& options) noexcept {
    if (!options.expires_after) return 0;
    const std::int64_t now = os::monotonic_ns();
    const std::int64_t span = options.expires_after->count();
    return span < std::numeric_limits<std::int64_t>::max() - now ? now + span : 0;
}

}  // namespace

StoreEntries::StoreEntries(std::unique_ptr<Segment> joined, unsigned participant)
    : segment(std::move(joined)) {
    const StoreShape shape = store_shape_of(segment->header());
    view = StoreView(shape, segment->control());
    act_as(participant);
    words.limit(view.state().reach);
    heap = Heap(shape.heap, view.heap_control(), words, segment->file(), segment->payload_offset());
    index = StoreIndex(view, words);
    order = StoreOrder(view, words);
}

void StoreEntries::act_as(unsigned participant) noexcept {
    self = participant;
    words.attach(segment->control(), view.shape().control_bytes() / sizeof(Word), view.operations(),
                 view.shape().participants, self);
}

// ---- writing

StoreEntries::Outcome StoreEntries::stage(std::uint32_t entry, Word& version, std::uint64_t seen,
                                          const ReserveOptions& options) noexcept {
    StoreEntry& fresh = view.entry(entry);
    const std::uint64_t claimed = words.read(fresh.word);
    const auto weight = static_cast<std::uint8_t>(options.weight);
    store_relaxed(fresh.nbytes, 0);
    store_relaxed(fresh.header, 0);
    store_relaxed(fresh.favour, encode_favour({weight, weight, 0}));
    store_relaxed(fresh.expires_at, expiry(options));
    WordPlan plan;
    plan.set(version, seen, 0);
    plan.set(fresh.word, claimed, layout::encode_entry(State::Staged, self));
    if (words.change(plan)) {
        PENSTOCK_CRASH_POINT("store.reserve.staged");
        return Outcome::Done;
    }
    if (move(entry, word(entry), State::Freeing, self)) free(entry);
    return plan.is_broken() ? Outcome::Damaged : Outcome::Changed;
}

bool StoreEntries::is_overdue(std::uint32_t entry) const noexcept {
    const std::int64_t expires_at = load_relaxed(view.entry(entry).expires_at);
    return expires_at != 0 && os::monotonic_ns() >= expires_at;
}

// The memory stays its writer's; the commit will be refused.
bool StoreEntries::expire(std::uint32_t entry, std::uint64_t seen) noexcept {
    return move(entry, seen, State::Expired, decoded(seen).participant);
}

StoreEntries::Outcome StoreEntries::publish(std::uint32_t entry) noexcept {
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint64_t seen = word(entry);
        const layout::EntryWord is = decoded(seen);
        if (is.participant != self || is.state != State::Staged || is_overdue(entry)) {
            return Outcome::Changed;
        }
        const std::uint64_t bytes = own_bytes(entry);
        const Outcome outcome = order.append(entry, seen, layout::encode_entry(State::Resident));
        if (outcome == Outcome::Changed) continue;
        if (outcome == Outcome::Damaged) return outcome;
        PENSTOCK_CRASH_POINT("store.commit.resident");
        fetch_add_relaxed(own().committed, 1);
        fetch_add_relaxed(own().committed_bytes, bytes);
        return outcome;
    }
    return Outcome::Damaged;
}

void StoreEntries::abort(std::uint32_t entry) noexcept {
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint64_t seen = word(entry);
        const layout::EntryWord is = decoded(seen);
        if (is.participant != self || (is.state != State::Staged && is.state != State::Expired))
            return;
        if (!move(entry, seen, State::Freeing, self)) continue;
        PENSTOCK_CRASH_POINT("store.abort.freeing");
        fetch_add_relaxed(own().aborted, 1);
        return free(entry);
    }
}

// ---- reading

// False: the object is gone.
bool StoreEntries::pin(std::uint32_t entry) noexcept {
    pins->acquire(entry);
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint64_t seen = word(entry);
        const State state = decoded(seen).state;
        if (state == State::Resident) return true;
        if (state != State::Evicting) break;
        // An evictor has not looked at this pin yet, or will see it.
        if (move(entry, seen, State::Resident)) return true;
    }
    unpin(entry);
    return false;
}

void StoreEntries::unpin(std::uint32_t entry) noexcept {
    // The last pin of this process: the object may have been removed meanwhile.
    if (pins->release(entry)) collect(entry);
}

std::optional<StoreEntries::Content> StoreEntries::pin_key(const KeyHash& hash,
                                                           std::string_view key) noexcept {
    Content found;
    const std::uint32_t entry = index.find(hash, [&](std::uint32_t number, std::uint64_t seen) {
        if (decoded(seen).state == State::Staged || !pin(number)) return false;
        // Checked again under the pin: the entry may be another object's by now.
        if (index.has_hash(number, hash)) {
            found = content(number);
            if (found.is_sound && found.key.size() == key.size() &&
                std::memcmp(found.key.data(), key.data(), key.size()) == 0) {
                return true;
            }
        }
        unpin(number);
        return false;
    });
    if (entry == StoreIndex::kNone) return std::nullopt;
    return found;
}

std::optional<StoreEntries::Content> StoreEntries::pin_ref(const StoreRef& ref) noexcept {
    if (ref.entry >= view.shape().entries() || !pin(ref.entry)) return std::nullopt;
    if (load_relaxed(view.entry(ref.entry).incarnation) == ref.incarnation) {
        return content(ref.entry);
    }
    unpin(ref.entry);
    return std::nullopt;
}

StoreEntries::Content StoreEntries::content(std::uint32_t entry) const noexcept {
    const StoreEntry& from = view.entry(entry);
    const layout::EntryHeader header = header_of(from);
    const std::uint64_t nbytes = load_relaxed(from.nbytes);
    const HeapBlock block = heap.block_named(payload_of(words.read(from.block)));
    const std::uint64_t room = heap.bytes_of(block);
    Content content;
    content.ref = {entry, load_relaxed(from.incarnation)};
    if (block.length == 0 || header.lead_bytes > room || nbytes > room - header.lead_bytes ||
        header.key_bytes + header.meta_bytes > header.lead_bytes) {
        return content;
    }
    const std::byte* const start = segment->views() + heap.offset(block);
    content.key = {start, header.key_bytes};
    content.meta = {start + header.key_bytes, header.meta_bytes};
    content.bytes = {start + header.lead_bytes, nbytes};
    content.format = static_cast<Format>(header.format);
    content.is_sound = true;
    return content;
}

void StoreEntries::touch(std::uint32_t entry) noexcept {
    if (view.shape().eviction == Eviction::Sieve) order.visit(entry);
    if (view.shape().eviction == Eviction::Lru) order.renew(entry);
}

bool StoreEntries::is_retained(std::uint32_t entry) const noexcept {
    return decode_favour(load_relaxed(view.entry(entry).favour)).retained > 0;
}

bool StoreEntries::retain(std::uint32_t entry, bool adds) noexcept {
    std::atomic<std::uint64_t>& word = view.entry(entry).favour;
    std::uint64_t seen = load_relaxed(word);
    for (;;) {
        Favour favour = decode_favour(seen);
        const auto most = static_cast<std::uint16_t>(~0U);
        if (favour.retained == (adds ? most : 0)) return false;
        favour.retained =
            static_cast<std::uint16_t>(adds ? favour.retained + 1 : favour.retained - 1);
        if (cas_relaxed(word, seen, encode_favour(favour))) return true;
    }
}

// ---- removing

std::uint64_t StoreEntries::own_bytes(std::uint32_t entry) const noexcept {
    const StoreEntry& from = view.entry(entry);
    const layout::EntryHeader header = header_of(from);
    return header.key_bytes + header.meta_bytes + load_relaxed(from.nbytes);
}

// Frees the block and the entry in one change. The caller has the entry Freeing.
void StoreEntries::free(std::uint32_t entry) noexcept {
    StoreEntry& gone = view.entry(entry);
    index.forget(entry);
    PENSTOCK_CRASH_POINT("store.free.forgotten");
    const std::uint64_t seen = words.read(gone.word);
    const std::uint64_t name = words.read(gone.block);
    const HeapBlock block = heap.block_named(payload_of(name));
    WordPlan plan;
    plan.set(gone.word, seen, layout::encode_entry(State::Free));
    plan.set(gone.block, name, 0);
    if (block.length == 0) {
        for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
            if (words.change(plan) || !words.renew(plan)) break;
        }
        return;
    }
    heap.free(block, plan);
    PENSTOCK_CRASH_POINT("store.free.freed");
}

// Frees a removed object without holders: the participant that finds no holder bit does it.
void StoreEntries::collect(std::uint32_t entry) noexcept {
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint64_t seen = word(entry);
        if (decoded(seen).state != State::Doomed || is_held(view, entry)) return;
        if (!move(entry, seen, State::Freeing, self)) continue;
        PENSTOCK_CRASH_POINT("store.collect.freeing");
        return free(entry);
    }
}

// A pin prevents the eviction, even if it is set while the eviction is under way.
StoreEntries::Outcome StoreEntries::evict(std::uint32_t entry) noexcept {
    const std::uint64_t seen = word(entry);
    if (decoded(seen).state != State::Resident || !move(entry, seen, State::Evicting, self)) {
        return Outcome::Changed;
    }
    PENSTOCK_CRASH_POINT("store.evict.evicting");
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint64_t now = word(entry);
        if (decoded(now).state != State::Evicting || decoded(now).participant != self) {
            return Outcome::Changed;
        }
        // pairs with: acquire() of Pins and the look at the word after it. Read after `now`:
        // meanwhile a reader may have made it Resident, and another thread of this process Evicting
        // again.
        const bool is_wanted = is_held(view, entry) || is_retained(entry);
        if (is_wanted) {
            if (move(entry, now, State::Resident)) return Outcome::Changed;
            continue;
        }
        const std::uint64_t bytes = own_bytes(entry);
        const Outcome outcome =
            order.remove(entry, now, layout::encode_entry(State::Freeing, self));
        if (outcome == Outcome::Changed) continue;
        if (outcome == Outcome::Damaged) {
            move(entry, now, State::Resident);
            return outcome;
        }
        PENSTOCK_CRASH_POINT("store.evict.freeing");
        free(entry);
        fetch_add_relaxed(own().evicted, 1);
        fetch_add_relaxed(own().evicted_bytes, bytes);
        return outcome;
    }
    return Outcome::Damaged;
}

StoreEntries::Outcome StoreEntries::evict_one() noexcept {
    if (view.shape().eviction == Eviction::None) return Outcome::Changed;
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint32_t victim = order.victim();
        if (victim == StoreOrder::kNone) return Outcome::Changed;
        const Outcome outcome = evict(victim);
        if (outcome != Outcome::Changed) return outcome;
    }
    return Outcome::Damaged;
}

StoreEntries::Outcome StoreEntries::remove(std::uint32_t entry) noexcept {
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint64_t seen = word(entry);
        const State state = decoded(seen).state;
        if (state == State::Evicting) {
            move(entry, seen, State::Resident);
            continue;
        }
        if (state != State::Resident) return Outcome::Changed;
        const Outcome outcome = order.remove(entry, seen, layout::encode_entry(State::Doomed));
        if (outcome == Outcome::Changed) continue;
        if (outcome == Outcome::Damaged) return outcome;
        PENSTOCK_CRASH_POINT("store.remove.doomed");
        fetch_add_relaxed(own().deleted, 1);
        return outcome;
    }
    return Outcome::Damaged;
}

void StoreEntries::unstick(std::uint32_t entry) noexcept {
    collect(entry);
    const std::uint64_t seen = word(entry);
    if (decoded(seen).state == State::Evicting) move(entry, seen, State::Resident);
}

void StoreEntries::reap_entry(std::uint32_t entry, unsigned dead) noexcept {
    const std::uint64_t bit = std::uint64_t{1} << (dead % 64);
    std::atomic<std::uint64_t>& holders = view.holders(entry, dead);
    if ((load_relaxed(holders) & bit) != 0) {
        fetch_and_seq_cst(holders, ~bit);
        PENSTOCK_CRASH_POINT("store.janitor.dropped");
    }
    // Also without a holder bit: the dead may have cleared it and not collected the object.
    collect(entry);
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint64_t seen = word(entry);
        const layout::EntryWord is = decoded(seen);
        if (is.participant != dead) return;
        switch (is.state) {
            case State::Evicting:
                if (!move(entry, seen, State::Resident)) continue;
                return;
            case State::Claimed:
            case State::Staged:
            case State::Expired:
            case State::Freeing:
                if (!move(entry, seen, State::Freeing, self)) continue;
                PENSTOCK_CRASH_POINT("store.janitor.freeing");
                free(entry);
                return;
            default:
                return;
        }
    }
}

}  // namespace penstock::detail

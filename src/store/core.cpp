// A participant's work: joining, staging, pinning, evicting, clearing up after the dead, leaving.
#include "store/core.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "os/clock.hpp"
#include "os/crash_point.hpp"
#include "segment/text.hpp"

namespace penstock::detail {
namespace {

using layout::EntryState;
using layout::StoreEntry;
constexpr auto kRelaxed = std::memory_order_relaxed;
// Looks at words that others changed meanwhile, before they are taken for damaged: each means that
// another participant got on, unless the memory is damaged.
constexpr unsigned kMaxAttempts = 1000;

void add(std::atomic<std::uint64_t>& counter, std::uint64_t amount = 1) noexcept {
    counter.fetch_add(amount, kRelaxed);
}

layout::EntryWord decoded(std::uint64_t value) noexcept {
    return layout::decode_entry(value);
}

std::string shown(std::string_view key) {
    constexpr std::size_t kMax = 60;
    return "'" + printable(cut(key, kMax)) + (key.size() > kMax ? "...'" : "'");
}

}  // namespace

// ---- joining and leaving

std::shared_ptr<StoreCore> StoreCore::create(const std::string& name, const StoreOptions& options) {
    const StoreShape shape = store_shape_of(options);
    SegmentPlan plan = plan_of(shape);
    plan.replaces_owner = options.replaces_owner;
    auto fresh = Segment::create(name, plan, options.memory, [&](Segment& segment) {
        MultiWord words;
        const StoreView view(shape, segment.control());
        words.attach(segment.control(), shape.control_bytes() / sizeof(Word), view.operations(),
                     shape.participants, 0);
        Heap heap(shape.heap, view.heap_control(), words, segment.file(), segment.payload_offset());
        heap.prepare(shape.is_reserved);
        view.state().reach.store(1, kRelaxed);
        Membership::found(segment, 0);
    });
    auto core = std::make_shared<StoreCore>(std::move(fresh), 0);
    core->membership.adopt(0);
    core->pins = std::make_unique<Pins>(core->view, 0);
    core->is_fixed = options.memory.lock_memory;
    core->enter(*core->segment, 0);
    return core;
}

std::shared_ptr<StoreCore> StoreCore::attach(std::unique_ptr<Segment> segment) {
    auto core = std::make_shared<StoreCore>(std::move(segment), 0);
    core->join();
    core->reap();
    return core;
}

StoreCore::StoreCore(std::unique_ptr<Segment> joined, unsigned place)
    : segment(std::move(joined)), self(place) {
    const StoreShape shape = store_shape_of(segment->header());
    membership = Membership(*segment, shape.participants);
    view = StoreView(shape, segment->control());
    words.attach(segment->control(), shape.control_bytes() / sizeof(Word), view.operations(),
                 shape.participants, self);
    words.limit(view.state().reach);
    heap = Heap(shape.heap, view.heap_control(), words, segment->file(), segment->payload_offset());
    index = StoreIndex(view, words);
    order = StoreOrder(view, words);
    committed = Signal(view.committed_word(), segment->has_asymmetric_fence());
}

void StoreCore::join() {
    self = membership.claim_any();
    words.attach(segment->control(), view.shape().control_bytes() / sizeof(Word), view.operations(),
                 view.shape().participants, self);
    extend_reach();
    membership.inherit([this](unsigned dead) { take_over(dead); });
    pins = std::make_unique<Pins>(view, self);
    membership.enter();
    enter(*segment, self);
}

// Before anything of ours can be of interest to others.
void StoreCore::extend_reach() noexcept {
    std::atomic<std::uint64_t>& reach = view.state().reach;
    std::uint64_t seen = reach.load(kRelaxed);
    while (seen <= self &&
           !reach.compare_exchange_weak(seen, std::uint64_t{self} + 1, std::memory_order_seq_cst)) {
    }
}

StoreCore::~StoreCore() {
    withdraw();
    if (!segment->check_place()) return;
    vacate();
}

// Pins and reservations go back; objects that are left can be read, and change nothing.
void StoreCore::depart() noexcept {
    if (!segment->check_place()) return;
    closing.cancel();
    {
        const std::lock_guard lock(janitor_);
        take_over(self);
    }
    vacate();
    segment->disown();
}

void StoreCore::vacate() noexcept {
    membership.leave([this] { return !view.is_persistent(); });
}

Status StoreCore::damaged(const char* what) const noexcept {
    return {ErrorCode::Corrupt,
            "the " + std::string(what) + " of " + title() + " contradict themselves"};
}

Status StoreCore::check_usable() const noexcept {
    if (segment->is_foreign()) return segment->why_foreign();
    if (closing.is_cancelled()) {
        return Status::closed_here("this store handle is closed; attach anew");
    }
    return Status::ok();
}

// ---- the dead

void StoreCore::reap() noexcept {
    const std::lock_guard lock(janitor_);
    if (!segment->check_place()) return;
    membership.reap_all_and_wait([this](unsigned dead) { take_over(dead); }, words.participants());
}

// Opportunistic: skips if another thread is reaping.
void StoreCore::try_reap() noexcept {
    const std::unique_lock lock(janitor_, std::try_to_lock);
    if (!lock || !segment->check_place()) return;
    membership.reap_all([this](unsigned dead) { take_over(dead); }, words.participants());
}

// What that participant holds is the store's again. The caller has its lock. Repeatable.
void StoreCore::take_over(unsigned participant) noexcept {
    words.finish(participant);
    heap.reap(
        participant);  // before a change of our own, which might be in the dead one's very place
    PENSTOCK_CRASH_POINT("store.janitor.finished");
    for (std::uint32_t entry = 0; entry < view.shape().entries(); ++entry) {
        take_over_entry(entry, participant);
    }
    PENSTOCK_CRASH_POINT("store.janitor.entries");
    heap.restore_hints();
}

void StoreCore::take_over_entry(std::uint32_t entry, unsigned dead) noexcept {
    const std::uint64_t bit = std::uint64_t{1} << (dead % 64);
    std::atomic<std::uint64_t>& holders = view.holders(entry, dead);
    if ((holders.load(kRelaxed) & bit) != 0) {
        holders.fetch_and(~bit, std::memory_order_seq_cst);
        PENSTOCK_CRASH_POINT("store.janitor.dropped");
    }
    // Also without: it may have died between letting go and looking whether it was the last.
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
                finish_freeing(entry);
                return;
            default:
                return;
        }
    }
}

// ---- staging

Status StoreCore::check_request(std::string_view key, std::uint64_t nbytes,
                                const ReserveOptions& options) const noexcept {
    if (key.empty() || key.size() > layout::kMaxKeyBytes) {
        return {ErrorCode::InvalidArgument,
                "a key of " + std::to_string(key.size()) + " bytes: keys have 1 to " +
                    std::to_string(layout::kMaxKeyBytes) + "; hash what is longer"};
    }
    constexpr std::uint64_t kMaxAlignment = std::uint64_t{2} << 20U;
    const bool is_power = (options.alignment & (options.alignment - 1)) == 0;
    if (options.alignment == 0 || !is_power || options.alignment > kMaxAlignment) {
        return {ErrorCode::InvalidArgument, "an alignment of " + std::to_string(options.alignment) +
                                                ": give a power of two up to 2 MiB"};
    }
    constexpr unsigned kMaxWeight = 100;
    if (options.weight > kMaxWeight) {
        return {ErrorCode::InvalidArgument,
                "a weight of " + std::to_string(options.weight) + ": give 0 to 100"};
    }
    const std::uint64_t capacity = view.shape().heap.bytes();
    const std::uint64_t meta = options.meta.size();
    if (meta > layout::kMaxMetaBytes || nbytes > capacity ||
        nbytes + meta + key.size() > capacity) {
        return {ErrorCode::TooLarge,
                shown(key) + " of " + std::to_string(nbytes) + " bytes with " +
                    std::to_string(meta) + " of metadata can never fit: " + title() + " has " +
                    std::to_string(capacity) + ", and metadata 16 MiB at most"};
    }
    return Status::ok();
}

// Another writer has it staged. Ok: not any more, look again.
Status StoreCore::refuse_staged(std::string_view key, std::uint32_t entry,
                                std::uint64_t seen) noexcept {
    const unsigned participant = decoded(seen).participant;
    if (participant >= view.shape().participants) {
        return damaged("entries");
    }
    const std::int64_t expires_at = view.entry(entry).expires_at.load(kRelaxed);
    const bool is_over = expires_at != 0 && os::monotonic_ns() >= expires_at;
    if (is_over && (participant == self || os::clock_offsets().is_known)) {
        move(entry, seen, State::Expired, participant);
        return Status::ok();
    }
    if (participant != self && (segment->participants().life(participant) == Life::Dead ||
                                segment->participants().has_janitor(participant))) {
        reap();
        if (word(entry) != seen) return Status::ok();
    }
    const ParticipantText who = segment->participants().text(participant);
    return {ErrorCode::Busy,
            shown(key) + " is being written by participant " + std::to_string(participant) +
                " (pid " + std::to_string(who.pid) + ", " + printable(who.process) + ")",
            static_cast<int>(participant)};
}

// A free entry for the key; if all are in use near it, one that is evicted for it.
std::uint32_t StoreCore::claim_entry(const KeyHash& hash) noexcept {
    constexpr unsigned kNear = layout::kProbes * layout::kWays;
    std::uint32_t entry = index.claim(hash, self);
    if (entry != StoreIndex::kNone) return entry;
    reap();
    for (unsigned number = 0; number < kNear; ++number) {
        go_on((index.home(hash) * layout::kWays + number) & (view.shape().entries() - 1));
    }
    for (unsigned number = 0; number < kNear; ++number) {
        entry = index.claim(hash, self);
        if (entry != StoreIndex::kNone) return entry;
        const std::uint32_t neighbour = index.neighbour(hash, number);
        if (neighbour == StoreIndex::kNone || view.shape().eviction == Eviction::None) break;
        evict(neighbour);
    }
    return index.claim(hash, self);
}

// An entry that tells all others that we write the key.
Result<std::uint32_t> StoreCore::stage(std::string_view key, const KeyHash& hash,
                                       const ReserveOptions& options) noexcept {
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        Word& version = index.version(hash);
        const std::uint64_t seen = words.read(version);
        if (seen == MultiWord::kBroken) return damaged("entries");
        // Its writer is looked for first: it may commit between the two looks.
        std::uint64_t staged = 0;
        const std::uint32_t other = index.find(hash, [&](std::uint32_t, std::uint64_t value) {
            staged = value;
            return decoded(value).state == State::Staged;
        });
        if (other != StoreIndex::kNone) {
            if (Status status = refuse_staged(key, other, staged); !status) return status;
            continue;
        }
        if (const auto there = pin_hash(hash, key)) {
            unpin(*there);
            return Status(ErrorCode::AlreadyExists);
        }
        const std::uint32_t entry = claim_entry(hash);
        if (entry == StoreIndex::kNone) {
            add(own().refused);
            return Status(ErrorCode::NoSpace, "the index of " + title() + " is full where " +
                                                  shown(key) +
                                                  " belongs; create it with more `objects`");
        }
        StoreEntry& fresh = view.entry(entry);
        const std::uint64_t claimed = words.read(fresh.word);
        fresh.nbytes.store(0, kRelaxed);
        fresh.header.store(0, kRelaxed);
        fresh.favour.store(encode_favour({static_cast<std::uint8_t>(options.weight),
                                          static_cast<std::uint8_t>(options.weight), 0}),
                           kRelaxed);
        const std::int64_t expires_at =
            options.expires_after ? os::monotonic_ns() + options.expires_after->count() : 0;
        fresh.expires_at.store(expires_at, kRelaxed);
        WordPlan plan;
        plan.set(version, seen, 0);
        plan.set(fresh.word, claimed, layout::encode_entry(State::Staged, self));
        if (words.change(plan)) {
            PENSTOCK_CRASH_POINT("store.reserve.staged");
            return entry;
        }
        if (move(entry, word(entry), State::Freeing, self)) finish_freeing(entry);
        if (plan.is_broken()) return damaged("entries");
    }
    return damaged("entries");
}

Status StoreCore::no_room(std::uint64_t bytes) noexcept {
    add(own().refused);
    const HeapUse use = heap.use();
    return {ErrorCode::NoSpace,
            "no room for " + std::to_string(bytes) + " bytes in " + title() + ": " +
                std::to_string(use.free_bytes) + " are free, the longest piece has " +
                std::to_string(use.largest_free) +
                ", and what is in use, retained or being written can't be evicted"};
}

// Room for a staged entry: what is free, what the dead held, what can be evicted, in this order.
Result<HeapBlock> StoreCore::allocate(std::uint32_t entry, const HeapRequest& request) noexcept {
    Word& name = view.entry(entry).block;
    bool has_cleared = false;
    bool has_looked = false;
    const std::uint64_t most = 100 * std::uint64_t{kMaxAttempts} + view.shape().entries();
    for (std::uint64_t attempt = 0; attempt < most; ++attempt) {
        const Heap::Outcome outcome = heap.allocate(request, name, words.read(name));
        switch (outcome.fit) {
            case Heap::Fit::Found:
                PENSTOCK_CRASH_POINT("store.reserve.allocated");
                return outcome.block;
            case Heap::Fit::NoRun:
            case Heap::Fit::NoMemory:
                break;
            default:
                return damaged("blocks");
        }
        if (!std::exchange(has_cleared, true)) {
            reap();
            continue;
        }
        const StoreOrder::Outcome eviction = evict_one();
        if (eviction == StoreOrder::Outcome::Damaged) return damaged("links");
        if (eviction == StoreOrder::Outcome::Done) continue;
        if (!std::exchange(has_looked, true)) {
            // Once more: what one of the dead held may have passed to a janitor that died as well,
            // in a place that was looked at before.
            reap();
            go_on_for_the_stopped();
            continue;
        }
        if (outcome.fit == Heap::Fit::NoMemory) {
            if (Status status = check_usable(); !status) return status;
            add(own().refused);
            return Status(ErrorCode::NoSpace, "could not reserve " + std::to_string(request.bytes) +
                                                  " bytes of shared memory for " + title() + ": " +
                                                  outcome.error.message() +
                                                  segment->space_sentence());
        }
        return no_room(request.bytes);
    }
    return damaged("blocks");
}

// Finishes what another has begun and may be stopped at, so that it holds back no room and no
// entries: evictions, and objects that it released last.
void StoreCore::go_on(std::uint32_t entry) noexcept {
    collect(entry);
    const std::uint64_t seen = word(entry);
    if (decoded(seen).state == State::Evicting) move(entry, seen, State::Resident);
}

// With all of them, and with hints that they have not written down.
void StoreCore::go_on_for_the_stopped() noexcept {
    for (std::uint32_t entry = 0; entry < view.shape().entries(); ++entry) go_on(entry);
    heap.restore_hints();
}

Result<StoreCore::Staged> StoreCore::reserve(std::string_view key, std::uint64_t nbytes,
                                             const ReserveOptions& options) noexcept {
    // Writing it takes so long that others could clear us away meanwhile.
    constexpr std::uint64_t kLong = std::uint64_t{256} << 10U;
    if (nbytes >= kLong) static_cast<void>(segment->check_place());
    if (Status status = check_usable(); !status) return status;
    if (Status status = check_request(key, nbytes, options); !status) return status;
    layout::EntryHeader header;
    header.key_bytes = key.size();
    header.meta_bytes = options.meta.size();
    header.format = static_cast<std::uint8_t>(options.format);
    const std::uint64_t unit =
        std::max<std::uint64_t>(64, std::min(options.alignment, view.shape().heap.granule_bytes));
    header.lead_bytes = layout::round_up(key.size() + options.meta.size(), unit);
    Result<std::uint32_t> staged =
        stage(key, hash_key(key, segment->header().instance[0]), options);
    if (!staged) return staged.status();
    StoreEntry& entry = view.entry(*staged);
    const Result<HeapBlock> room =
        allocate(*staged, {header.lead_bytes + nbytes, options.alignment, header.lead_bytes});
    if (!room) {
        abort(*staged);
        return room.status();
    }
    entry.header.store(layout::encode_header(header), kRelaxed);
    entry.nbytes.store(nbytes, kRelaxed);
    // Not what its name says by now, which anybody can write.
    std::byte* const block = segment->payload() + heap.offset(*room);
    std::memcpy(block, key.data(), key.size());
    if (!options.meta.empty()) {
        std::memcpy(block + key.size(), options.meta.data(), options.meta.size());
    }
    return Staged{*staged, {block + header.lead_bytes, nbytes}};
}

Status StoreCore::commit(std::uint32_t entry) noexcept {
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint64_t seen = word(entry);
        const layout::EntryWord is = decoded(seen);
        const std::int64_t expires_at = view.entry(entry).expires_at.load(kRelaxed);
        const bool is_late = expires_at != 0 && os::monotonic_ns() >= expires_at;
        if (is.participant != self || is.state != State::Staged || is_late) {
            abort(entry);
            add(own().expired);
            return {ErrorCode::Expired,
                    is_late ? "the reservation's deadline has passed; the object was not committed"
                            : "the reservation was cleared away; the object was not committed"};
        }
        const std::uint64_t bytes = own_bytes(entry);
        const auto outcome = order.append(entry, seen, layout::encode_entry(State::Resident));
        if (outcome == StoreOrder::Outcome::Changed) continue;
        if (outcome == StoreOrder::Outcome::Damaged) {
            abort(entry);
            return damaged("links");
        }
        PENSTOCK_CRASH_POINT("store.commit.resident");
        add(own().committed);
        add(own().committed_bytes, bytes);
        committed.notify();
        return Status::ok();
    }
    abort(entry);
    return damaged("entries");
}

void StoreCore::abort(std::uint32_t entry) noexcept {
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint64_t seen = word(entry);
        const layout::EntryWord is = decoded(seen);
        if (is.participant != self || (is.state != State::Staged && is.state != State::Expired))
            return;
        if (!move(entry, seen, State::Freeing, self)) continue;
        PENSTOCK_CRASH_POINT("store.abort.freeing");
        add(own().aborted);
        return finish_freeing(entry);
    }
}

Status StoreCore::resize(std::uint32_t entry, const std::byte* data,
                         std::uint64_t nbytes) noexcept {
    StoreEntry& self_entry = view.entry(entry);
    const layout::EntryHeader header = layout::decode_header(self_entry.header.load(kRelaxed));
    if (nbytes > view.shape().heap.bytes()) return Status(ErrorCode::TooLarge);
    HeapBlock block = heap.block_named(payload_of(words.read(self_entry.block)));
    // What is damaged may name another's block, with more room than there is where the data are.
    const bool is_ours =
        block.length > 0 && segment->payload() + heap.offset(block) + header.lead_bytes == data;
    if (!is_ours) return damaged("entries");
    // Counted at its larger size while it changes: accounts never show more than the block has.
    const Heap::Fit fit = heap.resize(block, header.lead_bytes + nbytes);
    if (fit == Heap::Fit::Found) {
        self_entry.nbytes.store(nbytes, kRelaxed);
        return Status::ok();
    }
    if (fit == Heap::Fit::Damaged) return damaged("blocks");
    return {ErrorCode::NoSpace, "no room to make it " + std::to_string(nbytes) +
                                    " bytes long where it is; abort it and reserve anew"};
}

// ---- pinning

// False: it is not there any more.
bool StoreCore::pin(std::uint32_t entry) noexcept {
    pins->acquire(entry);
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint64_t seen = word(entry);
        const State state = decoded(seen).state;
        if (state == State::Resident) return true;
        if (state != State::Evicting) break;
        // Another is evicting it, and has not looked at our pin, or will see it.
        if (move(entry, seen, State::Resident)) return true;
    }
    unpin(entry);
    return false;
}

void StoreCore::unpin(std::uint32_t entry) noexcept {
    // It was removed meanwhile and left to its last reader.
    if (pins->release(entry)) collect(entry);
}

bool StoreCore::has_key(std::uint32_t entry, std::string_view key) const noexcept {
    const Content found = content(entry);
    return found.is_sound && found.key.size() == key.size() &&
           std::memcmp(found.key.data(), key.data(), key.size()) == 0;
}

std::optional<std::uint32_t> StoreCore::pin_hash(const KeyHash& hash,
                                                 std::string_view key) noexcept {
    const std::uint32_t found = index.find(hash, [&](std::uint32_t entry, std::uint64_t seen) {
        if (decoded(seen).state == State::Staged || !pin(entry)) return false;
        // Once more under the pin: the entry may be another object's by now.
        if (index.has_hash(entry, hash) && has_key(entry, key)) return true;
        unpin(entry);
        return false;
    });
    if (found == StoreIndex::kNone) return std::nullopt;
    return found;
}

std::optional<std::uint32_t> StoreCore::pin_key(std::string_view key) noexcept {
    return pin_hash(hash_key(key, segment->header().instance[0]), key);
}

bool StoreCore::pin_ref(const StoreRef& ref) noexcept {
    if (ref.entry >= view.shape().entries() || !pin(ref.entry)) return false;
    if (view.entry(ref.entry).incarnation.load(kRelaxed) == ref.incarnation) return true;
    unpin(ref.entry);
    return false;
}

StoreCore::Content StoreCore::content(std::uint32_t entry) const noexcept {
    const StoreEntry& from = view.entry(entry);
    const layout::EntryHeader header = layout::decode_header(from.header.load(kRelaxed));
    const std::uint64_t nbytes = from.nbytes.load(kRelaxed);
    const HeapBlock block = heap.block_named(payload_of(words.read(from.block)));
    const std::uint64_t room = heap.bytes_of(block);
    Content content;
    if (block.length == 0 || header.lead_bytes > room || nbytes > room - header.lead_bytes ||
        header.key_bytes + header.meta_bytes > header.lead_bytes) {
        return content;
    }
    const std::byte* const start = segment->views() + heap.offset(block);
    content.ref = {entry, from.incarnation.load(kRelaxed)};
    content.key = {start, header.key_bytes};
    content.meta = {start + header.key_bytes, header.meta_bytes};
    content.bytes = {start + header.lead_bytes, nbytes};
    content.format = static_cast<Format>(header.format);
    content.is_sound = true;
    return content;
}

std::string StoreCore::key_of(std::uint32_t entry) noexcept {
    if (decoded(word(entry)).state != State::Resident || !pin(entry)) return {};
    const Content found = content(entry);
    std::string key(reinterpret_cast<const char*>(found.key.data()), found.key.size());
    unpin(entry);
    return key;
}

void StoreCore::count_look(bool is_hit) noexcept {
    add(is_hit ? own().hits : own().misses);
}

// It was read.
void StoreCore::touch(std::uint32_t entry) noexcept {
    if (view.shape().eviction == Eviction::Sieve) order.visit(entry);
    if (view.shape().eviction == Eviction::Lru) order.renew(entry);
}

StoreLook StoreCore::look(std::string_view key) noexcept {
    StoreLook look;
    const KeyHash hash = hash_key(key, segment->header().instance[0]);
    if (const auto entry = pin_hash(hash, key)) {
        look.state = StoreLook::State::Hit;
        look.nbytes = content(*entry).bytes.size();
        look.is_retained = decode_favour(view.entry(*entry).favour.load(kRelaxed)).retained > 0;
        unpin(*entry);
        return look;
    }
    index.find(hash, [&](std::uint32_t, std::uint64_t seen) {
        if (decoded(seen).state != State::Staged) return false;
        look.state = StoreLook::State::Staged;
        look.staged_by = static_cast<int>(decoded(seen).participant);
        return true;
    });
    return look;
}

Status StoreCore::wait_for(std::string_view key, std::uint32_t& entry, const Wait& wait) noexcept {
    std::optional<std::uint32_t> found;
    const auto is_there = [&] {
        if (!found) found = pin_key(key);
        return found.has_value();
    };
    std::uint64_t sleeps = 0;
    SpinBudget spin;
    const auto is_closing = [this] {
        try_reap();  // its writer may be dead: then another may write it
        return closing.is_cancelled() || !segment->check_place();
    };
    const WaitEnd end = wait_until(committed, spin, wait, sleeps, is_there, is_closing);
    if (segment->is_foreign()) return segment->why_foreign();
    if (end == WaitEnd::Ready || (end == WaitEnd::Timeout && is_there())) {
        entry = *found;
        return Status::ok();
    }
    if (found) unpin(*found);
    if (end == WaitEnd::Timeout) {
        return {ErrorCode::Timeout, shown(key) + " is not in " + title() + " yet"};
    }
    return {ErrorCode::Cancelled, "the wait for " + shown(key) + " was cancelled"};
}

// ---- memory

// Where all of it is reserved from the start it stays: it may be pinned for a device.
std::uint64_t StoreCore::trim(std::uint64_t keep_bytes) noexcept {
    return view.shape().is_reserved ? 0 : heap.trim(self, keep_bytes);
}

void StoreCore::persist() noexcept {
    view.state().stays.store(1, kRelaxed);  // pairs with: StoreView::is_persistent, by the locks
    PENSTOCK_CRASH_POINT("store.persist.stays");
}

void StoreCore::register_cuda() {
    const std::lock_guard lock(janitor_);
    if (cuda_ != nullptr) return;
    if (!view.shape().is_reserved) {
        throw Error(ErrorCode::InvalidArgument,
                    "can't pin " + title() +
                        " for a GPU: its memory comes and goes; create it "
                        "with `populate`");
    }
    std::string problem;
    const bool was_fixed = is_fixed.exchange(true);  // before: code that moves pages looks at it
    const std::uint64_t bytes = view.shape().heap.bytes();
    cuda_ = os::CudaRegistration::make(segment->payload(), bytes, problem);
    if (cuda_ == nullptr) {
        is_fixed = was_fixed;
        throw Error(ErrorCode::NotFound, "can't pin " + title() + " for a GPU: " + problem);
    }
    // What is read lies in the views. A device that can't read memory which is read-only copies
    // out of them by way of the driver's own buffers: slower, and right all the same.
    auto* const views = const_cast<std::byte*>(segment->views());
    cuda_views_ =
        os::CudaRegistration::make(views, bytes, problem, os::CudaRegistration::Access::Read);
}

// ---- removing

std::uint64_t StoreCore::own_bytes(std::uint32_t entry) const noexcept {
    const StoreEntry& from = view.entry(entry);
    const layout::EntryHeader header = layout::decode_header(from.header.load(kRelaxed));
    return header.key_bytes + header.meta_bytes + from.nbytes.load(kRelaxed);
}

// The block back to the heap, and the entry free, in one change. It is ours, Freeing.
void StoreCore::finish_freeing(std::uint32_t entry) noexcept {
    StoreEntry& self_entry = view.entry(entry);
    index.forget(entry);
    PENSTOCK_CRASH_POINT("store.free.forgotten");
    const std::uint64_t seen = words.read(self_entry.word);
    const std::uint64_t name = words.read(self_entry.block);
    const HeapBlock block = heap.block_named(payload_of(name));
    if (block.length == 0) {
        WordPlan plan;
        plan.set(self_entry.word, seen, layout::encode_entry(State::Free));
        plan.set(self_entry.block, name, 0);
        for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
            if (words.change(plan) || !words.renew(plan)) break;
        }
        return;
    }
    WordPlan plan;
    plan.set(self_entry.word, seen, layout::encode_entry(State::Free));
    plan.set(self_entry.block, name, 0);
    heap.free(block, plan);
    PENSTOCK_CRASH_POINT("store.free.freed");
}

// A removed object goes with its last reader: the one that finds no holder bit set frees it.
void StoreCore::collect(std::uint32_t entry) noexcept {
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint64_t seen = word(entry);
        if (decoded(seen).state != State::Doomed || is_held(view, entry)) return;
        if (!move(entry, seen, State::Freeing, self)) continue;
        PENSTOCK_CRASH_POINT("store.collect.freeing");
        return finish_freeing(entry);
    }
}

// A reader's pin refuses it, also one that comes in between.
StoreOrder::Outcome StoreCore::evict(std::uint32_t entry) noexcept {
    using Outcome = StoreOrder::Outcome;
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
        // pairs with: acquire() of Pins and the look at the word after it. Looked at after `now`:
        // between this and another thread of ours it may have been a reader's meanwhile.
        const bool is_wanted = is_held(view, entry) ||
                               decode_favour(view.entry(entry).favour.load(kRelaxed)).retained > 0;
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
        finish_freeing(entry);
        add(own().evicted);
        add(own().evicted_bytes, bytes);
        return outcome;
    }
    return Outcome::Damaged;
}

StoreOrder::Outcome StoreCore::evict_one() noexcept {
    using Outcome = StoreOrder::Outcome;
    if (view.shape().eviction == Eviction::None) return Outcome::Changed;
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        const std::uint32_t victim = order.victim();
        if (victim == StoreOrder::kNone) return Outcome::Changed;
        const Outcome outcome = evict(victim);
        if (outcome != Outcome::Changed) return outcome;
    }
    return Outcome::Damaged;
}

// Of an object that we have pinned; it goes with its last reader. Changed: another did it.
StoreOrder::Outcome StoreCore::remove(std::uint32_t entry) noexcept {
    using Outcome = StoreOrder::Outcome;
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
        add(own().deleted);
        return outcome;
    }
    return Outcome::Damaged;
}

std::uint64_t StoreCore::clear() noexcept {
    std::uint64_t removed = 0;
    for (std::uint32_t entry = 0; entry < view.shape().entries(); ++entry) {
        const std::uint64_t seen = word(entry);
        const layout::EntryWord is = decoded(seen);
        if (is.state == State::Staged) {
            // The memory stays its writer's; the commit is refused.
            if (move(entry, seen, State::Expired, is.participant)) ++removed;
            continue;
        }
        if (is.state != State::Resident && is.state != State::Evicting) continue;
        if (!pin(entry)) continue;
        if (remove(entry) == StoreOrder::Outcome::Done) ++removed;
        unpin(entry);
    }
    return removed;
}

// Of an object that we have pinned.
bool StoreCore::keep(std::uint32_t entry, bool keeps) noexcept {
    std::atomic<std::uint64_t>& word = view.entry(entry).favour;
    std::uint64_t seen = word.load(kRelaxed);
    for (;;) {
        Favour favour = decode_favour(seen);
        const auto most = static_cast<std::uint16_t>(~0U);
        if (favour.retained == (keeps ? most : 0)) return false;
        favour.retained =
            static_cast<std::uint16_t>(keeps ? favour.retained + 1 : favour.retained - 1);
        if (word.compare_exchange_weak(seen, encode_favour(favour), kRelaxed)) return true;
    }
}

}  // namespace penstock::detail

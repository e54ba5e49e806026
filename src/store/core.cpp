// A participant's work: joining, finding room, waiting, reaping the dead, leaving.
#include "store/core.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "os/clock.hpp"
#include "os/crash_point.hpp"
#include "segment/closed_handle.hpp"
#include "segment/text.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

using layout::StoreEntry;

std::string shown(std::string_view key) {
    constexpr std::size_t kMax = 60;
    return "'" + printable(cut(key, kMax)) + (key.size() > kMax ? "...'" : "'");
}

}  // namespace

// ---- joining and leaving

std::shared_ptr<StoreCore> StoreCore::create(const std::string& name, const StoreOptions& options) {
    const StoreShape shape = store_shape_of(options);
    SegmentPlan plan = plan_of(shape);
    plan.waiting = options.waiting;
    plan.replaces_owner = options.replaces_owner;
    auto fresh = Segment::create(name, plan, options.memory, [&](Segment& segment) {
        MultiWord words;
        const StoreView view(shape, segment.control());
        words.attach(segment.control(), shape.control_bytes() / sizeof(Word), view.operations(),
                     shape.participants, 0);
        Heap heap(shape.heap, view.heap_control(), words, segment.file(), segment.payload_offset());
        heap.prepare(shape.is_reserved);
        store_relaxed(view.state().reach, 1);
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

StoreCore::StoreCore(std::unique_ptr<Segment> joined, unsigned participant)
    : StoreEntries(std::move(joined), participant) {
    membership = Membership(*segment, view.shape().participants);
    committed = Signal(view.committed_word(), segment->has_asymmetric_fence());
    spin.learn(segment->receiving_budget(self, WaitMeter::Waiters::Several));
}

void StoreCore::join() {
    act_as(membership.claim_any());
    spin.learn(segment->receiving_budget(self, WaitMeter::Waiters::Several));
    extend_reach();
    membership.inherit([this](unsigned dead) { take_over(dead); });
    pins = std::make_unique<Pins>(view, self);
    membership.enter();
    committed.notify();  // so that waits for a key watch this participant, too
    enter(*segment, self);
}

// Called before this participant changes shared memory, so that others look at its slot.
void StoreCore::extend_reach() noexcept {
    std::atomic<std::uint64_t>& reach = view.state().reach;
    std::uint64_t seen = load_relaxed(reach);
    while (seen <= self && !cas_seq_cst(reach, seen, std::uint64_t{self} + 1)) {
    }
}

StoreCore::~StoreCore() {
    withdraw();
    if (!segment->check_place()) return;
    vacate();
}

// Releases pins and reservations. Left-over StoreObjects stay readable, and change nothing.
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
    return closing.is_cancelled() ? closed() : Status::ok();
}

Status StoreCore::closed() noexcept {
    return closed_handle("store handle");
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

// Frees everything that the participant holds. The caller holds its lock. Repeatable.
void StoreCore::take_over(unsigned participant) noexcept {
    words.finish(participant);
    // First, because a successor's own changes would overwrite the note in the slot it inherited.
    heap.reap(participant);
    PENSTOCK_CRASH_POINT("store.janitor.finished");
    for (std::uint32_t entry = 0; entry < view.shape().entries(); ++entry) {
        reap_entry(entry, participant);
    }
    PENSTOCK_CRASH_POINT("store.janitor.entries");
    heap.restore_hints();
    committed.notify();  // finish() may have completed the dead one's commit
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

// Handles a key that is staged. Ok: it no longer is, look again.
Status StoreCore::refuse_staged(std::string_view key, std::uint32_t entry,
                                std::uint64_t seen) noexcept {
    const unsigned participant = layout::decode_entry(seen).participant;
    if (participant >= view.shape().participants) {
        return damaged("entries");
    }
    if (is_overdue(entry) && (participant == self || os::clock_offsets().is_known)) {
        expire(entry, seen);
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

// Claims an entry near the key's home; if none is free, evicts a neighbour.
std::uint32_t StoreCore::claim_entry(const KeyHash& hash) noexcept {
    constexpr unsigned kNear = layout::kProbes * layout::kWays;
    std::uint32_t entry = index.claim(hash, self);
    if (entry != StoreIndex::kNone) return entry;
    reap();
    for (unsigned number = 0; number < kNear; ++number) {
        unstick((index.home(hash) * layout::kWays + number) & (view.shape().entries() - 1));
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

// Stages the key, so that other participants see that it is being written.
Result<std::uint32_t> StoreCore::stage(std::string_view key, const KeyHash& hash,
                                       const ReserveOptions& options) noexcept {
    for (unsigned attempt = 0; attempt < kMaxAttempts; ++attempt) {
        Word& version = index.version(hash);
        const std::uint64_t seen = words.read(version);
        if (seen == MultiWord::kBroken) return damaged("entries");
        // Staged before resident: the writer may commit between the two looks.
        std::uint64_t staged = 0;
        const std::uint32_t other = index.find(hash, [&](std::uint32_t, std::uint64_t value) {
            staged = value;
            return layout::decode_entry(value).state == State::Staged;
        });
        if (other != StoreIndex::kNone) {
            if (Status status = refuse_staged(key, other, staged); !status) return status;
            continue;
        }
        if (const auto there = StoreEntries::pin_key(hash, key)) {
            unpin(there->ref.entry);
            return Status(ErrorCode::AlreadyExists);
        }
        const std::uint32_t entry = claim_entry(hash);
        if (entry == StoreIndex::kNone) {
            fetch_add_relaxed(own().refused, 1);
            return Status(ErrorCode::NoSpace, "the index of " + title() + " is full where " +
                                                  shown(key) +
                                                  " belongs; create it with more `objects`");
        }
        const Outcome outcome = StoreEntries::stage(entry, version, seen, options);
        if (outcome == Outcome::Done) return entry;
        if (outcome == Outcome::Damaged) break;
    }
    return damaged("entries");
}

Status StoreCore::no_room(std::uint64_t bytes) noexcept {
    fetch_add_relaxed(own().refused, 1);
    const HeapUse use = heap.use();
    return {ErrorCode::NoSpace,
            "no room for " + std::to_string(bytes) + " bytes in " + title() + ": " +
                std::to_string(use.free_bytes) + " are free, the longest piece has " +
                std::to_string(use.largest_free) +
                ", and what is in use, retained or being written can't be evicted"};
}

// Allocates a block for a staged entry: free memory first, then that of the dead, then eviction.
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
        const Outcome eviction = evict_one();
        if (eviction == Outcome::Damaged) return damaged("links");
        if (eviction == Outcome::Done) continue;
        if (!std::exchange(has_looked, true)) {
            // Again: a janitor in a slot before that of its dead participant may have died with the
            // blocks it took over.
            reap();
            unstick_all();
            continue;
        }
        if (outcome.fit == Heap::Fit::NoMemory) {
            if (Status status = check_usable(); !status) return status;
            fetch_add_relaxed(own().refused, 1);
            return Status(ErrorCode::NoSpace, "could not reserve " + std::to_string(request.bytes) +
                                                  " bytes of shared memory for " + title() + ": " +
                                                  outcome.error.message() +
                                                  segment->space_sentence());
        }
        return no_room(request.bytes);
    }
    return damaged("blocks");
}

// Completes what stalled participants left half done, and frees the room and entries of that.
void StoreCore::unstick_all() noexcept {
    for (std::uint32_t entry = 0; entry < view.shape().entries(); ++entry) unstick(entry);
    heap.restore_hints();
}

Result<StoreCore::Staged> StoreCore::reserve(std::string_view key, std::uint64_t nbytes,
                                             const ReserveOptions& options) noexcept {
    // Large objects take long to write: check first that this participant still has its slot.
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
    store_relaxed(entry.header, layout::encode_header(header));
    store_relaxed(entry.nbytes, nbytes);
    // The allocator's result, not the entry's block word, which is in writable shared memory.
    std::byte* const block = segment->payload() + heap.offset(*room);
    std::memcpy(block, key.data(), key.size());
    if (!options.meta.empty()) {
        std::memcpy(block + key.size(), options.meta.data(), options.meta.size());
    }
    return Staged{*staged, {block + header.lead_bytes, nbytes}};
}

Status StoreCore::commit(std::uint32_t entry) noexcept {
    const Outcome outcome = publish(entry);
    if (outcome == Outcome::Done) {
        committed.notify();
        return Status::ok();
    }
    const bool is_late = is_overdue(entry);
    abort(entry);
    if (outcome == Outcome::Damaged) return damaged("links");
    fetch_add_relaxed(own().expired, 1);
    return {ErrorCode::Expired,
            is_late ? "the reservation's deadline has passed; the object was not committed"
                    : "the reservation was cleared away; the object was not committed"};
}

Status StoreCore::resize(std::uint32_t entry, const std::byte* data,
                         std::uint64_t nbytes) noexcept {
    StoreEntry& self_entry = view.entry(entry);
    const layout::EntryHeader header = layout::decode_header(load_relaxed(self_entry.header));
    if (nbytes > view.shape().heap.bytes()) return Status(ErrorCode::TooLarge);
    HeapBlock block = heap.block_named(payload_of(words.read(self_entry.block)));
    // A damaged entry may name a block of another object, of another size.
    const bool is_ours =
        block.length > 0 && segment->payload() + heap.offset(block) + header.lead_bytes == data;
    if (!is_ours) return damaged("entries");
    // `nbytes` changes after the block; statistics cap it at the block's size meanwhile.
    const Heap::Fit fit = heap.resize(block, header.lead_bytes + nbytes);
    if (fit == Heap::Fit::Found) {
        store_relaxed(self_entry.nbytes, nbytes);
        return Status::ok();
    }
    if (fit == Heap::Fit::Damaged) return damaged("blocks");
    return {ErrorCode::NoSpace, "no room to make it " + std::to_string(nbytes) +
                                    " bytes long where it is; abort it and reserve anew"};
}

// ---- reading

std::optional<StoreCore::Content> StoreCore::pin_key(std::string_view key) noexcept {
    return StoreEntries::pin_key(hash_key(key, segment->header().instance[0]), key);
}

std::string StoreCore::key_of(std::uint32_t entry) noexcept {
    if (state_of(entry).state != State::Resident || !pin(entry)) return {};
    const Content found = content(entry);
    std::string key(reinterpret_cast<const char*>(found.key.data()), found.key.size());
    unpin(entry);
    return key;
}

void StoreCore::count_look(bool is_hit) noexcept {
    fetch_add_relaxed(is_hit ? own().hits : own().misses, 1);
}

StoreLook StoreCore::look(std::string_view key) noexcept {
    StoreLook look;
    const KeyHash hash = hash_key(key, segment->header().instance[0]);
    if (const auto found = StoreEntries::pin_key(hash, key)) {
        look.state = StoreLook::State::Hit;
        look.nbytes = found->bytes.size();
        look.is_retained = is_retained(found->ref.entry);
        unpin(found->ref.entry);
        return look;
    }
    index.find(hash, [&](std::uint32_t, std::uint64_t seen) {
        const layout::EntryWord is = layout::decode_entry(seen);
        if (is.state != State::Staged) return false;
        look.state = StoreLook::State::Staged;
        look.staged_by = static_cast<int>(is.participant);
        return true;
    });
    return look;
}

Result<StoreCore::Content> StoreCore::wait_for(std::string_view key, const Wait& wait) noexcept {
    std::optional<Content> found;
    const auto is_there = [&] {
        if (!found) found = pin_key(key);
        return found.has_value();
    };
    std::uint64_t sleeps = 0;
    SpinBudget budget = spin.copy();
    const auto is_closing = [this] {
        try_reap();  // frees the key of a dead writer
        return closing.is_cancelled() || !segment->check_place();
    };
    Peers peers = segment->participants().peers(0, view.shape().participants, closing);
    peers.slices = Slices::Long;  // every commit is notified
    const WaitEnd end = wait_until(committed, budget, wait, sleeps, is_there, is_closing, peers);
    spin.learn(budget);
    if (segment->is_foreign()) return segment->why_foreign();
    if (end == WaitEnd::Ready || (end == WaitEnd::Timeout && is_there())) return *found;
    if (found) unpin(found->ref.entry);
    if (end == WaitEnd::Timeout) {
        return Status(ErrorCode::Timeout, shown(key) + " is not in " + title() + " yet");
    }
    return Status(ErrorCode::Cancelled, "the wait for " + shown(key) + " was cancelled");
}

// ---- memory

// No effect on memory reserved at creation, which may be pinned for a device.
std::uint64_t StoreCore::trim(std::uint64_t keep_bytes) noexcept {
    return view.shape().is_reserved ? 0 : heap.trim(self, keep_bytes);
}

void StoreCore::persist() noexcept {
    store_relaxed(view.state().stays, 1);  // pairs with: StoreView::is_persistent, by the locks
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
    // Objects are read through the views. A device that can't read read-only memory copies from
    // them through the driver's own buffers: slower, but correct.
    auto* const views = const_cast<std::byte*>(segment->views());
    cuda_views_ =
        os::CudaRegistration::make(views, bytes, problem, os::CudaRegistration::Access::Read);
}

// ---- removing

std::uint64_t StoreCore::clear() noexcept {
    std::uint64_t removed = 0;
    for (std::uint32_t entry = 0; entry < view.shape().entries(); ++entry) {
        const std::uint64_t seen = word(entry);
        const State state = layout::decode_entry(seen).state;
        if (state == State::Staged) {
            if (expire(entry, seen)) ++removed;
            continue;
        }
        if ((state != State::Resident && state != State::Evicting) || !pin(entry)) continue;
        if (remove(entry) == Outcome::Done) ++removed;
        unpin(entry);
    }
    return removed;
}

}  // namespace penstock::detail

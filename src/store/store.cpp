// Public interface of a Store, its reservations and its pinned objects.
#include "penstock/store.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <new>
#include <utility>

#include "segment/words/atomics.hpp"
#include "store/core.hpp"
#include "store/second_tier.hpp"

namespace penstock {

using detail::SecondTier;
using detail::StoreCore;

namespace {

// Wait for a server that also ends once the first tier has the key.
struct UnlessHere {
    StoreCore& core;
    std::string_view key;
    const Wait& callers;

    [[nodiscard]] bool is_here() const noexcept {
        return core.look(key).state == StoreLook::State::Hit;
    }
    [[nodiscard]] Wait wait() const noexcept {
        Wait both = callers;
        both.context = const_cast<UnlessHere*>(this);
        both.interrupted = [](void* context) noexcept {
            const auto& self = *static_cast<const UnlessHere*>(context);
            const Wait& own = self.callers;
            return (own.interrupted != nullptr && own.interrupted(own.context)) || self.is_here();
        };
        return both;
    }
};

// StoreCore::check_usable() without a message, for the fast path of look-ups.
inline bool is_usable(const StoreCore& core) noexcept {
    return !core.segment->is_foreign() && !core.closing.is_cancelled();
}

// Unpins a damaged entry.
Status unsound(StoreCore& core, std::uint32_t entry) noexcept {
    core.unpin(entry);
    return {ErrorCode::Corrupt, "an object of " + core.title() + " contradicts itself, in entry " +
                                    std::to_string(entry)};
}

// Transfers the pin to the object.
Result<StoreObject> object_of(const std::shared_ptr<StoreCore>& core,
                              const StoreCore::Content& found) noexcept {
    // Checked after the pin: unless this participant was found dead, the pin holds.
    if (core->segment->is_found_dead()) [[unlikely]]
        return core->segment->why_foreign();
    if (!found.is_sound) return unsound(*core, found.ref.entry);
    core->touch(found.ref.entry);
    core->count_look(true);
    return Result<StoreObject>(std::in_place, core, found.ref, found.bytes, found.meta,
                               found.format);
}

}  // namespace

// ---- reservations

StoreReservation::StoreReservation(std::shared_ptr<StoreCore> core,
                                   std::shared_ptr<SecondTier> tier, std::uint32_t entry,
                                   std::span<std::byte> bytes) noexcept
    : core_(std::move(core)), tier_(std::move(tier)), entry_(entry), bytes_(bytes) {}

StoreReservation::StoreReservation(StoreReservation&& other) noexcept
    : core_(std::move(other.core_)), tier_(std::move(other.tier_)), entry_(other.entry_),
      bytes_(std::exchange(other.bytes_, {})) {}

StoreReservation& StoreReservation::operator=(StoreReservation&& other) noexcept {
    if (this != &other) {
        abort();
        core_ = std::move(other.core_);
        tier_ = std::move(other.tier_);
        entry_ = other.entry_;
        bytes_ = std::exchange(other.bytes_, {});
    }
    return *this;
}

StoreReservation::~StoreReservation() {
    abort();
}

StoreRef StoreReservation::ref() const noexcept {
    if (core_ == nullptr || core_->segment->is_foreign()) return {};  // not mapped there
    return {entry_, detail::load_relaxed(core_->view.entry(entry_).incarnation)};
}

std::uint64_t StoreReservation::offset() const noexcept {
    if (core_ == nullptr || core_->segment->is_foreign()) return 0;
    const detail::Segment& segment = *core_->segment;
    return segment.payload_offset() + static_cast<std::uint64_t>(bytes_.data() - segment.payload());
}

StorePlace StoreReservation::place() const noexcept {
    if (core_ == nullptr || core_->segment->is_foreign()) return {};
    return {core_->segment->lending_descriptor(), offset(), is_fixed()};
}

bool StoreReservation::is_usable() const noexcept {
    return core_ != nullptr && !core_->segment->is_foreign();
}

bool StoreReservation::is_fixed() const noexcept {
    return core_ != nullptr && detail::load_relaxed(core_->is_fixed);
}

namespace {

Status over() noexcept {
    return {ErrorCode::Expired, "the reservation is over: committed, or aborted, before"};
}

}  // namespace

Status StoreReservation::commit(const Wait& wait) noexcept {
    if (tier_ != nullptr) {
        std::optional<StoreObject> pinned;
        return commit(pinned, wait);
    }
    if (core_ == nullptr) return over();
    const std::shared_ptr<StoreCore> core = std::move(core_);
    bytes_ = {};
    if (core->segment->is_foreign()) return core->segment->why_foreign();
    return core->commit(entry_);
}

Status StoreReservation::commit(std::optional<StoreObject>& pinned, const Wait& wait) noexcept {
    if (core_ == nullptr) return over();
    const std::shared_ptr<StoreCore> core = std::move(core_);
    const std::shared_ptr<SecondTier> tier = std::move(tier_);
    bytes_ = {};
    if (core->segment->is_foreign()) return core->segment->why_foreign();
    // Pinned before the commit, while this reservation owns the entry, so that the object can't be
    // evicted before the second tier has it. A look-up afterwards would count as a read.
    const auto commit_pinned = [&]() -> Status {
        core->pins->acquire(entry_);
        if (Status status = core->commit(entry_); !status) {
            core->unpin(entry_);
            return status;
        }
        const StoreCore::Content found = core->content(entry_);
        if (!found.is_sound) return unsound(*core, entry_);
        pinned.emplace(core, found.ref, found.bytes, found.meta, found.format);
        return Status::ok();
    };
    if (tier == nullptr) return commit_pinned();
    const auto key = core->content(entry_).key;
    return tier->write({reinterpret_cast<const char*>(key.data()), key.size()},
                       std::ref(commit_pinned), pinned, wait);
}

void StoreReservation::abort() noexcept {
    if (core_ == nullptr) return;
    const std::shared_ptr<StoreCore> core = std::move(core_);
    tier_.reset();
    bytes_ = {};
    if (!core->segment->is_foreign()) core->abort(entry_);
}

Status StoreReservation::resize(std::uint64_t nbytes) noexcept {
    if (core_ == nullptr) return over();
    if (core_->segment->is_foreign()) return core_->segment->why_foreign();
    Status status = core_->resize(entry_, bytes_.data(), nbytes);
    if (status) bytes_ = {bytes_.data(), nbytes};
    return status;
}

// ---- objects

StoreObject::StoreObject(StoreObject&& other) noexcept
    : core_(std::move(other.core_)), ref_(other.ref_), bytes_(std::exchange(other.bytes_, {})),
      meta_(std::exchange(other.meta_, {})), format_(other.format_) {}

StoreObject& StoreObject::operator=(StoreObject&& other) noexcept {
    if (this != &other) {
        release();
        core_ = std::move(other.core_);
        ref_ = other.ref_;
        bytes_ = std::exchange(other.bytes_, {});
        meta_ = std::exchange(other.meta_, {});
        format_ = other.format_;
    }
    return *this;
}

StoreObject::~StoreObject() {
    release();
}

std::uint64_t StoreObject::offset() const noexcept {
    if (core_ == nullptr || core_->segment->is_foreign()) return 0;
    const detail::Segment& segment = *core_->segment;
    return segment.payload_offset() + static_cast<std::uint64_t>(bytes_.data() - segment.views());
}

Status StoreObject::check_held() const noexcept {
    if (core_ == nullptr || !core_->segment->is_foreign_after_reading()) return Status::ok();
    return core_->segment->why_foreign();
}

StoreObject StoreObject::share() const noexcept {
    // This object's own pin keeps the entry from being freed.
    if (core_ != nullptr && !core_->segment->is_foreign()) core_->pins->acquire(ref_.entry);
    return {core_, ref_, bytes_, meta_, format_};
}

void StoreObject::release() noexcept {
    if (core_ == nullptr) return;
    const std::shared_ptr<StoreCore> core = std::move(core_);
    bytes_ = {};
    meta_ = {};
    if (!core->segment->is_foreign()) core->unpin(ref_.entry);
}

// ---- the handle

Store Store::create(const std::string& name, const StoreOptions& options) {
    std::shared_ptr<SecondTier> tier;  // first: if it fails, no store is created
    if (options.second_tier) tier = SecondTier::open(*options.second_tier, options.memory.wait);
    Store store(StoreCore::create(name, options));
    store.stand_before(std::move(tier));
    return store;
}

Store Store::attach(const std::string& name, const Wait& wait, const std::string& instance,
                    const Trust& trust, const std::optional<SecondTierOptions>& second_tier) {
    const detail::Wanted wanted{Kind::Store, os::Mapping::Access::ReadWrite, instance, trust};
    Store store(StoreCore::attach(detail::attach_when_there(name, wanted, wait)));
    if (second_tier) store.stand_before(SecondTier::open(*second_tier, wait));
    return store;
}

void Store::stand_before(std::shared_ptr<SecondTier> tier) {
    if (tier != nullptr) tier->stand_behind(Store(core_));
    tier_ = std::move(tier);
}

Store::Store(std::shared_ptr<StoreCore> core)
    : core_(std::move(core)), name_(core_->segment->name()), instance_(core_->segment->instance()) {
}
Store::Store(Store&& other) noexcept = default;

Store& Store::operator=(Store&& other) noexcept {
    if (this != &other) {
        close(Deadline::now());
        core_ = std::move(other.core_);
        tier_ = std::move(other.tier_);
        name_ = std::move(other.name_);
        instance_ = std::move(other.instance_);
    }
    return *this;
}

Store::~Store() {
    close(Deadline::now());
}

Result<StoreReservation> Store::reserve(std::string_view key, std::uint64_t nbytes,
                                        const ReserveOptions& options) noexcept {
    if (core_ == nullptr) return StoreCore::closed();
    Result<StoreCore::Staged> staged = core_->reserve(key, nbytes, options);
    if (!staged) return staged.status();
    return Result<StoreReservation>(std::in_place, core_, tier_, staged->entry, staged->bytes);
}

Status Store::put(std::string_view key, std::span<const std::byte> value,
                  const ReserveOptions& options, const Wait& wait) noexcept {
    Result<StoreReservation> reservation = reserve(key, value.size(), options);
    if (!reservation) return reservation.status();
    if (!value.empty()) std::memcpy(reservation->bytes().data(), value.data(), value.size());
    return reservation->commit(wait);
}

Result<StoreObject> Store::get(std::string_view key, const Wait& wait,
                               const FetchCheck* check) noexcept {
    if (core_ == nullptr) return StoreCore::closed();
    if (!is_usable(*core_)) [[unlikely]]
        return core_->check_usable();
    if (const auto found = core_->pin_key(key)) return object_of(core_, *found);
    if (tier_ != nullptr && wait.deadline.is_try()) return Status(ErrorCode::Timeout);
    core_->count_look(false);
    if (tier_ != nullptr) return tier_->fetch(key, wait, check);
    return Status(ErrorCode::NotFound);
}

Result<StoreObject> Store::get(const StoreRef& ref) noexcept {
    if (core_ == nullptr) return StoreCore::closed();
    if (!is_usable(*core_)) [[unlikely]]
        return core_->check_usable();
    if (const auto found = core_->pin_ref(ref)) return object_of(core_, *found);
    core_->count_look(false);
    return Status(ErrorCode::NotFound);
}

Result<StoreObject> Store::wait(std::string_view key, const Wait& wait,
                                const FetchCheck* check) noexcept {
    if (core_ == nullptr) return StoreCore::closed();
    if (Status status = core_->check_usable(); !status) return status;
    // Polls the second tier: puts of other machines raise no signal here.
    constexpr std::chrono::nanoseconds kMostPause = std::chrono::seconds(1);
    std::chrono::nanoseconds pause = std::chrono::milliseconds(10);
    Wait slice = wait;
    const UnlessHere unless_here{*core_, key, wait};
    for (;; pause = std::min(2 * pause, kMostPause)) {
        if (asks(wait) && !unless_here.is_here()) {
            Result<StoreObject> fetched = tier_->fetch(key, unless_here.wait(), check);
            const bool is_miss = fetched.code() == ErrorCode::NotFound;
            if (fetched || (!is_miss && !unless_here.is_here())) return fetched;
            slice.deadline = Deadline::after(wait.deadline.left(Clock::now(), pause));
        }
        const Result<StoreCore::Content> found = core_->wait_for(key, slice);
        if (found) return object_of(core_, *found);
        const bool is_over = !asks(wait) || wait.deadline.has_passed(Clock::now());
        if (found.code() != ErrorCode::Timeout || is_over) return found.status();
    }
}

bool Store::contains(std::string_view key, const Wait& wait) noexcept {
    if (core_ == nullptr || !core_->check_usable()) return false;
    if (core_->look(key).state == StoreLook::State::Hit) return true;
    return asks(wait) && tier_->contains(key, wait);
}

StoreLook Store::look(std::string_view key, const Wait& wait) noexcept {
    if (core_ == nullptr || !core_->check_usable()) return {};
    StoreLook look = core_->look(key);
    if (look.state == StoreLook::State::Miss && asks(wait)) look = tier_->look(key, wait);
    return look;
}

std::vector<Result<StoreReservation>> Store::reserve_many(std::span<const StoreRequest> requests,
                                                          const ReserveOptions& options,
                                                          bool prefix) {
    std::vector<Result<StoreReservation>> outcomes;
    outcomes.reserve(requests.size());
    for (const StoreRequest& request : requests) {
        outcomes.push_back(reserve(request.key, request.nbytes, options));
        if (prefix && !outcomes.back()) break;
    }
    return outcomes;
}

std::vector<Result<StoreObject>> Store::get_many(std::span<const std::string_view> keys,
                                                 bool prefix, const Wait& wait,
                                                 const FetchCheck* check) {
    std::vector<Result<StoreObject>> outcomes;
    outcomes.reserve(keys.size());
    Status ended;
    for (const std::string_view key : keys) {
        outcomes.push_back(ended ? get(key, wait, check) : Result<StoreObject>(ended));
        if (prefix && !outcomes.back()) break;
        const ErrorCode code = outcomes.back().code();
        const bool has_ended = code == ErrorCode::Cancelled || code == ErrorCode::Timeout;
        if (has_ended && asks(wait)) ended = outcomes.back().status();
    }
    return outcomes;
}

namespace {

// Calls `bool act(entry)` on the key's object while it is pinned.
template <typename Act>
Status act_on(const std::shared_ptr<StoreCore>& core, std::string_view key, Act&& act) noexcept {
    if (core == nullptr) return StoreCore::closed();
    if (Status status = core->check_usable(); !status) return status;
    const auto found = core->pin_key(key);
    if (!found) return Status(ErrorCode::NotFound);
    const bool done = act(found->ref.entry);
    core->unpin(found->ref.entry);
    return done ? Status::ok() : Status(ErrorCode::NotFound);
}

}  // namespace

Status Store::remove(std::string_view key, const Wait& wait) noexcept {
    if (tier_ != nullptr && core_->check_usable()) return tier_->remove(key, wait);
    using Outcome = detail::StoreOrder::Outcome;
    Outcome outcome = Outcome::Changed;
    const Status status = act_on(core_, key, [&](std::uint32_t entry) {
        outcome = core_->remove(entry);
        return outcome == Outcome::Done;
    });
    return outcome == Outcome::Damaged ? core_->damaged("links") : status;
}

bool Store::touch(std::string_view key, const Wait& wait) noexcept {
    const Status status = act_on(core_, key, [this](std::uint32_t entry) {
        core_->touch(entry);
        return true;
    });
    const bool is_asked = (status || status.code() == ErrorCode::NotFound) && asks(wait);
    return (is_asked && tier_->touch(key, wait)) || status.is_ok();
}

Status Store::retain(std::string_view key) noexcept {
    return act_on(core_, key, [this](std::uint32_t entry) { return core_->retain(entry, true); });
}

Status Store::release(std::string_view key) noexcept {
    return act_on(core_, key, [this](std::uint32_t entry) { return core_->retain(entry, false); });
}

std::uint64_t Store::clear() noexcept {
    return core_ == nullptr || !core_->check_usable() ? 0 : core_->clear();
}

std::uint64_t Store::trim(std::uint64_t keep_bytes) noexcept {
    return core_ == nullptr || !core_->check_usable() ? 0 : core_->trim(keep_bytes);
}

Status Store::populate(const Wait& wait) noexcept {
    if (core_ == nullptr) return StoreCore::closed();
    if (Status status = core_->check_usable(); !status) return status;
    return core_->segment->populate(wait, core_->closing);
}

Status Store::persist() noexcept {
    if (core_ == nullptr) return StoreCore::closed();
    if (Status status = core_->check_usable(); !status) return status;
    core_->persist();
    return Status::ok();
}

bool Store::is_persistent() const noexcept {
    return core_ != nullptr && !core_->segment->is_foreign() && core_->view.is_persistent();
}

void Store::register_cuda() {
    if (core_ == nullptr) StoreCore::closed().or_throw();
    core_->check_usable().or_throw();
    core_->register_cuda();
}

std::vector<std::string> Store::keys(const Wait& wait) const {
    if (core_ == nullptr) StoreCore::closed().or_throw();
    core_->check_usable().or_throw();
    std::vector<std::string> keys;
    for (std::uint32_t entry = 0; entry < core_->view.shape().entries(); ++entry) {
        const auto key = core_->key_of(entry);
        if (!key.empty()) keys.push_back(key);
    }
    if (!asks(wait)) return keys;
    const std::vector<std::string> others = tier_->keys(wait);
    keys.insert(keys.end(), others.begin(), others.end());
    std::sort(keys.begin(), keys.end());
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
    return keys;
}

StoreStats Store::stats() const {
    if (core_ == nullptr) StoreCore::closed().or_throw();
    static_cast<void>(core_->segment->check_place());
    core_->check_usable().or_throw();
    StoreStats stats = detail::read_store_stats(core_->view, core_->words, core_->heap);
    const detail::Segment& segment = *core_->segment;
    detail::read_segment_stats(stats, segment.header(), segment.participants(), segment.file());
    if (tier_ != nullptr) stats.second_tier = tier_->stats();
    return stats;
}

void Store::reap_dead() noexcept {
    if (core_ != nullptr && core_->check_usable()) core_->reap();
}

std::string Store::name() const {
    return name_;
}

std::string Store::instance() const {
    return instance_;
}

std::uint64_t Store::capacity() const noexcept {
    return core_ == nullptr ? 0 : core_->view.shape().heap.bytes();
}

Unwritten Store::flush(const Wait& wait) noexcept {
    return tier_ == nullptr ? Unwritten{} : tier_->flush(wait);
}

Unwritten Store::finish(const Wait& wait) noexcept {
    return tier_ == nullptr ? Unwritten{} : tier_->close(wait);
}

Unwritten Store::close(const Wait& wait) noexcept {
    if (core_ == nullptr) return {};
    const Unwritten report = finish(wait);
    core_->closing.cancel();
    core_.reset();
    tier_.reset();
    return report;
}

void Store::request_close() noexcept {
    if (core_ == nullptr) return;
    core_->closing.cancel();
    if (tier_ != nullptr) tier_->cancel();
}

}  // namespace penstock
